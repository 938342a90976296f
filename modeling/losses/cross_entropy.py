"""Exact cross-entropy over a large catalogue, without ever holding targets x items.

The logits of a few hundred targets fit the processor's cache; so the loss and its gradient are computed chunk by
chunk in one pass, and the backward pass only scales what is already there. The gradient is the exact one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modeling.losses.base import Loss
from modeling.serialization import part

# Logits a chunk holds at once: measured best on CPUs with a few MiB of cache; a GPU wants large matrices.
_CPU_CHUNK = 1 << 20
_GPU_CHUNK = 1 << 26
# With fewer rows at once, reading and writing the gradient of the weights would cost more than computing it.
_MIN_ROWS = 64


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float
    ) -> Tensor:
        rows, classes = hidden.shape[0], weight.shape[0]
        chunk = max(_MIN_ROWS, (_GPU_CHUNK if hidden.is_cuda else _CPU_CHUNK) // classes)
        sure = 1 - smoothing
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        d_bias = torch.zeros_like(bias) if bias is not None else None
        total = hidden.new_zeros((), dtype=torch.float64 if not hidden.is_cuda else torch.float32)
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            h, t = hidden[part], target[part, None]
            logits = torch.addmm(bias, h, weight.T) if bias is not None else h @ weight.T
            at_target = logits.gather(1, t)[:, 0]
            largest = logits.amax(1)
            # Probabilities are these divided by their sum: that division is done where there are few numbers.
            powers = logits.sub_(largest[:, None]).exp_()
            inverse = 1 / powers.sum(1)
            total += (largest - inverse.log() - sure * at_target).sum()
            torch.mm(powers, weight, out=d_hidden[part])
            d_hidden[part] *= inverse[:, None]
            d_weight.addmm_(powers.T, h * inverse[:, None])
            if d_bias is not None:
                d_bias.addmv_(powers.T, inverse)
        d_hidden.sub_(weight[target], alpha=sure)
        d_weight.index_add_(0, target, hidden, alpha=-sure)
        if d_bias is not None:
            d_bias.index_add_(0, target, torch.ones_like(hidden[:, 0]), alpha=-sure)
        if smoothing:
            # The mean of a row's logits is the inner product with the mean of the weights.
            mean = weight.mean(0)
            total -= smoothing * (hidden @ mean).sum()
            d_hidden.sub_(mean, alpha=smoothing)
            d_weight.sub_(hidden.sum(0), alpha=smoothing / classes)
            if bias is not None and d_bias is not None:
                total -= smoothing * rows * bias.mean()
                d_bias.sub_(smoothing * rows / classes)
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


@part
class CrossEntropy(Loss):
    """Exact cross-entropy over the whole catalogue, by `linear_cross_entropy`.

    Parameters
    ----------
    label_smoothing : float
        The share of probability spread evenly over all items.
    """

    name = "cross-entropy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"label_smoothing": self.label_smoothing}

    def forward(
        self, answers: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, reserved: int = 0
    ) -> Tensor:
        """See `Loss.forward`."""
        bias = bias[reserved:] if bias is not None else None
        return linear_cross_entropy(answers, weight[reserved:], bias, targets - reserved, self.label_smoothing)
