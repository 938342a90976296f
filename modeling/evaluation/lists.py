"""What lists of recommendations look like as a whole: how much of the catalogue they show, and how popular it is.

Accuracy does not see these: a model that shows everyone the same few best-sellers can be accurate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modeling.ranking import best_by_blocks


class Exposure:
    """How often each item is recommended, over many lists.

    What is kept is a number an item and cut-off, so memory does not grow with the sessions. Lists are those that a
    server answers (`modeling.ranking.best`): where scores are equal, the one that torch takes.

    Parameters
    ----------
    cardinality : int
        Size of the catalogue with reserved ids.
    ks : sequence of int
        Lengths of the lists.
    """

    def __init__(self, cardinality: int, ks: Sequence[int]) -> None:
        self.ks = tuple(ks)
        self.counts = torch.zeros(len(self.ks), cardinality, dtype=torch.long)

    def add(self, scores: Tensor) -> None:
        """Count the best items of scores [B, cardinality]; what is -inf is not recommended."""
        ids = best_by_blocks(scores, max(self.ks))[1].cpu()
        for row, k in enumerate(self.ks):
            counts = torch.bincount(ids[:, :k].reshape(-1), minlength=self.counts.shape[1])
            counts[0] = 0  # 0 is not an item: it fills up a list that is too short
            self.counts[row] += counts


def coverage(counts: Tensor, reserved: int) -> float:
    """Share of the items that occur at least once.

    Parameters
    ----------
    counts : Tensor [cardinality], int64
        How often each id occurs.
    reserved : int
        Ids below it are no items.
    """
    own = counts[reserved:]
    return float((own > 0).double().mean()) if len(own) else 0.0


def gini(counts: Tensor, reserved: int) -> float:
    """Gini coefficient of how often items occur: 0 where all occur as often, almost 1 where only one does.

    With n items in ascending order of their counts x it is ``sum((2 i - n - 1) x_i) / (n sum(x))``; 0 where nothing
    occurs.

    Parameters
    ----------
    counts, reserved
        As for `coverage`. Items that do not occur at all count, too.
    """
    own = counts[reserved:].double().sort().values
    n, total = len(own), float(own.sum())
    if not total:
        return 0.0
    return float(((2 * torch.arange(1, n + 1) - n - 1) * own).sum()) / (n * total)


def percentiles(train: Tensor, reserved: int) -> Tensor:
    """How popular each item is among all: the share of items with fewer events in training.

    Parameters
    ----------
    train : Tensor [cardinality], int64
        Events of each id in training.
    reserved : int
        Ids below it are no items.

    Returns
    -------
    Tensor [cardinality], float64
        From 0 to 1; of the equally popular items, itself among them, half count as less popular, so that the mean over
        the catalogue is one half. 0 for reserved ids.
    """
    own = train[reserved:].contiguous()
    ordered = own.sort().values
    fewer, up_to = (torch.searchsorted(ordered, own, right=side) for side in (False, True))
    found = torch.zeros(len(train), dtype=torch.double)
    found[reserved:] = (fewer + up_to) / 2 / max(1, len(own))
    return found


def mean_popularity(counts: Tensor, percentile: Tensor) -> float:
    """Mean percentile [cardinality] of what occurs `counts` [cardinality] times; 0 of nothing."""
    return float((counts * percentile).sum() / counts.sum().clamp(min=1))


def describe(counts: Tensor, percentile: Tensor, reserved: int) -> dict[str, float]:
    """``{"coverage", "popularity", "gini"}`` of counts [cardinality]."""
    return {
        "coverage": coverage(counts, reserved),
        "popularity": mean_popularity(counts, percentile),
        "gini": gini(counts, reserved),
    }


def summary(exposures: dict[str, Exposure], clicked: Tensor, train: Tensor, reserved: int) -> dict[str, Any]:
    """What each model recommended, beside what was clicked.

    Parameters
    ----------
    exposures : dict of Exposure
        By model.
    clicked : Tensor [T], int64
        Item ids of the targets.
    train : Tensor [cardinality], int64
        Events of each id in training.
    reserved : int
        Ids below it are no items.

    Returns
    -------
    dict
        ``{"clicked": {"coverage", "popularity", "gini"}, model: {"coverage@10", "popularity@10", "gini@10", ...}}``.
    """
    percentile = percentiles(train, reserved)
    found: dict[str, Any] = {"clicked": describe(torch.bincount(clicked, minlength=len(train)), percentile, reserved)}
    for name, exposure in exposures.items():
        found[name] = {
            f"{what}@{k}": value
            for k, counts in zip(exposure.ks, exposure.counts, strict=True)
            for what, value in describe(counts, percentile, reserved).items()
        }
    return found
