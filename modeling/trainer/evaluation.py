"""Measuring and predicting in batches, on one process or several; what is kept does not grow with the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import UserError
from modeling.loop import predictions_of, split, tasks_of, to_device
from modeling.padding import pad_inputs
from modeling.ranking import best_by_blocks
from modeling.sequence import lengths
from modeling.tasks.classification import BinaryClassificationTask, MultiClassClassificationTask
from modeling.trainer.batches import Batches

# What metrics add up over batches, and so over processes: see RankingMetric and TargetMetric.
_TOTALS = ("_sum", "_count", "_sums")

Reduce = Callable[[Tensor], Tensor]
Gather = Callable[[list[Any]], list[Any]]
# Told labels, item ids, scores, the sessions' numbers and the metrics so far.
Log = Callable[[Tensor, Tensor, Tensor, Tensor, dict[str, float]], None]


@dataclass
class Rows:
    """Predictions of a task, a row a session; those of several processes are put into the order of the data."""

    numbers: list[Any] = field(default_factory=list)
    columns: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, numbers: Tensor, *columns: Tensor) -> None:
        """Keep some rows, on the host."""
        self.numbers.append(numbers.cpu().numpy())
        self.columns.append(
            tuple(
                column.float().cpu().numpy() if column.is_floating_point() else column.cpu().numpy()
                for column in columns
            )
        )

    def gathered(self, gather: Gather) -> tuple[Any, ...]:
        """The columns of all processes, by session."""
        numbers, columns = gather(self.numbers), gather(self.columns)
        if not numbers:
            return ()
        order = np.concatenate(numbers).argsort(kind="stable")
        return tuple(_stacked([rows[i] for rows in columns])[order] for i in range(len(columns[0])))


def evaluated(
    model: Any,
    batches: Batches,
    prefix: str,
    reduce: Reduce,
    gather: Gather,
    metrics: bool = True,
    every: int = 1,
    most: int = 0,
    top_k: int = 100,
    keep: bool = False,
    log: Log | None = None,
    advance: Callable[[], None] | None = None,
) -> tuple[dict[str, float], int, dict[str, tuple[Any, ...]]]:
    """The metrics of a model's tasks, each session counted once.

    Parameters
    ----------
    model : Model
        Measured in evaluation mode, in the precision of its weights; left in the mode that it was in.
    batches : Batches
        Those of this process.
    prefix : str
        What the names of the metrics begin with.
    reduce, gather : callable
        Add a tensor up over the processes; join their lists.
    metrics : bool
        Without it only the loss is computed.
    every : int
        Only each so many-th batch is measured and logged.
    most : int
        Only so many batches; 0 for all.
    top_k : int
        Items of a list.
    keep : bool
        Return lists and labels.
    log : callable, optional
        Told the lists of the next-item task.
    advance : callable, optional
        Called behind each batch.

    Returns
    -------
    dict of str to float
        ``{"eval_/next-item/ndcg_at_10": ..., "eval_/loss": ..., "eval_loss": ...}``. The loss is the mean of the tasks'
        losses on what they predict: for items the cross-entropy over the whole catalogue, whatever was trained with.
    int
        Sessions that were seen on all processes.
    dict of str to tuple of array
        With `keep`, by task name: item ids [N, top_k], scores [N, top_k] and labels [N], or predictions and labels.

    Raises
    ------
    UserError
        When there is nothing to predict, or a metric cannot be added up over processes.
    """
    tasks = tasks_of(model)
    device = next(model.parameters()).device
    rows = {task.task_name: Rows() for task in tasks}
    losses = torch.zeros(len(tasks) + 1, 2, dtype=torch.double, device=device)
    for task in tasks:
        task.reset_metrics()
    with evaluating(model):
        for step, (numbers, batch) in enumerate(batches.numbered()):
            if most and step >= most:
                break
            found = predictions_of(model, batch)
            losses[-1, 0] += len(numbers)
            measured = step % every == 0
            for i, task in enumerate(tasks):
                losses[i] += _loss(task, *found[task.task_name])
                if metrics and measured:
                    task.calculate_metrics(*found[task.task_name])
            for task in tasks if keep or (log and measured) else ():
                predictions, labels = found[task.task_name]
                if not task.held_out:
                    rows[task.task_name].add(numbers, predictions, labels)
                    continue
                own = _numbers_of(model, batch, numbers, len(labels))
                scores, ids = best_by_blocks(predictions, top_k)
                if keep:
                    rows[task.task_name].add(own, ids, scores, labels)
                if log and measured:
                    log(labels, ids, scores, own, task.compute_metrics(f"{prefix}_") if metrics else {})
            if advance is not None:
                advance()
    for task in tasks if metrics else ():
        for metric in task.metrics:
            _add_up(metric, reduce, device)
    losses = reduce(losses)
    values = [float(total / count) for total, count in losses[:-1] if count]
    if not values:
        raise UserError("the evaluation data has nothing to predict: sessions need two events, the last a known item")
    results = {name: value for task in tasks for name, value in task.compute_metrics(f"{prefix}_").items()}
    loss = sum(values) / len(values)
    results = {**(results if metrics else {}), f"{prefix}_/loss": loss, f"{prefix}_loss": loss}
    kept = {name: found.gathered(gather) for name, found in rows.items()} if keep else {}
    return results, int(losses[-1, 0]), kept


def predicted(
    model: Any, batches: Batches, gather: Gather, top_k: int, advance: Callable[[], None] | None = None
) -> dict[str, tuple[Any, ...]]:
    """What comes after each session, which is taken as a whole.

    Parameters
    ----------
    model, batches, gather, top_k, advance
        As for `evaluated`.

    Returns
    -------
    dict of str to tuple of array
        By task name, in the order of the data: item ids and scores [N, top_k], or predictions.
    """
    tasks = tasks_of(model)
    rows = {task.task_name: Rows() for task in tasks}
    device = next(model.parameters()).device
    with evaluating(model):
        for numbers, batch in batches.numbered():
            answer = model(to_device(split(batch)[0], device), top_k=top_k)
            found = answer if len(tasks) > 1 else {tasks[0].task_name: answer}
            for task in tasks:
                value = found[task.task_name]
                rows[task.task_name].add(numbers, *(value[::-1] if task.held_out else (value,)))
            if advance is not None:
                advance()
    return {name: found.gathered(gather) for name, found in rows.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the model is left in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _loss(task: Any, predictions: Tensor, labels: Tensor) -> Tensor:
    """Sum of the losses of what is predicted, and how many they are [2]."""
    predictions, targets = task.comparable(predictions, labels)
    predictions = predictions.double() if predictions.dim() == 1 else predictions
    if task.held_out:
        own = predictions.gather(1, targets[:, None])[:, 0]
        losses = predictions.logsumexp(1) - own
    elif isinstance(task, BinaryClassificationTask):
        losses = nn.functional.binary_cross_entropy(predictions, targets.to(predictions), reduction="none")
    elif isinstance(task, MultiClassClassificationTask):
        losses = -predictions.gather(1, targets.long()[:, None])[:, 0].clamp(min=1e-12).log()
    else:
        losses = (predictions - targets.to(predictions)) ** 2
    return torch.stack([losses.double().sum(), losses.new_tensor(losses.numel()).double()])


def _numbers_of(model: Any, batch: Any, numbers: Tensor, rows: int) -> Tensor:
    """The session of each row: where every event is predicted, a session has several."""
    if rows == len(numbers):
        return numbers
    items = pad_inputs(split(batch)[0])[model.inputs.item.name]
    return numbers.repeat_interleave((lengths(items) - 1).clamp(min=0).cpu())


def _add_up(metric: Any, reduce: Reduce, device: torch.device) -> None:
    """Add what a metric has counted on all processes; metrics of torchmetrics do so themselves."""
    totals = [name for name in _TOTALS if name in vars(metric)]
    if not totals and not hasattr(metric, "dist_sync_fn"):
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if several and torch.distributed.get_world_size() > 1:
            raise UserError(f"the metric {type(metric).__name__} cannot be added up over processes: leave it out")
    for name in totals:
        value = getattr(metric, name)
        if isinstance(value, Tensor):
            setattr(metric, name, reduce(value.to(device)))
        else:
            setattr(metric, name, int(reduce(torch.tensor(value, device=device))))


def _stacked(arrays: list[Any]) -> Any:
    """Rows of all batches; those of fewer columns are filled up, with NaN or 0."""
    width = max((array.shape[1] for array in arrays if array.ndim > 1), default=0)
    filled = []
    for array in arrays:
        missing = [(0, 0)] * array.ndim
        if array.ndim > 1:
            missing[1] = (0, width - array.shape[1])
        blank = np.nan if array.dtype.kind == "f" else 0
        filled.append(np.pad(array, missing, constant_values=blank))
    return np.concatenate(filled)


def steps_of(batches: Batches, most: int = 0) -> int | None:
    """How many batches an evaluation goes over, if that is known."""
    try:
        return min(len(batches), most or len(batches))
    except TypeError:
        return None


def by_task(lists: dict[str, tuple[Any, ...]], end: int | None = None) -> Any:
    """The columns before `end` of the only task, or of each by name; a single column without its tuple."""
    parts = {name: columns[:end] for name, columns in lists.items()}
    found = {name: columns if len(columns) > 1 else columns[0] for name, columns in parts.items()}
    return next(iter(found.values())) if len(found) == 1 else found


def labels_of(lists: dict[str, tuple[Any, ...]]) -> Any:
    """The last columns, in the same way."""
    found = {name: columns[-1] for name, columns in lists.items()}
    return next(iter(found.values())) if len(found) == 1 else found
