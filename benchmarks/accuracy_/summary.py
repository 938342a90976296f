"""What is known of each contender: figures with intervals, and differences to the baseline to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.accuracy_.contenders import GRU4REC, Result
from modeling.evaluation.bootstrap import across_seeds, paired
from modeling.ranking_metric import GOAL, metrics_by_row

# How the models of Transformers4Rec are called here.
T4R = "t4r "
COMPARED = (GOAL, "mrr@20")
METRICS = ("ndcg@20", "recall@20", "mrr@20", "ndcg@10", "recall@10")


def rows_of(results: Sequence[Result], resamples: int = 1000) -> list[dict[str, Any]]:
    """A row a contender, the best first.

    Parameters
    ----------
    results : sequence of Result
        At least one baseline among them.
    resamples : int
        Of the bootstrap over sessions.

    Returns
    -------
    list of dict
        ``{"model", "trained", "ours", "chosen", "valid_ndcg@20", "seconds", "metrics": {name: {"mean", "low", "high",
        "spread", "runs"}}, "to_beat", "differences": {name: {"mean", "low", "high"}}, "t4r", "to_t4r"}``. What is to be
        beaten is the baseline, or GRU4Rec, that is best on validation; the differences are those of NDCG@20 and MRR@20
        to it, paired by session. ``to_t4r`` are those to the model of Transformers4Rec that is best on validation,
        ``t4r``; both are None without one.
    """
    values = [[metrics_by_row(ranks) for ranks in result.ranks] for result in results]
    rivals = [place for place, result in enumerate(results) if not result.trained or result.name == GRU4REC]
    best = max(rivals, key=lambda place: results[place].valid)
    theirs = [place for place, result in enumerate(results) if result.name.startswith(T4R)]
    t4r = max(theirs, key=lambda place: results[place].valid, default=None)
    rows = []
    for result, runs in zip(results, values, strict=True):
        metrics = {name: across_seeds([run[name] for run in runs], resamples) for name in METRICS}
        rows.append(
            {
                "model": result.name,
                "trained": result.trained,
                "ours": result.trained and result.name != GRU4REC and not result.name.startswith(T4R),
                "chosen": result.chosen,
                "valid_ndcg@20": result.valid,
                "seconds": result.seconds,
                "metrics": metrics,
                "to_beat": results[best].name,
                "differences": _differences(runs, values[best], resamples),
                "t4r": None if t4r is None else results[t4r].name,
                "to_t4r": None if t4r is None else _differences(runs, values[t4r], resamples),
            }
        )
    return sorted(rows, key=lambda row: -row["metrics"][GOAL]["mean"])


def measured(result: Result) -> dict[str, int]:
    """How many sessions were measured, and how many have a last item that training never saw."""
    ranks = result.ranks[0]
    return {"sessions": int((~ranks.isnan()).sum()), "left_out": int(ranks.isnan().sum())}


def verdict(row: dict[str, Any], name: str = GOAL) -> str:
    """The difference to the baseline to beat in words."""
    return "to beat" if row["model"] == row["to_beat"] else in_words(row["differences"][name])


def in_words(found: dict[str, float]) -> str:
    """A difference, with a star where it is more than chance among sessions."""
    sure = "" if found["low"] <= 0 <= found["high"] else "*"
    return f"{found['mean']:+.4f}{sure}"


def comparisons(row: dict[str, Any]) -> dict[str, str]:
    """All differences of a row in words, by the title of their column."""
    found = {f"{name} to {row['to_beat']}": verdict(row, name) for name in COMPARED}
    if row["t4r"]:
        found[f"{GOAL} to {row['t4r']}"] = in_words(row["to_t4r"][GOAL])
    return found


def settings_of(row: dict[str, Any]) -> str:
    """What validation chose, in short."""
    return ", ".join(f"{name} {value}" for name, value in row["chosen"].items())


def _differences(
    runs: Sequence[dict[str, Tensor]], others: Sequence[dict[str, Tensor]], resamples: int
) -> dict[str, dict[str, float]]:
    """Of the means over seeds, paired by session."""
    return {name: paired(_mean(runs, name), _mean(others, name), resamples=resamples) for name in COMPARED}


def _mean(runs: Sequence[dict[str, Tensor]], name: str) -> Tensor:
    return torch.stack([run[name] for run in runs]).mean(0)
