"""A property of the session: yes or no, or one of some classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modeling.sequence import SessionStates
from modeling.serialization import part
from modeling.tasks.metrics import Accuracy, Precision, Recall
from modeling.tasks.target import TargetTask


@part
class BinaryClassificationTask(TargetTask):
    """Whether a column is 1. The loss works on logits, which is stable for sure predictions.

    Parameters
    ----------
    target_name : str, optional
        The column, of numbers from 0 to 1; negative or NaN is no target.
    task_name, task_block, summary_type
        See `TargetTask`.
    loss : str or torch loss
        "binary-cross-entropy" (also ``torch.nn.BCELoss()``), or a torch loss of logits and targets, both [N].
    metrics : iterable, optional
        Precision, recall and accuracy at one half by default.
    """

    named_losses: ClassVar = {"binary-cross-entropy": nn.BCEWithLogitsLoss}
    same_losses: ClassVar = {nn.BCELoss: "binary-cross-entropy", nn.BCEWithLogitsLoss: "binary-cross-entropy"}

    def __init__(
        self,
        target_name: str | None = None,
        task_name: str | None = None,
        task_block: nn.Module | None = None,
        loss: str | Any = "binary-cross-entropy",
        metrics: Iterable[Any] | None = None,
        summary_type: str | None = "last",
    ) -> None:
        metrics = metrics if metrics is not None else [Precision(), Recall(), Accuracy()]
        super().__init__(target_name, task_name, task_block, loss, metrics, summary_type)
        if isinstance(loss, nn.BCELoss) and self.loss_name is None:
            raise ValueError("BCELoss with arguments takes probabilities: give BCEWithLogitsLoss instead")

    def missing(self, targets: Tensor) -> Tensor:
        """NaN, and what is below 0."""
        return ~(targets >= 0)

    def checked(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """Numbers up to 1."""
        if (targets > 1).any():
            raise ValueError(f"the targets of {self.task_name!r} must be 0 or 1, found {targets.max().item()}")
        return targets.to(outputs.dtype)

    def predict(self, states: SessionStates, inputs: Any) -> Tensor:
        """Probabilities [B], or [B, L] without a summary, NaN at padding."""
        return torch.sigmoid(super().predict(states, inputs))


@part
class MultiClassClassificationTask(TargetTask):
    """Which of some classes a column is.

    Parameters
    ----------
    target_name : str, optional
        The column, of classes 0 to `n_classes` - 1; a negative number is no target.
    task_name, task_block, summary_type
        See `TargetTask`.
    loss : str or torch loss
        "cross-entropy", or a torch loss of logits [N, n_classes] and classes [N].
    metrics : iterable, optional
        Accuracy by default; ranking metrics fit too.
    n_classes : int
        At least 2.

    Raises
    ------
    ValueError
        Without `n_classes`.
    """

    named_losses: ClassVar = {"cross-entropy": nn.CrossEntropyLoss}
    same_losses: ClassVar = {nn.CrossEntropyLoss: "cross-entropy"}

    def __init__(
        self,
        target_name: str | None = None,
        task_name: str | None = None,
        task_block: nn.Module | None = None,
        loss: str | Any = "cross-entropy",
        metrics: Iterable[Any] | None = None,
        summary_type: str | None = "last",
        n_classes: int | None = None,
    ) -> None:
        metrics = metrics if metrics is not None else [Accuracy()]
        super().__init__(target_name, task_name, task_block, loss, metrics, summary_type)
        if n_classes is None or n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, not {n_classes}")
        self.n_classes = n_classes

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().config(), "n_classes": self.n_classes}

    @classmethod
    def from_column(cls, column: Any, **arguments: Any) -> TargetTask:
        """The task of a column of a schema, whose domain says how many classes there are.

        Raises
        ------
        ValueError
            When it has no domain, and `arguments` do not name `n_classes`.
        """
        if "n_classes" not in arguments:
            domain = column.properties.get("domain") or {}
            if not domain.get("max"):
                raise ValueError(f"the target column {column.name!r} has no domain (int_domain.max): give n_classes")
            arguments["n_classes"] = int(domain["max"]) + 1
        return super().from_column(column, **arguments)

    def build_output(self, inputs: Any, width: int) -> None:
        """Create the linear layer."""
        self.output = nn.Linear(width, self.n_classes)

    def outputs(self, states: SessionStates) -> Tensor:
        """Logits [B, n_classes], or [B, L, n_classes] without a summary."""
        return self._linear(states)

    def missing(self, targets: Tensor) -> Tensor:
        """What is below 0, and NaN."""
        return ~(targets >= 0)

    def checked(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """Classes."""
        if (targets >= self.n_classes).any():
            largest = targets.max().item()
            raise ValueError(f"the targets of {self.task_name!r} must be below n_classes, found {largest}")
        return targets.long()

    def predict(self, states: SessionStates, inputs: Any) -> Tensor:
        """Probabilities [B, n_classes], or [B, L, n_classes] without a summary, NaN at padding."""
        return super().predict(states, inputs).softmax(-1)
