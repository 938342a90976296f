"""Metrics of classification and regression, a few sums each; and any metric's values by name."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from modeling.serialization import part


def snake(name: str) -> str:
    """``BinaryClassificationTask`` as ``binary_classification_task``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def named_values(metric: Any) -> dict[str, float]:
    """What a metric computed, by name: ``{"ndcg_at_10": ..., "ndcg_at_20": ...}`` or ``{"accuracy": ...}``.

    Parameters
    ----------
    metric : RankingMetric, TargetMetric or any object with ``compute()``
        Such as a metric of torchmetrics.
    """
    name = getattr(metric, "name", None) or snake(type(metric).__name__)
    value = metric.compute()
    if getattr(metric, "top_ks", None):
        return {f"{name}_at_{k}": float(v) for k, v in zip(metric.top_ks, value, strict=True)}
    return {name: float(value)}


class TargetMetric:
    """Base: a ratio of two sums over all targets. Calling it also gives the value of the batch alone."""

    name = ""
    _sums: Tensor

    def __init__(self) -> None:
        self.reset()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    def sums(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of a batch."""
        raise NotImplementedError

    def __call__(self, preds: Tensor, target: Tensor) -> Tensor:
        """Add a batch and return its own value; NaN where it is undefined.

        Parameters
        ----------
        preds : Tensor [N], or [N, classes]
            Numbers or probabilities.
        target : Tensor [N]
            What was true.
        """
        batch = torch.stack([part.double() for part in self.sums(preds.detach(), target)])
        self._sums = self._sums.to(batch.device) + batch
        return batch[0] / batch[1]

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch; see `__call__`."""
        self(preds, target)

    def compute(self) -> Tensor:
        """The value of all batches since `reset`; NaN where it is undefined."""
        return self._sums[0] / self._sums[1]

    def reset(self) -> None:
        """Forget all batches."""
        self._sums = torch.zeros(2, dtype=torch.double)


def _decided(preds: Tensor) -> Tensor:
    """The class: the likeliest of several, or whether a probability is above one half."""
    return preds.argmax(-1) if preds.dim() > 1 else (preds > 0.5).long()


@part
class Accuracy(TargetMetric):
    """Share of the targets that the prediction hits."""

    name = "accuracy"

    def sums(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Hits, and all."""
        hits = _decided(preds) == target
        return hits.sum(), torch.ones_like(hits).sum()


@part
class Precision(TargetMetric):
    """Share of true positives among what is predicted positive."""

    name = "precision"

    def sums(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """True positives, and predicted ones."""
        positive = _decided(preds) == 1
        return (positive & (target == 1)).sum(), positive.sum()


@part
class Recall(TargetMetric):
    """Share of true positives among what is positive."""

    name = "recall"

    def sums(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """True positives, and real ones."""
        positive = target == 1
        return (positive & (_decided(preds) == 1)).sum(), positive.sum()


@part
class MeanSquaredError(TargetMetric):
    """Mean of the squared differences."""

    name = "mean_squared_error"

    def sums(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Squares, and how many."""
        squares = (preds.double() - target.double()) ** 2
        return squares.sum(), torch.ones_like(squares).sum()
