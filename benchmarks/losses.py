"""Milliseconds and memory of one training step of the head alone, for each loss, beside torch's own.

    python -m benchmarks.losses [ITEMS ...]      # 10,000, 100,000 and 1,000,000 by default

Forward and backward of 2,560 targets against a catalogue of vectors of width 64, on one thread, each loss in a process
of its own: the median of some runs in processor time, and by how much the step raised the highest memory use over what
the tensors and their gradients hold. The matrix of all logits is left out where it would not fit.
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
# Items up to which three matrices of targets x items fit a usual machine.
MOST_LOGITS = 300_000
FULL, CHUNKS = "torch cross_entropy, all logits", "torch linear_cross_entropy, chunks of 256"

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def _full(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(answers @ weight.T, targets)


def _torch_chunked(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=256)
    loss: Tensor = F.linear_cross_entropy(answers, weight, targets, options=options)
    return loss


def _blocks(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return linear_cross_entropy(answers, weight, None, targets)


def _mixed(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return linear_cross_entropy(answers, weight, None, targets, mixed=True)


def _sampled(name: str, **options: Any) -> Step:
    loss = loss_registry[name](**options)

    def step(answers: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        result: Tensor = loss(answers, weight, None, targets)
        return result

    return step


CASES: dict[str, Callable[[], Step]] = {
    FULL: lambda: _full,
    CHUNKS: lambda: _torch_chunked,
    "cross-entropy (ours, exact), float32": lambda: _blocks,
    "cross-entropy (ours, exact), bfloat16": lambda: _mixed,
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
    for _ in range((ROUNDS if items <= MOST_LOGITS else 2) + 1):
        answers.grad = weight.grad = None
        began = time.thread_time()  # a clock that other processes do not move
        step(answers, weight, targets).backward()
        took.append((time.thread_time() - began) * 1000)
    return statistics.median(took[1:]), _peak() - before


def main(items: int) -> None:
    """Measure and print."""
    found = {}
    for name in CASES:
        if name == FULL and items > MOST_LOGITS:
            continue
        # A fresh process for each: the highest memory use of a process never falls.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(measure, (name, items))
    peer = found[CHUNKS][0]
    rows = [[name, f"{ms:,.1f}", f"{mib:,.0f}", f"{peer / ms:.2f}x"] for name, (ms, mib) in found.items()]
    title = f"Forward and backward of {TARGETS:,} targets x {items:,} items, width {WIDTH}, one thread"
    show_table(title, ("", "ms", "MiB more", "of torch's chunks"), rows)


if __name__ == "__main__":
    for items in sys.argv[1:] or (10_000, 100_000, 1_000_000):
        main(int(items))
