"""What a prediction task is: from a body's states to a loss and to predictions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from modeling.blocks.base import Building, fit_behind, run
from modeling.ranking_metric import RankingMetric
from modeling.sequence import SessionStates
from modeling.tasks.metrics import TargetMetric, named_values, snake


class PredictionTask(nn.Module):
    """Base of the tasks; a `Head` builds and calls them.

    Attributes
    ----------
    held_out : bool
        Whether it is evaluated with the last event of each session removed: that event is what it predicts.

    Parameters
    ----------
    target_name : str, optional
        The column with the targets; None where the item ids are.
    task_name : str, optional
        Key of the outputs; ``target_name/class_name`` by default.
    task_block : nn.Module, optional
        Applied to the body's states first: a `Building`, or a module that keeps their width.
    metrics : iterable
        Objects with ``update(preds, target)``, ``compute()`` and ``reset()``.
    """

    held_out = False

    def __init__(
        self,
        target_name: str | None = None,
        task_name: str | None = None,
        task_block: nn.Module | None = None,
        metrics: Iterable[Any] = (),
    ) -> None:
        super().__init__()
        own = snake(type(self).__name__)
        self.target_name = target_name
        self.task_name = task_name or (f"{target_name}/{own}" if target_name else own)
        self.task_block = task_block
        self.metrics = list(metrics)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments. Metrics that are not of this library are left out: they predict nothing."""
        own = [metric for metric in self.metrics if isinstance(metric, RankingMetric | TargetMetric)]
        return {"task_name": self.task_name, "task_block": self.task_block, "metrics": own}

    def build(self, inputs: Any, width: int) -> None:
        """Create the parameters.

        Parameters
        ----------
        inputs : nn.Module
            The input module.
        width : int
            Width of the body's vectors.
        """
        if isinstance(self.task_block, Building):
            fit_behind(self.task_block, inputs, width)
            width = self.task_block.output_dim
        self.build_output(inputs, getattr(self.task_block, "out_features", width))

    def build_output(self, inputs: Any, width: int) -> None:
        """Create the parameters behind the task's block."""
        raise NotImplementedError

    def blocked(self, states: SessionStates) -> SessionStates:
        """The states behind the task's own block."""
        if self.task_block is None:
            return states
        result: SessionStates = run(self.task_block, states)
        return result

    def loss(self, states: SessionStates, inputs: Any, targets: Tensor | None = None) -> tuple[Tensor, int]:
        """Mean loss and the number of targets in it; a loss of 0 that is attached to the graph when there are none.

        Parameters
        ----------
        states : SessionStates
            What the body says.
        inputs : nn.Module
            The input module, with the item's vectors.
        targets : Tensor, optional
            The column `target_name`, or None where the states know their targets.
        """
        raise NotImplementedError

    def predict(self, states: SessionStates, inputs: Any) -> Tensor:
        """What is predicted for each session."""
        raise NotImplementedError

    def comparable(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and targets as the metrics take them, less those that have no target."""
        return predictions, targets

    def calculate_metrics(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch to the metrics.

        Parameters
        ----------
        predictions : Tensor
            What `predict` returned.
        targets : Tensor
            What was true.
        """
        predictions, targets = self.comparable(predictions, targets)
        if len(targets):
            for metric in self.metrics:
                metric.update(predictions, targets)

    def compute_metrics(self, mode: str | None = None) -> dict[str, float]:
        """The metrics of all batches by name, ``next-item/ndcg_at_10``, with `mode` in front where it is given."""
        prefix = f"{mode}/{self.task_name}" if mode else self.task_name
        found = {name: value for metric in self.metrics for name, value in named_values(metric).items()}
        return {f"{prefix}/{name}": value for name, value in found.items()}

    def reset_metrics(self) -> None:
        """Forget all batches."""
        for metric in self.metrics:
            metric.reset()


def no_loss(states: SessionStates) -> tuple[Tensor, int]:
    """The loss of a batch without targets."""
    return (states.values * 0).sum(), 0
