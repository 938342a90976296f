"""Milliseconds and memory of one training step of the head alone, for each loss, beside torch's own.

    python -m benchmarks.losses [ITEMS]      # 100,000 by default

Forward and backward of 2,560 targets against a catalogue of vectors of width 64, on one thread, each loss in a process
of its own: the median of some runs, and by how much the step raised the highest memory use over what the tensors and
their gradients hold.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.display import show_table
from modeling.losses.cross_entropy import linear_cross_entropy
from modeling.losses.registry import loss_registry

TARGETS, WIDTH, NEGATIVES, ROUNDS = 2560, 64, 256, 5

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def _full(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(answers @ weight.T, targets)


def _torch_chunked(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=256)
    loss: Tensor = F.linear_cross_entropy(answers, weight, targets, options=options)
    return loss


def _chunked(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return linear_cross_entropy(answers, weight, None, targets)


def _sampled(name: str, **options: Any) -> Step:
    loss = loss_registry[name](**options)

    def step(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        result: Tensor = loss(answers, weight, None, targets)
        return result

    return step


CASES: dict[str, Callable[[], Step]] = {
    "torch cross_entropy, all logits": lambda: _full,
    "torch linear_cross_entropy, chunks of 256": lambda: _torch_chunked,
    "cross-entropy (ours, exact)": lambda: _chunked,
    **{
        f"{name}, {NEGATIVES} negatives": lambda name=name: _sampled(name, n_samples=NEGATIVES)  # type: ignore[misc]
        for name in ("sampled-softmax", "gbce", "bpr-max", "top1-max")
    },
}


def _peak() -> float:
    """The highest memory use of this process so far, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def measure(name: str, items: int) -> tuple[float, float]:
    """Median milliseconds, and MiB on top of the tensors and their gradients."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = CASES[name]()
    answers = torch.randn(TARGETS, WIDTH, requires_grad=True)
    weight = (torch.randn(items, WIDTH) * 0.1).requires_grad_()
    targets = torch.randint(items, (TARGETS,))
    for tensor in (answers, weight):
        tensor.grad = torch.zeros_like(tensor).add_(1)  # touched, so that it counts as there
    before = _peak()
    took = []
    for _ in range(ROUNDS + 1):
        answers.grad = weight.grad = None
        began = time.perf_counter()
        step(answers, weight, targets).backward()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[1:]), _peak() - before


def main(items: int) -> None:
    """Measure and print."""
    found = {}
    for name in CASES:
        # A fresh process for each: the highest memory use of a process never falls.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(measure, (name, items))
    slowest = found["torch cross_entropy, all logits"][0]
    rows = [[name, f"{ms:.1f}", f"{mib:.0f}", f"{slowest / ms:.1f}x"] for name, (ms, mib) in found.items()]
    title = f"Forward and backward of {TARGETS:,} targets x {items:,} items, width {WIDTH}, one thread"
    show_table(title, ("", "ms", "MiB more", "faster"), rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
