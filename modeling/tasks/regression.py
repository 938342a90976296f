"""A number of the session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import nn

from modeling.serialization import part
from modeling.tasks.metrics import MeanSquaredError
from modeling.tasks.target import TargetTask


@part
class RegressionTask(TargetTask):
    """The number in a column.

    Parameters
    ----------
    target_name : str, optional
        The column; NaN is no target.
    task_name, task_block, summary_type
        See `TargetTask`.
    loss : str or torch loss
        "mse", "mae", "huber", or a torch loss of numbers and targets, both [N].
    metrics : iterable, optional
        The mean squared error by default.
    """

    named_losses: ClassVar = {"mse": nn.MSELoss, "mae": nn.L1Loss, "huber": nn.HuberLoss}
    same_losses: ClassVar = {nn.MSELoss: "mse", nn.L1Loss: "mae", nn.HuberLoss: "huber"}

    def __init__(
        self,
        target_name: str | None = None,
        task_name: str | None = None,
        task_block: nn.Module | None = None,
        loss: str | Any = "mse",
        metrics: Iterable[Any] | None = None,
        summary_type: str | None = "last",
    ) -> None:
        metrics = metrics if metrics is not None else [MeanSquaredError()]
        super().__init__(target_name, task_name, task_block, loss, metrics, summary_type)
