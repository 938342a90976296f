"""Funnel with the same answer at every length (Dai et al., NeurIPS 2020: https://arxiv.org/abs/2006.03236).

Each block halves the number of positions by averaging pairs; layers at full length decode. Hugging Face's averages
padding in, drops a last event whose neighbour is padding from the attention of later blocks, and its trace is right
at one length only. Here padding has no part in an average, a pair counts when either of the two does, and every
session is computed at the longest length, so all shapes are constants.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.funnel.modeling_funnel import FunnelModel

from modeling.backbones.plain import make


def lengthened(values: Tensor, length: int) -> Tensor:
    """[B, L, ...] with zeros behind it, `length` positions in all. Traces at any L up to that."""
    zeros = values.new_zeros(values.shape[0], length, *values.shape[2:])
    return torch.cat([values, zeros], 1)[:, :length]


class Funnel(FunnelModel):
    """Hugging Face's layers between other pooling.

    ``config.max_position_embeddings`` is the longest length.
    """

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, return_dict: bool = False, **_: Any
    ) -> tuple[Any, ...]:
        """Vectors [B, L, d_model] and where they are real [B, L] to vectors, and attention weights if wanted."""
        asked = inputs_embeds.shape[1]
        length = self.config.max_position_embeddings
        wanted = bool(self.config.output_attentions)
        if attention_mask is None:
            attention_mask = torch.ones_like(inputs_embeds[..., 0])
        full = mask = lengthened(attention_mask.to(inputs_embeds.dtype), length)
        hidden = self.embeddings(inputs_embeds=lengthened(inputs_embeds, length))
        attentions: list[Tensor] = []
        first = hidden

        structure = self.encoder.attention_structure
        positions = structure.get_position_embeds(length, hidden.dtype, hidden.device)
        for number, block in enumerate(self.encoder.blocks):
            for place, layer in enumerate(block):
                for again in range(self.config.block_repeats[number]):
                    pool = number > 0 and place == again == 0
                    query = self._halved(hidden, mask) if pool else hidden
                    hidden, *weights = layer(query, hidden, hidden, (positions, None, mask, None), wanted)
                    attentions += weights
                    mask = mask.view(mask.shape[0], -1, 2).amax(-1) if pool else mask
            first = hidden if number == 0 else first

        hidden = hidden.repeat_interleave(2 ** (self.config.num_blocks - 1), 1) + first
        positions = self.decoder.attention_structure.get_position_embeds(length, hidden.dtype, hidden.device)
        for layer in self.decoder.layers:
            hidden, *weights = layer(hidden, hidden, hidden, (positions, None, full, None), wanted)
            attentions += weights
        hidden = hidden[:, :asked]
        return (hidden, tuple(attentions)) if wanted else (hidden,)

    @staticmethod
    def _halved(hidden: Tensor, mask: Tensor) -> Tensor:
        """Averages of the real ones of each pair; 0 for two that are padding."""
        batch, _, width = hidden.shape
        real = mask.view(batch, -1, 2, 1)
        return (hidden.view(batch, -1, 2, width) * real).sum(2) / real.sum(2).clamp(min=1)


def funnel(config: Any, causal: bool) -> Funnel:
    """Funnel for sessions.

    Raises
    ------
    ValueError
        For the variants of pooling and positions that are not computed here.
    """
    variant = (config.pool_q_only, config.pooling_type, config.attention_type, config.separate_cls)
    if variant != (True, "mean", "relative_shift", False) or not hasattr(config, "max_position_embeddings"):
        raise ValueError(
            "Funnel is supported with pool_q_only=True, pooling_type='mean', attention_type='relative_shift' and "
            "separate_cls=False: make its configuration with FunnelConfig.build"
        )
    network = make(Funnel, config, causal)
    whole = 2 ** (network.config.num_blocks - 1)
    network.config.max_position_embeddings += -network.config.max_position_embeddings % whole
    for name, module in network.named_modules():
        if name.endswith("attention"):  # a session is one segment
            module.r_s_bias = module.seg_embed = None
    return network
