"""Training and evaluation over batches of one's own: what `Model.fit` and `Model.evaluate` do.

The stage of the pipeline, with early stopping and a schedule, is `modeling.training`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.progress import say, step


def split(batch: Any) -> tuple[Mapping[str, Tensor], Any]:
    """A batch as inputs and targets: it is a mapping, or a pair of both."""
    if isinstance(batch, Mapping):
        return batch, None
    inputs, targets = batch
    return inputs, targets


def to_device(value: Any, device: torch.device) -> Any:
    """A column or a mapping of columns on a device; what is pinned goes there without waiting."""
    if isinstance(value, Mapping):
        return {name: column.to(device, non_blocking=True) for name, column in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _size(dataloader: Any) -> int | None:
    try:
        return len(dataloader)
    except TypeError:
        return None


def fit(
    model: Any,
    dataloader: Iterable[Any],
    optimizer: type[torch.optim.Optimizer] | torch.optim.Optimizer | None = None,
    eval_dataloader: Iterable[Any] | None = None,
    num_epochs: int = 1,
    amp: bool = False,
    train: bool = True,
    verbose: bool = True,
    compute_metric: bool = True,
    learning_rate: float = 1e-3,
    clip: float = 1.0,
) -> list[float]:
    """Train a model on batches.

    Parameters
    ----------
    model : Model
        Trained in place, on its device; left in evaluation mode.
    dataloader : iterable
        Batches, each a dictionary of columns or a pair of columns and targets. It is gone through once an epoch.
    optimizer : type of torch.optim.Optimizer or Optimizer, optional
        The model's own class by default.
    eval_dataloader : iterable, optional
        Evaluated after each epoch.
    num_epochs : int
        Passes over the data.
    amp : bool
        bfloat16 where torch deems it safe.
    train : bool
        Without it only the losses are computed.
    verbose : bool
        Show progress.
    compute_metric : bool
        Whether to evaluate at all.
    learning_rate : float
        Of an optimizer given as a class.
    clip : float
        Largest norm of the gradient.

    Returns
    -------
    list of float
        Mean loss of each epoch, every batch weighted by its targets.
    """
    device = next(model.parameters()).device
    kind = optimizer or model.optimizer
    updates = kind if isinstance(kind, torch.optim.Optimizer) else kind(model.parameters(), lr=learning_rate)  # type: ignore[call-arg]
    losses = []
    for epoch in range(1, num_epochs + 1):
        model.train(train)
        total, count = 0.0, 0
        with step(f"Epoch {epoch}", _size(dataloader), quiet=not verbose) as bar:
            for batch in dataloader:
                inputs, targets = split(batch)
                with torch.set_grad_enabled(train), torch.autocast(device.type, torch.bfloat16, enabled=amp):
                    result = model(to_device(inputs, device), to_device(targets, device), training=True)
                if result["targets"]:
                    if train:
                        updates.zero_grad(set_to_none=True)
                        result["loss"].sum().backward()
                        nn.utils.clip_grad_norm_(model.parameters(), clip)
                        updates.step()
                    total += float(result["loss"].detach().sum()) * result["targets"]
                    count += result["targets"]
                bar.advance(1)
            losses.append(total / max(1, count))
            bar.say(f"loss {losses[-1]:.4f}")
        model.eval()
        if eval_dataloader is not None and compute_metric:
            found = evaluate(model, eval_dataloader)
            if verbose:
                say(", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    return losses


def evaluate(model: Any, dataloader: Iterable[Any], mode: str = "eval") -> dict[str, float]:
    """Metrics of each task over batches, in evaluation mode and without gradients.

    Parameters
    ----------
    model : Model
        Its tasks say which metrics.
    dataloader : iterable
        As in `fit`.
    mode : str
        What the names of the metrics begin with.

    Returns
    -------
    dict of str to float
        ``{"eval_/next-item/ndcg_at_10": ...}``: one for each task, metric and cut-off. Sessions without an item to
        predict do not count.
    """
    tasks = tasks_of(model)
    was_training = model.training
    model.eval()
    for task in tasks:
        task.reset_metrics()
    with torch.inference_mode():
        for batch in dataloader:
            found = predictions_of(model, batch)
            for task in tasks:
                task.calculate_metrics(*found[task.task_name])
    model.train(was_training)
    # "eval_/next-item/...": the names that the Trainer of Transformers4Rec gave its metrics.
    return {name: value for task in tasks for name, value in task.compute_metrics(f"{mode}_").items()}


def tasks_of(model: Any) -> list[Any]:
    """The tasks of all heads of a model."""
    return [task for head in model.heads for task in head.tasks]


def predictions_of(model: Any, batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """What each task predicts of a batch, and what was true; the caller sees to evaluation mode.

    Parameters
    ----------
    model : Model
        It removes the last event of each session: ``testing=True``.
    batch : mapping or pair
        As in `fit`.

    Returns
    -------
    dict of str to pair of Tensor
        By task name.

    Raises
    ------
    ValueError
        When a target is missing.
    """
    device = next(model.parameters()).device
    inputs, targets = split(batch)
    result = model(to_device(inputs, device), to_device(targets, device), testing=True)
    tasks = tasks_of(model)
    predictions, labels = result["predictions"], result["labels"]
    if len(tasks) == 1:
        predictions, labels = {tasks[0].task_name: predictions}, {tasks[0].task_name: labels}
    missing = [task.target_name for task in tasks if labels.get(task.task_name) is None]
    if missing:
        raise ValueError(f"the batch lacks the target column {missing[0]!r}")
    return {name: (predictions[name], labels[name]) for name in predictions}
