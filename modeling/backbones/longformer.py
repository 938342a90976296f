"""Longformer's windows without its padding, looking back only if wanted (Beltagy et al., 2020).

The paper cuts documents of thousands of words into overlapping chunks so that memory grows with the length, pads to
whole chunks, and looks both ways. Sessions are short: here the window is a band in a full mask, which is the same
attention, exact at any length, and causal when the upper half of the band is closed. Memory grows with the square of
the length. Global attention, for words like <cls>, is left out: no event is one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.longformer.modeling_longformer import LongformerModel, LongformerSelfAttention

from modeling.backbones.plain import make, with_weights_of


class BandAttention(nn.Module):
    """Attention to positions at most half a window away.

    Parameters
    ----------
    config : LongformerConfig
        Sizes.
    window : int
        How far a position sees, both sides together.
    causal : bool
        Whether it sees its past only.
    """

    def __init__(self, config: Any, window: int, causal: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        self.heads = config.num_attention_heads
        self.width = config.hidden_size // config.num_attention_heads
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.reach = window // 2
        self.causal = causal
        self.weights_wanted = bool(config.output_attentions)

    def forward(self, hidden: Tensor, attend: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors [B, L, D] and where they are real [B, L] (bool) to vectors, and weights if wanted."""
        batch, length, width = hidden.shape
        q, k, v = (
            layer(hidden).view(batch, length, self.heads, self.width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        place = torch.arange(length, device=hidden.device)
        back = place[:, None] - place
        band = (back <= self.reach) & (back >= (0 if self.causal else -self.reach))
        # Each position sees itself, so that padding far from any event has an answer too (which nobody reads).
        visible = (band & attend[:, None, :] | (back == 0))[:, None]
        weights = None
        if self.weights_wanted:
            scores = q @ k.transpose(-1, -2) * self.width**-0.5
            weights = self.dropout(scores.masked_fill(~visible, float("-inf")).softmax(-1))
            context = weights @ v
        else:
            rate = self.dropout.p if self.training else 0.0
            context = F.scaled_dot_product_attention(q, k, v, visible, rate)
        return context.transpose(1, 2).reshape(batch, length, width), weights


class Longformer(LongformerModel):
    """Hugging Face's Longformer around `BandAttention`."""

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, return_dict: bool = False, **_: Any
    ) -> tuple[Any, ...]:
        """Vectors [B, L, hidden_size] and where they are real [B, L] to vectors, and attention weights if wanted."""
        if attention_mask is None:
            attention_mask = torch.ones_like(inputs_embeds[..., 0])
        hidden = self.embeddings(inputs_embeds=inputs_embeds)
        attentions = []
        for layer in self.encoder.layer:
            context, weights = layer.attention.self(hidden, attention_mask.bool())
            hidden = layer.attention.output(context, hidden)
            hidden = layer.output(layer.intermediate(hidden), hidden)
            attentions.append(weights)
        return (hidden, tuple(attentions)) if self.config.output_attentions else (hidden,)


def longformer(config: Any, causal: bool) -> Longformer:
    """Longformer for sessions.

    Raises
    ------
    ValueError
        When a window cannot be halved.
    """
    windows = config.attention_window
    for window in windows if isinstance(windows, list | tuple) else [windows]:
        if window < 2 or window % 2:
            raise ValueError(f"attention_window must be positive and even (both sides together), not {window}")
    network = make(Longformer, config, causal, add_pooling_layer=False)
    for layer, window in zip(network.encoder.layer, network.config.attention_window, strict=True):
        old: LongformerSelfAttention = layer.attention.self
        layer.attention.self = with_weights_of(BandAttention(network.config, window, causal), old)
    return network
