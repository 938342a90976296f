"""A body and the tasks that read its answers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from modeling.sequence import SessionStates
from modeling.serialization import part


@part
class Head(nn.Module):
    """A body and the task that reads its answers.

    Parameters
    ----------
    body : SequentialBlock
        Begins with the input module.
    prediction_tasks : NextItemPredictionTask or list with one
        What to predict.
    inputs : TabularSequenceFeatures, optional
        Accepted for compatibility; the body's own are used.
    """

    def __init__(self, body: Any, prediction_tasks: Any, inputs: Any = None) -> None:
        super().__init__()
        tasks = list(prediction_tasks) if isinstance(prediction_tasks, list | tuple) else [prediction_tasks]
        if len(tasks) != 1:
            raise ValueError(f"a head takes exactly one task, not {len(tasks)}")
        if getattr(body, "inputs", None) is None:
            raise ValueError("the body must be a SequentialBlock that begins with TabularSequenceFeatures")
        if body.inputs.masking is None:
            raise ValueError("next-item prediction needs an objective: give the inputs masking='clm' or 'mlm'")
        self.body = body
        self.task = tasks[0]
        self.task.build(body.inputs, body.output_dim)

    def config(self) -> dict[str, Any]:
        """Body and task."""
        return {"body": self.body, "prediction_tasks": [self.task]}

    @property
    def inputs(self) -> Any:
        """The input module."""
        return self.body.inputs

    def loss(self, inputs: dict[str, Tensor]) -> tuple[Tensor, int]:
        """Mean loss over the batch's targets, and their number (a loss of 0 when there are none)."""
        states: SessionStates = self.body(inputs, training=True)
        assert states.targets is not None
        answers = states.answers()
        targets = states.targets[states.targets != 0]
        if not len(targets):
            return states.values.sum() * 0, 0
        return self.task.loss(answers, self.inputs.item_table.weight, targets), len(targets)

    def scores(self, inputs: dict[str, Tensor]) -> Tensor:
        """Scores [B, target_dim] for what follows each session."""
        states: SessionStates = self.body(inputs, training=False)
        scores: Tensor = self.task.scores(states.answers(), self.inputs.item_table.weight)
        return scores
