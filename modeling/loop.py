"""Training and evaluation over batches of one's own: what `Model.fit` and `Model.evaluate` do.

The stage of the pipeline, with early stopping and a schedule, is `modeling.training`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.progress import say, step


def _split(batch: Any) -> tuple[Mapping[str, Tensor], Any]:
    """A batch as inputs and targets: a mapping, or a pair of both."""
    if isinstance(batch, Mapping):
        return batch, None
    inputs, targets = batch
    return inputs, targets


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: column.to(device) for name, column in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


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
                inputs, targets = _split(batch)
                with torch.set_grad_enabled(train), torch.autocast(device.type, torch.bfloat16, enabled=amp):
                    result = model(_to(inputs, device), _to(targets, device), training=True)
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
    device = next(model.parameters()).device
    tasks = [task for head in model.heads for task in head.tasks]
    was_training = model.training
    model.eval()
    for task in tasks:
        task.reset_metrics()
    with torch.inference_mode():
        for batch in dataloader:
            inputs, targets = _split(batch)
            result = model(_to(inputs, device), _to(targets, device), testing=True)
            for task in tasks:
                alone = len(tasks) == 1
                predictions = result["predictions"] if alone else result["predictions"][task.task_name]
                labels = result["labels"] if alone else result["labels"].get(task.task_name)
                if labels is None:
                    raise ValueError(f"the batch lacks the target column {task.target_name!r}")
                task.calculate_metrics(predictions, labels)
    model.train(was_training)
    # "eval_/next-item/...": the names that the Trainer of Transformers4Rec gave its metrics.
    return {name: value for task in tasks for name, value in task.compute_metrics(f"{mode}_").items()}
