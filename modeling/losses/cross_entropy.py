"""Exact cross-entropy over a large catalogue, without ever holding targets x items.

The loss and its gradient are computed block by block in one pass (`modeling.losses.blocks`), and the backward pass
only scales what is already there. The gradient is the exact one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modeling.losses.base import Loss
from modeling.losses.blocks import excess
from modeling.serialization import part

_Gradients = tuple[Tensor, Tensor, Tensor | None]


def _computed(
    gradients: bool,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: float,
    reserved: int,
    mixed: bool,
) -> tuple[Tensor, _Gradients | None]:
    """The mean loss and its gradients by vectors, table and biases."""
    rows, classes, sure = len(hidden), len(weight) - reserved, 1 - smoothing
    w, b, t = weight[reserved:], bias[reserved:] if bias is not None else None, target - reserved
    whole: _Gradients | None = None
    into: _Gradients | None = None
    if gradients:
        # As large as the parameters: a slice of the table would be copied to the size of it by autograd.
        whole = torch.empty_like(hidden), torch.empty_like(weight), torch.empty_like(bias) if bias is not None else None
        into = whole[0], whole[1][reserved:], whole[2][reserved:] if whole[2] is not None else None
    total = excess(hidden, w, b, t, mixed, into)
    if whole is not None and into is not None:
        d_hidden, d_weight, d_bias = into
        d_hidden.sub_(w[t], alpha=sure / rows)
        d_weight.index_add_(0, t, hidden, alpha=-sure / rows)
        whole[1][:reserved] = 0
        if d_bias is not None and whole[2] is not None:
            d_bias.index_add_(0, t, torch.ones_like(hidden[:, 0]), alpha=-sure / rows)
            whole[2][:reserved] = 0
    if smoothing:
        # The mean of a row's logits is the inner product with the mean of the weights.
        mean = w.mean(0)
        total += smoothing * (hidden * (w[t] - mean)).sum()
        if b is not None:
            total += smoothing * (b[t] - b.mean()).sum()
        if into is not None:
            d_hidden, d_weight, d_bias = into
            d_hidden.sub_(mean, alpha=smoothing / rows)
            d_weight.sub_(hidden.sum(0), alpha=smoothing / (rows * classes))
            if d_bias is not None:
                d_bias.sub_(smoothing / classes)
    return (total / rows).to(hidden.dtype), whole


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        loss, ctx.gradients = _computed(True, *arguments)
        ctx.save_for_backward(*arguments[:4])
        ctx.options = arguments[4:]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            # A second time: the first ones were given away, so that the parameter can keep them without a copy.
            _, gradients = _computed(True, *ctx.saved_tensors, *ctx.options)
        if upstream.is_cuda or upstream != 1:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(upstream)
        return *gradients, *[None] * (1 + len(ctx.options))


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    label_smoothing: float = 0.0,
    reserved: int = 0,
    mixed: bool | None = None,
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
        Classes, `reserved` to C - 1.
    label_smoothing : float
        The share of probability spread evenly over all classes.
    reserved : int
        Rows below it are no classes.
    mixed : bool, optional
        Multiply in bfloat16 and add in float32; by default where autocast to bfloat16 is on. It gains on processors
        that have such instructions (AVX512-BF16, AMX, GPUs). Without it everything is in the tensors' own precision.

    Returns
    -------
    Tensor, scalar
        The loss; its first derivatives are exact, it has no second ones.
    """
    device = hidden.device.type
    if mixed is None:
        mixed = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    parameters = [value for value in (hidden, weight, bias) if value is not None]
    with torch.autocast(device, enabled=False):
        hidden = hidden.to(weight.dtype).contiguous()
        arguments = (hidden, weight, bias, target, label_smoothing, reserved, mixed and weight.dtype == torch.float32)
        if torch.is_grad_enabled() and any(value.requires_grad for value in parameters):
            result: Tensor = _LinearCrossEntropy.apply(*arguments)
        else:
            result, _ = _computed(False, *arguments)
    return result


@part
class CrossEntropy(Loss):
    """Exact cross-entropy over the whole catalogue, by `linear_cross_entropy`: in mixed precision under autocast.

    Parameters
    ----------
    label_smoothing : float
        The share of probability spread evenly over all items.
    """

    name = "cross-entropy"
    mixes_precision = True

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
        return linear_cross_entropy(answers, weight, bias, targets, self.label_smoothing, reserved)
