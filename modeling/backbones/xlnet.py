"""XLNet that looks ahead or not as it is told."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

from modeling.backbones.plain import make, with_weights_of


class StrictAttention(XLNetRelativeAttention):
    """Hugging Face's attention, in which what is hidden stays hidden from a position that sees nothing at all.

    Its own lowers hidden scores by 1e30. Where all are hidden, the softmax does not notice: the first of a permutation
    would get the average of the session, its own item included. Here it gets nothing.
    """

    def rel_attn_core(
        self,
        q_head: Tensor,
        k_head_h: Tensor,
        v_head_h: Tensor,
        k_head_r: Tensor,
        seg_mat: Tensor | None = None,
        attn_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> Any:
        """Queries, keys and values [L, B, heads, width], encodings of distances, 1 where hidden [L, L, B, 1]."""
        content = torch.einsum("ibnd,jbnd->bnij", q_head + self.r_w_bias, k_head_h)
        position = torch.einsum("ibnd,jbnd->bnij", q_head + self.r_r_bias, k_head_r)
        scores = (content + self.rel_shift_bnij(position, klen=content.shape[3])) * self.scale
        if attn_mask is None:
            weights = scores.softmax(-1)
        else:
            hidden = attn_mask.permute(2, 3, 0, 1) > 0
            lowest = torch.finfo(scores.dtype).min
            weights = scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0.0)
        weights = self.dropout(weights)
        context = torch.einsum("bnij,jbnd->ibnd", weights, v_head_h)
        return (context, weights.permute(2, 3, 0, 1)) if output_attentions else context


class XLNet(transformers.XLNetModel):
    """Hugging Face's XLNet; its mask of permutations, made triangular, is causal.

    Its own switch for that (``attn_type="uni"``) fails on batches.
    """

    causal = False

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        perm_mask: Tensor | None = None,
        target_mapping: Tensor | None = None,
        return_dict: bool = False,
        **options: Any,
    ) -> Any:
        """Vectors [B, L, d_model] to vectors.

        Parameters
        ----------
        inputs_embeds : Tensor [B, L, d_model]
            The session.
        attention_mask : Tensor [B, L], optional
            1 where events are real.
        perm_mask : Tensor [B, L, L], optional
            1 where a position (middle axis) may not look at another (last axis).
        target_mapping : Tensor [B, M, L], optional
            Positions whose query stream is the answer, instead of all contents.
        return_dict : bool
            A ModelOutput instead of a tuple.
        **options
            Others of `transformers.XLNetModel.forward`.
        """
        if self.causal and perm_mask is None:
            length = inputs_embeds.shape[1]
            ahead = inputs_embeds.new_ones(length, length).triu(1)
            perm_mask = ahead.expand(inputs_embeds.shape[0], -1, -1)
        if attention_mask is not None:
            attention_mask = attention_mask.to(inputs_embeds.dtype)
        options = {"use_mems": False, **options}
        return super().forward(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, perm_mask=perm_mask,
            target_mapping=target_mapping, return_dict=return_dict, **options,
        )  # fmt: skip

    def relative_positional_encoding(self, *arguments: Any, **options: Any) -> Tensor:
        """As Hugging Face's, in the type of the weights: its query stream takes no other."""
        return super().relative_positional_encoding(*arguments, **options).to(self.dtype)


def xlnet(config: Any, causal: bool) -> XLNet:
    """XLNet for sessions; without the biases of segments, of which a session has one."""
    network = make(XLNet, config, causal)
    network.causal = causal
    for layer in network.layer:
        layer.rel_attn = with_weights_of(StrictAttention(network.config), layer.rel_attn)
        layer.rel_attn.r_s_bias = layer.rel_attn.seg_embed = None
    return network
