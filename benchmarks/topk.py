"""Milliseconds of the exact 20 best items of a catalogue, on one thread, beside what torch does and what memory allows.

    python -m benchmarks.topk [--items 10000,100000,1000000] [--json]

Vectors of width 64, drawn at random. Every way runs once a round, in turn, and the median of the rounds counts. The
memory floor is the time to read the float32 vectors once (their sum). `ours` is what an exported model does: bounds
from 8-bit copies, then float32 for what the bounds leave open; few items or processors without VNNI take the two
stages in float32. `model.pt` is a whole exported model of random weights (2 layers, 20 events), asked for the best of
all items and of 100 candidates; and once more with evidence of counts, 64 pairs of every item.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import modeling as tr
from common.display import show_json, show_line, show_table
from modeling.evidence.fitting import DEPTH
from modeling.evidence.fitting import WIDTH as WIDTH_OF_COUNTS
from modeling.evidence.module import ItemEvidence
from modeling.export.rankers import BoundedRanker, VectorRanker, served
from modeling.export.torchscript import export_torchscript
from modeling.schema import Feature

K, WIDTH, LENGTH, RESERVED = 20, 64, 20, 3
BATCHES = (1, 8, 32)


def _loaded(ranker: torch.nn.Module) -> Any:
    """As a server has it."""
    buffer = io.BytesIO()
    kept = ["bounds"] if isinstance(ranker, BoundedRanker) else []
    torch.jit.save(torch.jit.freeze(torch.jit.script(ranker.eval()), kept), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def _medians(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in ways}
    for counted in range(-2, rounds):  # the first two warm up
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            if counted >= 0:
                took[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in took.items()}


def _equal(found: tuple[Tensor, Tensor], scores: Tensor) -> bool:
    """Whether the answers are the best of the scores, but for rounding: whichever of equal ones."""
    best = torch.topk(scores, K).values
    distinct = all(len(row.unique()) == K for row in found[1])
    named = scores.gather(1, found[1])
    return distinct and all(torch.allclose(given, best, rtol=1e-5, atol=1e-5) for given in (found[0], named))


def _rankers(items: int, rounds: int) -> dict[str, Any]:
    vectors = torch.randn(items + RESERVED, WIDTH, generator=torch.Generator().manual_seed(0))
    plain = VectorRanker(vectors, None, RESERVED)
    two_stage, ours = _loaded(plain), _loaded(served(plain))
    result: dict[str, Any] = {}
    for batch in BATCHES:
        queries = torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(batch))
        nothing = torch.zeros(batch, 0, dtype=torch.long)
        ways: dict[str, Callable[[], Any]] = {
            "memory_floor": vectors.sum,
            "full": lambda queries=queries: torch.topk(queries @ vectors.T, K),  # type: ignore[misc]
            "two_stage": lambda queries=queries, none=nothing: two_stage(queries, K, none, None),  # type: ignore[misc]
            "ours": lambda queries=queries, none=nothing: ours(queries, K, none, None),  # type: ignore[misc]
        }
        result[f"batch{batch}"] = {f"{name}_ms": ms for name, ms in _medians(ways, rounds).items()}
        scores = queries @ vectors.T
        scores[:, :RESERVED] = float("-inf")
        result[f"batch{batch}"]["equal"] = all(_equal(ways[name](), scores) for name in ("two_stage", "ours"))
    return result


def _model(items: int, path: Path, counts: bool = False) -> Any:
    torch.manual_seed(0)
    item = Feature("item_id", "categorical", items + RESERVED, RESERVED, True)
    inputs = tr.TabularSequenceFeatures([item], LENGTH + 1, embedding_dim_default=WIDTH, d_output=WIDTH, masking="clm")
    backbone = tr.transformer_registry["gpt2"].build(WIDTH, 4, 2, LENGTH + 1)
    model = backbone.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True)).eval()
    if counts:
        first = torch.arange(RESERVED, items + RESERVED).repeat_interleave(WIDTH_OF_COUNTS)
        second = torch.randint(RESERVED, items, (len(first),))
        model.evidence = ItemEvidence.from_pairs(first, second, torch.rand(len(first)), items + RESERVED, DEPTH, 0.5)
    export_torchscript(model, path)
    return torch.jit.load(str(path))


def _models(items: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model = _model(items, Path(folder) / "model.pt")
        counting = _model(items, Path(folder) / "counts.pt", counts=True)
    result = {}
    for batch in BATCHES:
        generator = torch.Generator().manual_seed(batch)
        sessions = {"item_id": torch.randint(RESERVED, items, (batch, LENGTH), generator=generator)}
        some = torch.randint(RESERVED, items, (batch, 100), generator=generator)
        ways: dict[str, Callable[[], Any]] = {
            "model_pt": lambda sessions=sessions: model(sessions, K),  # type: ignore[misc]
            "counts": lambda sessions=sessions: counting(sessions, K),  # type: ignore[misc]
            "candidates": lambda sessions=sessions, some=some: model(sessions, K, None, some),  # type: ignore[misc]
        }
        result[f"batch{batch}"] = {f"{name}_ms": ms for name, ms in _medians(ways, rounds).items()}
    return result


def measure(items: int) -> dict[str, Any]:
    """Milliseconds by batch size, and whether all answers were equal."""
    rounds = max(15, min(200, 3_000_000 // items))
    with torch.inference_mode():
        rankers = _rankers(items, rounds)
    models = _models(items, rounds)
    return {batch: {**rankers[batch], **models[batch]} for batch in rankers}


def _yes(answer: bool) -> str:
    return "yes" if answer else "NO"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="10000,100000,1000000", help="catalogue sizes, with commas between")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {items: measure(items) for items in map(int, options.items.split(","))}
    if options.json:
        show_json(found)
        return
    names = ["full_ms", "two_stage_ms", "ours_ms", "memory_floor_ms", "model_pt_ms", "counts_ms", "candidates_ms"]
    titles = ["full + topk", "two stages", "ours", "memory floor", "model.pt", "with counts", "of 100 candidates"]
    for items, result in found.items():
        rows = [
            [
                batch.removeprefix("batch"),
                *(f"{values[name]:.2f}" for name in names),
                "yes" if values["equal"] else "NO",
            ]
            for batch, values in result.items()
        ]
        show_table(f"The best {K} of {items:,} items, ms", ("sessions", *titles, "equal"), rows)
    show_line("One thread; d 64; medians.")


if __name__ == "__main__":
    main()
