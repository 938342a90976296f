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

    With one stream it is also computed in fewer steps: one product for queries, keys and values, with the heads first
    and the sessions next, and the encodings of distances once instead of once a session.
    """

    def forward(
        self,
        h: Tensor,
        g: Tensor | None,
        attn_mask_h: Tensor | None,
        attn_mask_g: Tensor | None,
        r: Tensor,
        seg_mat: Tensor | None,
        mems: Tensor | None = None,
        target_mapping: Tensor | None = None,
        output_attentions: bool = False,
    ) -> Any:
        """Contents [L, B, D], queries or None, hidden [L, L, B, 1], encodings of distances [2 L, B, D]; see there."""
        if g is not None or mems is not None:
            return super().forward(
                h, g, attn_mask_h, attn_mask_g, r, seg_mat, mems, target_mapping, output_attentions
            )  # fmt: skip
        length, batch, _ = h.shape
        weight = torch.cat([self.q.flatten(1), self.k.flatten(1), self.v.flatten(1)], dim=1)
        split = (h @ weight).view(length, batch, 3, self.n_head, self.d_head)
        query, key, value = split.permute(2, 3, 1, 0, 4).contiguous().unbind(0)  # [heads, B, L, width]
        # A session's distances are those of any other.
        distances = (r[:, 0].to(self.r.dtype) @ self.r.flatten(1)).view(-1, self.n_head, self.d_head)
        content = (query + self.r_w_bias[:, None, None]) @ key.transpose(-1, -2)
        position = (query + self.r_r_bias[:, None, None]).flatten(1, 2) @ distances.permute(1, 2, 0)
        position = position.view(self.n_head, batch, length, -1)
        scores = (content + self._shifted(position, length)) * self.scale
        if attn_mask_h is not None:
            hidden = attn_mask_h[..., 0].permute(2, 0, 1).to(scores.dtype)
            scores = scores + hidden * torch.finfo(scores.dtype).min
        weights = scores.softmax(-1)
        if attn_mask_h is not None:
            sees = (hidden == 0).any(-1, keepdim=True)
            weights = weights * sees.to(weights.dtype)
        attended = (self.dropout(weights) @ value).permute(2, 1, 0, 3).reshape(length, batch, -1)
        answer = self.dropout(attended @ self.o.flatten(1).T)
        found = self.layer_norm(answer + h)
        return (found, None, weights.permute(2, 3, 1, 0)) if output_attentions else (found, None)

    def _shifted(self, scores: Tensor, length: int) -> Tensor:
        """Scores by distance [heads, B, L, R] as scores by position [heads, B, L, L]: a row begins one later each."""
        if torch.jit.is_tracing():
            shifted: Tensor = self.rel_shift_bnij(scores, klen=length)
            return shifted
        heads, batch, _, reach = scores.shape
        steps = (batch * length * reach, length * reach, reach - 1, 1)
        return scores.contiguous().as_strided((heads, batch, length, length), steps, length)

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
