"""Losses by name, and any torch loss as one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from modeling.losses.base import Loss
from modeling.losses.cross_entropy import CrossEntropy
from modeling.losses.pairwise import BPRMax, TOP1Max
from modeling.losses.sampled import GeneralisedBCE, SampledSoftmax

loss_registry: dict[str, type[Loss]] = {
    cls.name: cls for cls in (CrossEntropy, SampledSoftmax, GeneralisedBCE, BPRMax, TOP1Max)
}


class TorchLoss(Loss):
    """Any torch loss of logits [N, items] and classes [N]; it costs the whole matrix.

    Parameters
    ----------
    module : callable
        Such as ``torch.nn.MultiMarginLoss()``. Its classes are the ids less the reserved ones.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def config(self) -> dict[str, Any]:
        """It has none.

        Raises
        ------
        UserError
            Always: only losses of this library can be written as data.
        """
        raise unsaved(self.module)

    def forward(
        self, answers: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, reserved: int = 0
    ) -> Tensor:
        """See `Loss.forward`."""
        logits = F.linear(answers, weight[reserved:], bias[reserved:] if bias is not None else None)
        loss: Tensor = self.module(logits, targets - reserved)
        return loss


def unsaved(module: Any) -> UserError:
    """What to say when a model with a loss of somebody else's is saved."""
    return UserError(
        f"a model with the loss {type(module).__name__} cannot be saved: set the task's loss to a name before "
        "(the loss does not change the predictions)"
    )


def plain_cross_entropy(module: Any) -> bool:
    """Whether a torch module is `torch.nn.CrossEntropyLoss` without class weights, a mean."""
    return type(module) is nn.CrossEntropyLoss and module.weight is None and module.reduction == "mean"


def loss_from(loss: str | Loss | Any) -> Loss:
    """A loss from a name of `loss_registry`, a `Loss`, or a torch loss.

    A plain ``torch.nn.CrossEntropyLoss`` becomes `CrossEntropy`: the same number without the matrix.

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in loss_registry:
            raise ValueError(f"there is no loss {loss!r}: take one of {', '.join(loss_registry)}")
        return loss_registry[loss]()
    if plain_cross_entropy(loss):
        return CrossEntropy(loss.label_smoothing)
    if not callable(loss):
        raise ValueError(f"loss must be a name, a Loss or a torch loss, not {loss!r}")
    return TorchLoss(loss)


def LabelSmoothCrossEntropyLoss(smoothing: float = 0.0, reduction: str = "mean") -> CrossEntropy:
    """Transformers4Rec's name of `CrossEntropy` with label smoothing."""
    if reduction != "mean":
        raise ValueError(f"reduction must be 'mean', not {reduction!r}")
    return CrossEntropy(smoothing)
