"""What the tasks with a target column have in common: a summary of the session, a linear layer, a torch loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modeling.losses.registry import unsaved
from modeling.sequence import SessionStates
from modeling.tasks.base import PredictionTask, no_loss
from modeling.tasks.summary import SequenceSummary


class TargetTask(PredictionTask):
    """Base of the tasks that learn a column.

    Parameters
    ----------
    target_name : str, optional
        The column: a value a session [B] or [B, 1], or with ``summary_type=None`` a value an event [B, L].
    task_name, task_block
        See `PredictionTask`.
    loss : str or torch loss
        A name, or a torch loss of (what `outputs` returns, targets); a default torch loss with a name here is that.
    metrics : iterable, optional
        See `PredictionTask`.
    summary_type : {"last", "first", "mean", "cls_index"} or None
        See `SequenceSummary`.

    Raises
    ------
    ValueError
        When there is no loss of that name.
    """

    named_losses: ClassVar[Mapping[str, type[nn.Module]]] = {}
    same_losses: ClassVar[Mapping[type[nn.Module], str]] = {}

    def __init__(
        self,
        target_name: str | None,
        task_name: str | None,
        task_block: nn.Module | None,
        loss: str | Any,
        metrics: Iterable[Any],
        summary_type: str | None,
    ) -> None:
        super().__init__(target_name, task_name, task_block, metrics)
        self.summary = SequenceSummary(summary_type)
        if not isinstance(loss, str) and is_default(loss):
            loss = self.same_losses.get(type(loss), loss)
        self.loss_name = loss if isinstance(loss, str) else None
        if isinstance(loss, str) and loss not in self.named_losses:
            raise ValueError(f"there is no loss {loss!r} here: take one of {', '.join(self.named_losses)}")
        self.objective = self.named_losses[loss]() if isinstance(loss, str) else loss
        self.output: nn.Module | None = None

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        if self.loss_name is None:
            raise unsaved(self.objective)
        own = {"target_name": self.target_name, "loss": self.loss_name, "summary_type": self.summary.summary_type}
        return {**super().config(), **own}

    @classmethod
    def from_column(cls, column: Any, **arguments: Any) -> TargetTask:
        """The task of a column (``ColumnSchema``) of a schema; `arguments` go to the constructor."""
        return cls(target_name=column.name, **arguments)

    def build_output(self, inputs: Any, width: int) -> None:
        """Create the linear layer."""
        self.output = nn.Linear(width, 1)

    def outputs(self, states: SessionStates) -> Tensor:
        """What the loss takes: a number a session [B], or [B, L] without a summary."""
        return self._linear(states)[..., 0]

    def _linear(self, states: SessionStates) -> Tensor:
        assert self.output is not None
        result: Tensor = self.output(self.summary(self.blocked(states)))
        return result

    def missing(self, targets: Tensor) -> Tensor:
        """Which targets are none."""
        return targets.isnan()

    def checked(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """The targets as the loss takes them."""
        return targets.to(outputs.dtype)

    def _blank_padding(self, values: Tensor, states: SessionStates) -> Tensor:
        """NaN at padding, where there is a prediction a position."""
        if self.summary.summary_type is not None:
            return values
        return values.masked_fill(~states.attend.reshape(*states.attend.shape, *[1] * (values.dim() - 2)), torch.nan)

    def _matched(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and targets, one a row, where there are both."""
        per_event = self.summary.summary_type is None
        if targets.dim() > 1 and not per_event and targets.shape[1:].numel() == 1:
            targets = targets.reshape(-1)
        if targets.dim() != 1 + per_event or len(targets) != len(outputs):
            wanted = "a value an event [B, L]" if per_event else "a value a session [B]"
            raise ValueError(
                f"the task {self.task_name!r} takes {wanted}, not targets of shape {list(targets.shape)}"
                + ("" if per_event else ": summary_type=None takes one an event")
            )
        if per_event:
            # Training may leave out the last position, and inference may add one.
            columns = min(outputs.shape[1], targets.shape[1])
            outputs, targets = outputs[:, :columns], targets[:, :columns]
            blank = outputs.isnan() if outputs.dim() == 2 else outputs.isnan().any(2)
            known = ~(self.missing(targets) | blank)
        else:
            known = ~self.missing(targets)
        return outputs[known], targets[known]

    def loss(self, states: SessionStates, inputs: Any, targets: Tensor | None = None) -> tuple[Tensor, int]:
        """Mean loss over the targets, and their number. Targets that are missing (NaN) do not count.

        Raises
        ------
        ValueError
            When there are no targets, or of another shape.
        """
        if targets is None:
            raise ValueError(f"the task {self.task_name!r} needs targets: give it a target_name, and that column")
        outputs, targets = self._matched(self._blank_padding(self.outputs(states), states), targets)
        if not len(targets):
            return no_loss(states)
        return self.objective(outputs, self.checked(targets, outputs)), len(targets)

    def predict(self, states: SessionStates, inputs: Any) -> Tensor:
        """A number a session [B], or [B, L] without a summary, NaN at padding."""
        return self._blank_padding(self.outputs(states), states)

    def comparable(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Those that have both."""
        return self._matched(predictions, targets)


def is_default(loss: Any) -> bool:
    """Whether a torch loss is as its class makes it without arguments."""
    if not isinstance(loss, nn.Module) or list(loss.buffers()) or list(loss.parameters()):
        return False
    try:
        fresh = type(loss)()
    except TypeError:
        return False
    public = [{k: v for k, v in vars(m).items() if k[0] != "_" and k != "training"} for m in (loss, fresh)]
    return public[0] == public[1]
