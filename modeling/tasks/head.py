"""A body and the tasks that read its answers.

A body begins with an input module (`body.inputs`) and says how wide its vectors are (`body.output_dim`);
``body.rest(states, columns)`` runs what comes behind the input module. `SequentialBlock` and `PostContextFusion` are
bodies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modeling.blocks.sequential import SequentialBlock
from modeling.masking.base import plain_states
from modeling.sequence import SessionStates
from modeling.serialization import describe, part, restore
from modeling.tasks.detection import Detection

REDUCTIONS = ("mean", "sum", "none")


@part
class Head(nn.Module):
    """A body and the tasks that read its answers.

    Parameters
    ----------
    body : SequentialBlock or PostContextFusion
        Begins with an input module.
    prediction_tasks : PredictionTask or list of them
        What to predict.
    task_blocks : nn.Module or mapping of str to nn.Module, optional
        A block between the body and each task: a copy for every task, or by task name. They become the tasks' own
        ``task_block``, in front of what a task has there.
    task_weights : sequence of float, optional
        Weight of each task in the loss; 1 by default.
    loss_reduction : {"mean", "sum", "none"}
        How the weighted losses of the tasks become one; "none" keeps one a task.
    inputs : nn.Module, optional
        Accepted for compatibility; the body's own are used.

    Raises
    ------
    ValueError
        When the parts do not fit each other.
    """

    def __init__(
        self,
        body: Any,
        prediction_tasks: Any,
        task_blocks: nn.Module | Mapping[str, nn.Module] | None = None,
        task_weights: Sequence[float] | None = None,
        loss_reduction: str = "mean",
        inputs: Any = None,
    ) -> None:
        super().__init__()
        tasks = list(prediction_tasks) if isinstance(prediction_tasks, list | tuple) else [prediction_tasks]
        if getattr(body, "inputs", None) is None:
            raise ValueError("the body must begin with an input module, such as TabularSequenceFeatures")
        if loss_reduction not in REDUCTIONS:
            raise ValueError(f"loss_reduction must be one of {', '.join(REDUCTIONS)}, not {loss_reduction!r}")
        names = [task.task_name for task in tasks]
        if not tasks or len(set(names)) < len(names):
            raise ValueError(f"a head needs tasks with names of their own, not {names}")
        if task_weights is not None and len(task_weights) != len(tasks):
            raise ValueError(f"there are {len(tasks)} tasks and {len(task_weights)} task_weights")
        masking = getattr(body.inputs, "masking", None)
        if masking is None and any(task.held_out for task in tasks):
            raise ValueError("next-item prediction needs an objective: give the inputs masking='clm' or 'mlm'")
        self.body = body
        self.tasks = nn.ModuleList(tasks)
        self.loss_reduction = loss_reduction
        self.task_weights = [float(weight) for weight in task_weights or [1.0] * len(tasks)]
        for task, block in zip(tasks, _blocks(task_blocks, names), strict=True):
            if block is not None:
                task.task_block = block if task.task_block is None else SequentialBlock(block, task.task_block)
            task.build(body.inputs, body.output_dim)
        detects = masking is not None and masking.name == "rtd" and any(task.held_out for task in tasks)
        self.detection = Detection(body) if detects else None

    @classmethod
    def from_schema(
        cls,
        schema: Any,
        body: Any,
        task_blocks: nn.Module | Mapping[str, nn.Module] | None = None,
        task_weight_dict: Mapping[str, float] | None = None,
        loss_reduction: str = "mean",
        inputs: Any = None,
    ) -> Head:
        """A head with a task for each target that the schema tags: binary, multi-class and regression targets.

        Parameters
        ----------
        task_weight_dict : mapping of str to float, optional
            Weights by task name or by target column.
        schema, body, task_blocks, loss_reduction, inputs
            As in the constructor.

        Raises
        ------
        ValueError
            When the schema tags no targets.
        """
        from modeling.tasks.targets import tasks_of

        tasks = tasks_of(schema)
        if not tasks:
            raise ValueError("the schema has no target: tag a column as binary_classification or regression")
        given = dict(task_weight_dict or {})
        weights = [given.get(task.task_name, given.get(task.target_name or "", 1.0)) for task in tasks]
        return cls(body, tasks, task_blocks, weights, loss_reduction, inputs)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "body": self.body,
            "prediction_tasks": self._tasks,
            "task_weights": self.task_weights,
            "loss_reduction": self.loss_reduction,
        }

    @property
    def inputs(self) -> Any:
        """The input module."""
        return self.body.inputs

    @property
    def task(self) -> Any:
        """The next-item task, or the only one.

        Raises
        ------
        ValueError
            When there are several and none predicts the next item.
        """
        found = [task for task in self._tasks if task.held_out] or self._tasks
        if len(found) > 1:
            raise ValueError(f"the head has several tasks: {', '.join(task.task_name for task in self._tasks)}")
        return found[0]

    @property
    def feature_names(self) -> list[str]:
        """The columns that the body needs."""
        return list(self.body.feature_names)

    @property
    def target_names(self) -> list[str]:
        """The columns that the tasks learn from, beside the item ids."""
        return [task.target_name for task in self._tasks if task.target_name is not None]

    @property
    def _tasks(self) -> list[Any]:
        return list(self.tasks)

    def _whole_states(self, columns: dict[str, Tensor]) -> SessionStates:
        """States of the sessions as they are, with nothing hidden."""
        inputs = self.body.inputs
        if getattr(inputs, "masking", None) is None:
            return _as_states(self.body(columns))
        states: SessionStates = self.body.rest(plain_states(inputs.embed(columns), columns[inputs.item.name]), columns)
        return states

    def _next_states(self, columns: dict[str, Tensor]) -> SessionStates:
        inputs = self.body.inputs
        states: SessionStates = self.body.rest(
            inputs.masking.inference_states(inputs.embed(columns), columns[inputs.item.name]), columns
        )
        return states

    def losses(
        self, columns: dict[str, Tensor], targets: Mapping[str, Tensor] | None = None
    ) -> dict[str, tuple[Tensor, int]]:
        """Each task's mean loss and number of targets, by task name.

        Parameters
        ----------
        columns : dict of Tensor
            The batch.
        targets : mapping of str to Tensor, optional
            Target columns by name, for tasks other than the next item.

        Raises
        ------
        ValueError
            When a task's target is missing.
        """
        inputs, masking = self.body.inputs, getattr(self.body.inputs, "masking", None)
        if masking is None:
            states = self._whole_states(columns)
        else:
            whole = any(not task.held_out for task in self._tasks)
            began = masking.train_states(inputs.embed(columns), columns[inputs.item.name], whole)
            states = self.body.rest(began, columns)
        found = {}
        for task in self._tasks:
            if task.held_out and self.detection is not None:
                found[task.task_name] = self.detection.loss(self.body, task, states, columns)
            else:
                found[task.task_name] = task.loss(states, inputs, _target(task, targets))
        return found

    def loss(self, columns: dict[str, Tensor], targets: Mapping[str, Tensor] | None = None) -> tuple[Tensor, int]:
        """The tasks' losses as one (or one a task without reduction), and the number of targets of all."""
        found = self.losses(columns, targets)
        weighted = torch.stack(
            [found[task.task_name][0] * weight for task, weight in zip(self._tasks, self.task_weights, strict=True)]
        )
        if self.loss_reduction != "none":
            weighted = weighted.mean() if self.loss_reduction == "mean" else weighted.sum()
        return weighted, sum(count for _, count in found.values())

    def predict(self, columns: dict[str, Tensor], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Each task's predictions by task name; `names` chooses among the tasks."""
        found: dict[str, Tensor] = {}
        whole: SessionStates | None = None
        for task in self._tasks:
            if names is not None and task.task_name not in names:
                continue
            if task.held_out:
                states = self._next_states(columns)
            else:
                # A [MASK] or a missing query would change what a summary of the session reads.
                states = whole = self._whole_states(columns) if whole is None else whole
            found[task.task_name] = task.predict(states, self.body.inputs)
        return found

    def queries(self, columns: dict[str, Tensor]) -> Tensor:
        """The next-item task's vectors [B, D] of the sessions; see `NextItemPredictionTask.queries`."""
        found: Tensor = self.task.queries(self._next_states(columns))
        return found

    def scores(self, columns: dict[str, Tensor]) -> Tensor:
        """What the next-item task, or the only one, predicts."""
        name = self.task.task_name
        return self.predict(columns, [name])[name]


def _target(task: Any, targets: Mapping[str, Tensor] | None) -> Tensor | None:
    if task.target_name is None:
        return None
    if targets is None or task.target_name not in targets:
        raise ValueError(
            f"the task {task.task_name!r} needs the target column {task.target_name!r}: give it in targets"
        )
    return targets[task.target_name]


def _as_states(output: Any) -> SessionStates:
    """What a body without a sequence says, [B, D], as sessions of one position."""
    if isinstance(output, SessionStates):
        return output
    if output.dim() == 3:
        raise ValueError(
            "the body's vectors are a sequence whose length nothing tells: begin with the item id's inputs"
        )
    attend = torch.ones(len(output), 1, dtype=torch.bool, device=output.device)
    return SessionStates(output[:, None], attend, torch.zeros(len(output), dtype=torch.long, device=output.device))


def _blocks(given: Any, names: list[str]) -> list[Any]:
    """A block for each task, or None."""
    if given is None:
        return [None] * len(names)
    if isinstance(given, Mapping):
        unknown = set(given) - set(names)
        if unknown:
            raise ValueError(f"task_blocks names a task {min(unknown)!r} that the head does not have")
        return [given.get(name) for name in names]
    return [restore(describe(given)) for _ in names]
