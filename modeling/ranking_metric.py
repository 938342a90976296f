"""Ranking metrics for one relevant item a session, from its rank: memory does not grow with the catalogue.

Ranks begin at 1. They may be halves (see `rank_of`), and infinite where the item cannot be recommended.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rank_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Rank of each target among all scores of its row.

    Parameters
    ----------
    scores : Tensor [N, C]
        -inf for what cannot be recommended.
    targets : Tensor [N], int64
        Columns.

    Returns
    -------
    Tensor [N], float32
        1 + the number of better scores + half of the number of equal ones: ties neither favour nor punish the
        target. Infinite where the target's own score is not finite. A score that is not a number counts as
        better.
    """
    own = scores.gather(1, targets[:, None])
    better = (~(scores <= own)).sum(1)
    equal = (scores == own).sum(1) - 1
    ranks = 1 + better + equal / 2
    return ranks.float().masked_fill(~torch.isfinite(own[:, 0]), float("inf"))


class RankingMetric:
    """Base of the metrics.

    Parameters
    ----------
    top_ks : sequence of int
        The cut-offs.
    labels_onehot : bool
        Accepted for compatibility: labels may be ids [N] or one-hot rows [N, C] either way.
    """

    name = ""

    def __init__(self, top_ks: Sequence[int] = (2, 5), labels_onehot: bool = False) -> None:
        self.top_ks = [int(k) for k in top_ks]
        if not self.top_ks or min(self.top_ks) < 1:
            raise ValueError(f"top_ks must be positive numbers, not {list(top_ks)}")

    def gain(self, ranks: Tensor) -> Tensor:
        """What a target at each rank is worth, before the cut-off."""
        raise NotImplementedError

    def from_ranks(self, ranks: Tensor) -> Tensor:
        """Mean at each cut-off [len(top_ks)], from ranks [N]; NaN of none."""
        gain = self.gain(ranks.double())
        return torch.stack([(gain * (ranks <= k)).mean() for k in self.top_ks])

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean at each cut-off [len(top_ks)], from scores [N, C] and labels: ids [N] or one-hot [N, C]."""
        return self.from_ranks(rank_of(scores, labels.argmax(1) if labels.dim() == 2 else labels))


class RecallAt(RankingMetric):
    """Share of the sessions whose item is among the first k (with one relevant item also the hit rate)."""

    name = "recall"

    def gain(self, ranks: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(ranks)


class NDCGAt(RankingMetric):
    """Normalised discounted cumulative gain; with one relevant item ``1 / log2(rank + 1)``."""

    name = "ndcg"

    def gain(self, ranks: Tensor) -> Tensor:
        """``1 / log2(rank + 1)``."""
        return 1 / torch.log2(ranks + 1)


class MeanReciprocalRankAt(RankingMetric):
    """Mean of ``1 / rank``."""

    name = "mrr"

    def gain(self, ranks: Tensor) -> Tensor:
        """``1 / rank``."""
        return 1 / ranks


def summary(ranks: Tensor, ks: Sequence[int] = (10, 20)) -> dict[str, float]:
    """All metrics of some ranks: ``{"recall@10": ..., "ndcg@10": ..., "mrr@10": ..., "recall@20": ...}``."""
    found: dict[str, float] = {}
    for k in ks:
        for metric in (RecallAt([k]), NDCGAt([k]), MeanReciprocalRankAt([k])):
            found[f"{metric.name}@{k}"] = float(metric.from_ranks(ranks)[0]) if len(ranks) else 0.0
    return found
