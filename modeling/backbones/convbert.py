"""ConvBERT whose convolutions do not see padding (Jiang et al., NeurIPS 2020: https://arxiv.org/abs/2008.02496).

Half of its heads are convolutions over the neighbours of an event, with kernels made from the event and its span.
Neighbours that are padding must count as if the session ended there, as they do in attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.convbert.modeling_convbert import ConvBertModel, ConvBertSelfAttention

from modeling.backbones.plain import make, with_weights_of


class SpanAttention(ConvBertSelfAttention):
    """Attention and span-based dynamic convolution side by side, padding hidden from both."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Vectors [B, L, D] and what is added to scores ([B, 1, 1 or L, L]; 0 for events) to vectors and weights."""
        batch, length, _width = hidden_states.shape
        heads, width, kernel = self.num_attention_heads, self.attention_head_size, self.conv_kernel_size
        if attention_mask is None:
            attention_mask = hidden_states.new_zeros(batch, 1, 1, length)
        real = (attention_mask[:, 0, :1] == 0).transpose(1, 2).to(hidden_states.dtype)

        query = self.query(hidden_states)
        q, k, v = (
            t.view(batch, length, heads, width).transpose(1, 2)
            for t in (query, self.key(hidden_states), self.value(hidden_states))
        )
        scores = q @ k.transpose(-1, -2) * width**-0.5 + attention_mask
        weights = self.dropout(scores.softmax(-1))
        attended = (weights @ v).transpose(1, 2)

        span = self.key_conv_attn_layer((hidden_states * real).transpose(1, 2)).transpose(1, 2)
        kernels = self.conv_kernel_layer(span * query).view(batch, length, heads, 1, kernel).softmax(-1)
        before = (kernel - 1) // 2
        neighbours = F.pad(self.conv_out_layer(hidden_states) * real, (0, 0, before, kernel - 1 - before))
        neighbours = neighbours.unfold(1, kernel, 1).reshape(batch, length, heads, width, kernel)
        convolved = (neighbours * kernels).sum(-1)
        return torch.cat([attended, convolved], 2).reshape(batch, length, 2 * heads * width), weights


def convbert(config: Any, causal: bool) -> ConvBertModel:
    """ConvBERT for sessions."""
    network = make(ConvBertModel, config, causal)
    for layer in network.encoder.layer:
        layer.attention.self = with_weights_of(SpanAttention(network.config), layer.attention.self)
    return network
