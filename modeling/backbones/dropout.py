"""Dropout that costs a processor a tenth of torch's.

Torch draws a number of 53 random bits for each value, and then takes several passes. Here 16 bits decide, four values
a draw, and the mask is multiplied in one pass: the rate is rounded to a multiple of 1/65536, and what is kept is scaled
by the rate as it was rounded, so the mean is exact. Elsewhere (GPUs, traces, compiled networks) torch's own is used.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

M = TypeVar("M", bound=nn.Module)
_STEPS = 1 << 16


def dropout(values: Tensor, rate: float) -> Tensor:
    """`values`, each set to zero with probability `rate` from torch's generator, the others scaled to keep the mean.

    Parameters
    ----------
    values : Tensor [...], float
        Of any shape.
    rate : float
        0 to 1.
    """
    dropped = round(rate * _STEPS)
    if dropped == 0:
        return values
    if values.device.type != "cpu" or dropped == _STEPS or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return F.dropout(values, rate)
    count = values.numel()
    random = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    random = random.view(torch.int16)[:count].view(values.shape)
    kept = torch.ge(random, dropped - _STEPS // 2, out=torch.empty(values.shape, dtype=values.dtype))
    return values * kept.mul_(_STEPS / (_STEPS - dropped))


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` by `dropout`."""

    def forward(self, values: Tensor) -> Tensor:
        """`values`, in training with some of them zero."""
        return dropout(values, self.p) if self.training else values


def attend(
    query: Tensor, key: Tensor, value: Tensor, rate: float, causal: bool = False, mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention with dropout of its weights.

    Torch's fused function has no dropout on processors: it takes the long way there too.

    Parameters
    ----------
    query, key, value : Tensor [B, H, L, D], float
        As torch's ``scaled_dot_product_attention`` takes them.
    rate : float
        Share of the weights that are dropped.
    causal : bool
        Whether no position sees a later one; not with `mask`.
    mask : Tensor, optional
        Of a shape that expands to [B, H, L, L]: True where a position (last but one axis) sees another, or what is
        added to the scores.
    scale : float, optional
        Of the scores, ``D ** -0.5`` by default.

    Returns
    -------
    Tensor [B, H, L, D]
    """
    if rate == 0 or query.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, mask, rate, causal, scale=scale)
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-1, -2)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, torch.finfo(scores.dtype).min)
        scores = scores + mask
    return dropout(scores.softmax(-1), rate) @ value


def hugging_face(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """`attend` as an attention function of the transformers library, under the name `ATTENTION`."""
    if dropout == 0 or options.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, **options)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    causal = options.get("is_causal")
    causal = attention_mask is None and (getattr(module, "is_causal", True) if causal is None else causal)
    found = attend(query, key, value, dropout, bool(causal), attention_mask, options.get("scaling"))
    return found.transpose(1, 2).contiguous(), None


ATTENTION = "nextitem"
AttentionInterface.register(ATTENTION, hugging_face)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def quick(network: M) -> M:
    """The same network with `Dropout` in the place of torch's, in place."""
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
    return network
