"""Reformer at any length, with an answer as wide as its input (Kitaev et al., ICLR 2020: https://arxiv.org/abs/2001.04451).

Two streams start as the input; layers add attention of the second to the first and an inner layer of the first to the
second. Hugging Face's answer is both streams side by side; here a matrix brings them back to the width. Its backward
pass recomputes the streams to save memory on tens of thousands of positions, and can be neither traced nor run twice;
sessions are short, so torch's own differentiates the same sums. Attention in chunks needs whole chunks: where one does
not cover the session, every session is computed at the longest length.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.reformer.modeling_reformer import ReformerModel

from modeling.backbones.funnel import lengthened
from modeling.backbones.plain import make


class Reformer(ReformerModel):
    """Hugging Face's layers, their streams brought together."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.together = nn.Linear(2 * config.hidden_size, config.hidden_size)
        nn.init.normal_(self.together.weight, std=config.initializer_range)
        nn.init.zeros_(self.together.bias)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, return_dict: bool = False, **_: Any
    ) -> tuple[Any, ...]:
        """Vectors [B, L, hidden_size] and where they are real [B, L] to vectors, and attention weights if wanted."""
        asked = inputs_embeds.shape[1]
        wanted = bool(self.config.output_attentions)
        if attention_mask is None:
            attention_mask = torch.ones_like(inputs_embeds[..., 0])
        mask = attention_mask.bool()
        if self.config.max_position_embeddings > self.config.local_attn_chunk_length:
            inputs_embeds = lengthened(inputs_embeds, self.config.max_position_embeddings)
            mask = lengthened(mask, self.config.max_position_embeddings)
        first = second = self.embeddings(inputs_embeds=inputs_embeds)
        attentions = []
        for layer in self.encoder.layers:
            attended = layer.attention(hidden_states=second, attention_mask=mask, output_attentions=wanted)
            attentions.append(attended.attention_probs)
            first = first + attended.hidden_states
            second = second + layer.feed_forward(first)
        both = self.encoder.layer_norm(torch.cat([first, second], -1))
        values = self.together(F.dropout(both, self.encoder.dropout, self.training))[:, :asked]
        return (values, tuple(attentions)) if wanted else (values,)


def reformer(config: Any, causal: bool) -> Reformer:
    """Reformer for sessions.

    Raises
    ------
    ValueError
        For attention by hashing, or positions in two axes.
    """
    if set(config.attn_layers) != {"local"}:
        raise ValueError(
            "Reformer's 'lsh' layers compare events whose random hashes are neighbours, which depends on later events "
            "and on chance: give attn_layers=['local'] for each layer"
        )
    if config.axial_pos_embds:
        raise ValueError("Reformer's axial positions fit one length only: give axial_pos_embds=False")
    chunk, length = config.local_attn_chunk_length, config.max_position_embeddings
    config = copy.deepcopy(config)
    if length > chunk:
        chunks = -(-length // chunk)
        config.max_position_embeddings = chunks * chunk
        # The chunks form a ring, so with two of them the one before is the one behind.
        config.local_num_chunks_after = 0 if causal or chunks == 2 else max(1, config.local_num_chunks_after)
    return make(Reformer, config, causal)
