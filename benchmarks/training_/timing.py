"""The clock of a training loop, the same in both environments: it imports nothing but torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
# The loss of a batch, and the number of its targets.
Loss = Callable[[Batch], tuple[Tensor, int]]


def memory(key: str) -> float:
    """MiB of this process: ``"VmHWM"`` is the most so far, ``"VmRSS"`` what it holds now."""
    # ru_maxrss would count what the parent held when it started this process; VmHWM begins anew.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}")


def endless(loader: Iterable[Any], batch_of: Callable[[Any], Batch]) -> Iterator[Batch]:
    """Pass after pass over a loader, of whose elements a batch is made."""
    while True:
        empty = True
        for element in loader:
            empty = False
            yield batch_of(element)
        if empty:
            return


def optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """The same for both: AdamW, all tensors in one call."""
    return torch.optim.AdamW(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True
    )


def measure(
    model: nn.Module, loss: Loss, batches: Iterator[Batch], settings: dict[str, Any], imports: float
) -> dict[str, float]:
    """Train, and tell what it took.

    Parameters
    ----------
    model : nn.Module
        To be trained.
    loss : callable
        See `Loss`.
    batches : iterator of dict of Tensor
        As many as are needed. Making them counts, the first ones excepted.
    settings : dict
        ``steps``, ``warm_up`` (steps before the clock starts), ``batch_size``, ``precision`` ("bfloat16" computes
        the loss under autocast), and those of `optimizer`.
    imports : float
        MiB that the process held before it built the model.

    Returns
    -------
    dict
        ``sessions_per_s``, ``sessions_per_cpu_s``, ``targets`` (a step, in the mean), ``peak_mib``, ``net_mib`` (the
        peak without the imports), ``parameters``, ``loss`` (of the last step).
    """
    model.train()
    update = optimizer(model, settings)
    steps, warm_up = settings["steps"], settings["warm_up"]
    mixed = settings.get("precision") == "bfloat16"
    targets, last, began, cpu = 0, 0.0, 0.0, 0.0
    for number in range(warm_up + steps):
        if number == warm_up:
            began, cpu, targets = time.perf_counter(), time.process_time(), 0
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            value, count = loss(batch)
        value.backward()
        update.step()
        update.zero_grad(set_to_none=True)
        targets += count
        last = value.item()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    sessions, peak = steps * settings["batch_size"], memory("VmHWM")
    return {
        "sessions_per_s": sessions / seconds,
        "sessions_per_cpu_s": sessions / cpu,
        "targets": targets / steps,
        "peak_mib": peak,
        "net_mib": max(0.0, peak - imports),
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": last,
    }
