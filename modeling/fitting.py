"""Training on a window's sessions with early stopping on another: what the training stage runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.days import window_files
from common.errors import UserError
from common.progress import step
from modeling.data import Sessions, read_sessions
from modeling.evaluation import ranks
from modeling.loader import IN_MEMORY_BYTES
from modeling.loading.parts import parts_of
from modeling.loading.stream import SessionStream
from modeling.model import Model
from modeling.ranking_metric import GOAL, summary
from modeling.settings import ModelSettings

_WARM_UP = 0.05
_CLIP = 1.0


def _optimizer(model: nn.Module, settings: ModelSettings) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def _rate(progress: float) -> float:
    """Share of the highest learning rate, after this share of the run: a linear warm-up, then half a cosine."""
    if progress < _WARM_UP:
        return max(progress, 1e-3) / _WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM_UP) / (1 - _WARM_UP))))


def training_window(
    features: Path | str, window: str, model: Model, settings: ModelSettings
) -> tuple[Sessions | SessionStream, Sessions]:
    """The sessions to train on: in memory, or streamed where their columns would take more than 2 GiB.

    Parameters
    ----------
    features, window
        As for `read_sessions`.
    model : Model
        Says which columns, and how many events of a session.
    settings : ModelSettings
        Batch size and seed.

    Returns
    -------
    Sessions or SessionStream
        What `fit` takes.
    Sessions
        The same, for tables of counts; of what is streamed the item ids alone.
    """
    files = window_files(features, window)
    if sum(part.size for part in parts_of(files, model.features)) <= IN_MEMORY_BYTES:
        whole = read_sessions(features, window, model.features)
        return whole, whole
    stream = SessionStream.of(
        files, model.features, batch_size=settings.batch_size, limit=model.max_sequence_length, seed=settings.seed
    )
    return stream, read_sessions(features, window, [model.inputs.item])


def _batches(
    sessions: Sessions | SessionStream, batch_size: int, limit: int, shuffle: torch.Generator
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """A pass over all sessions in another order."""
    if isinstance(sessions, SessionStream):
        return iter(sessions)
    return sessions.batches(batch_size, limit, shuffle)


def fit(
    model: Model,
    train_sessions: Sessions | SessionStream,
    valid: Sessions,
    settings: ModelSettings,
    device: torch.device,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train in place and leave the best weights in the model.

    `train_sessions` may be streamed: `training_window` decides. Its batches are then those of the stream.
    `on_epoch` gets each line of the history as it comes, and may end training with an exception.

    Returns
    -------
    list of dict
        A line an epoch: loss, throughput, validation metrics.
    dict
        The report that `train` returns.
    """
    item = model.inputs.item
    optimizer = _optimizer(model, settings)
    shuffle = torch.Generator().manual_seed(settings.seed)
    sessions = train_sessions.sessions if isinstance(train_sessions, SessionStream) else len(train_sessions)
    steps = math.ceil(sessions / settings.batch_size) * settings.epochs
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"epoch": 0, GOAL: -1.0}
    weights: dict[str, Tensor] = {}
    began, done, training_seconds = time.perf_counter(), 0, 0.0
    for epoch in range(1, settings.epochs + 1):
        model.train()
        total, targets, epoch_began, out_of_time = 0.0, 0, time.perf_counter(), False
        with step(f"Epoch {epoch}", sessions) as bar:
            for chosen, columns in _batches(train_sessions, settings.batch_size, model.max_sequence_length, shuffle):
                share = done / steps
                if settings.max_minutes:
                    spent = (time.perf_counter() - began) / (60 * settings.max_minutes)
                    share, out_of_time = max(share, spent), spent >= 1
                if out_of_time:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * _rate(share)
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                    result = model({name: value.to(device) for name, value in columns.items()}, training=True)
                done += 1
                if result["targets"]:
                    result["loss"].backward()
                    nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    total += result["loss"].item() * result["targets"]
                    targets += result["targets"]
                bar.advance(len(chosen))
            seconds = time.perf_counter() - epoch_began
            training_seconds += seconds
            model.eval()
            found = ranks(model, valid, item, model.max_sequence_length, settings.exclude, device=device)
            metrics = summary(found[~found.isnan()])
            rate = sessions / seconds if seconds else 0.0
            bar.say(f"loss {total / max(1, targets):.4f}, valid NDCG@20 {metrics[GOAL]:.4f}, {rate:,.0f} sessions/s")
        if not targets and not weights:
            raise UserError("no training session has a known item to predict: check the training window")
        line = {"epoch": epoch, "loss": total / max(1, targets), "sessions_per_s": rate, **metrics}
        history.append(line)
        if on_epoch is not None:
            on_epoch(line)
        if metrics[GOAL] > best[GOAL]:
            best = {**line}
            weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if out_of_time or epoch - best["epoch"] >= settings.patience:
            break
    model.load_state_dict(weights)
    report = {
        "architecture": settings.architecture,
        "masking": settings.objective,
        "parameters": sum(p.numel() for p in model.parameters()),
        "catalogue_size": model.catalogue_size,
        "sessions": sessions,
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "train_seconds": training_seconds,
        "train_sessions_per_s": sessions * len(history) / training_seconds,
        "device": str(device),
        "valid": {name: value for name, value in best.items() if "@" in name},
    }
    return history, report
