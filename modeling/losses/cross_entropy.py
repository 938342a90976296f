"""Exact cross-entropy over a large catalogue, without ever holding targets x items.

The logits of a few hundred targets fit the processor's cache; so the loss and its gradient are computed chunk by
chunk in one pass, and the backward pass only scales what is already there. The gradient is the exact one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits a chunk holds at once: measured best on CPUs with a few MiB of cache; a GPU wants large matrices.
_CPU_CHUNK = 1 << 20
_GPU_CHUNK = 1 << 26


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float
    ) -> Tensor:
        rows, classes = hidden.shape[0], weight.shape[0]
        chunk = max(16, (_GPU_CHUNK if hidden.is_cuda else _CPU_CHUNK) // classes)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        d_bias = torch.zeros_like(bias) if bias is not None else None
        total = hidden.new_zeros((), dtype=torch.float64 if not hidden.is_cuda else torch.float32)
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            h, t = hidden[part], target[part, None]
            logits = torch.addmm(bias, h, weight.T) if bias is not None else h @ weight.T
            at_target = logits.gather(1, t)[:, 0]
            mean = logits.mean(1) if smoothing else at_target
            normaliser = torch.logsumexp(logits, 1)
            total += (normaliser - (1 - smoothing) * at_target - smoothing * mean).sum()
            gradient = logits.sub_(normaliser[:, None]).exp_()
            if smoothing:
                gradient -= smoothing / classes
            gradient.scatter_add_(1, t, gradient.new_full((1, 1), smoothing - 1).expand(t.shape))
            torch.mm(gradient, weight, out=d_hidden[part])
            d_weight.addmm_(gradient.T, h)
            if d_bias is not None:
                d_bias += gradient.sum(0)
        ctx.save_for_backward(*[g.div_(rows) for g in (d_hidden, d_weight, d_bias) if g is not None])
        return (total / rows).to(hidden.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight, *d_bias = ctx.saved_tensors
        return upstream * d_hidden, upstream * d_weight, upstream * d_bias[0] if d_bias else None, None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy of ``hidden @ weight.T + bias`` against `target`.

    Parameters
    ----------
    hidden : Tensor [N, D], float32
        A vector a target, N at least 1.
    weight : Tensor [C, D], float32
        A vector a class.
    bias : Tensor [C], optional
        A number a class.
    target : Tensor [N], int64
        Classes, 0..C-1.
    label_smoothing : float
        The share of probability spread evenly over all classes.

    Returns
    -------
    Tensor, scalar
        The loss; its first derivatives are exact, it has no second ones.
    """
    result: Tensor = _LinearCrossEntropy.apply(hidden.contiguous(), weight, bias, target, label_smoothing)
    return result
