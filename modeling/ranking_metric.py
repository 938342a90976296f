"""Ranking metrics from the ranks of the relevant items: memory does not grow with the catalogue or the batches.

Ranks begin at 1. They may be fractions (see `rank_of`), and infinite where the item cannot be recommended.
Definitions, for a row with R relevant items of which h are among the first k:

========= ==========================================================================================
precision h / k
recall    h / R
map       the mean of (relevant items up to a rank) / rank over the h found, times h / min(R, k)
dcg       the sum of 1 / log2(rank + 1) over the h found
ndcg      dcg, divided by that of the best order: min(R, k) items at ranks 1, 2, ...
mrr       1 / rank of the first relevant item, 0 where that is beyond k
========= ==========================================================================================

They are those of Transformers4Rec. A row without a relevant item counts as 0, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modeling.serialization import part

# What the best epoch, the best settings and the best baseline are chosen by, on validation.
GOAL = "ndcg@20"


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


def ranks_of_many(scores: Tensor, relevant: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of several relevant items a row.

    Parameters
    ----------
    scores : Tensor [N, C]
        As in `rank_of`.
    relevant : Tensor [N, C], bool
        Which items are relevant.

    Returns
    -------
    Tensor [N, R], float64
        Ascending, filled up with infinity; R is the largest number of relevant items, at least 1. With g equal scores
        of which r are relevant, these have the ranks that r items have on average in a random order of g: the j-th is
        ``better + j (g + 1) / (r + 1)``, which for one relevant item is what `rank_of` says.
    Tensor [N], int64
        The number of relevant items of each row.
    """
    count = relevant.sum(1)
    # What is not a number is better than all, as in `rank_of`.
    scores = torch.nan_to_num(scores, nan=float("inf"), posinf=float("inf"), neginf=float("-inf"))
    width = min(max(1, int(count.max()) if len(count) else 1), scores.shape[1])
    real, columns = relevant.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    own = scores.gather(1, columns[:, :width]).masked_fill(real[:, :width] == 0, float("-inf"))
    own = own.sort(dim=1, descending=True).values
    # Negated, so that the best comes first and searchsorted counts the better ones.
    everything, negated = (-scores).sort(dim=1).values, (-own).contiguous()
    better, not_worse = (torch.searchsorted(everything, negated, right=side) for side in (False, True))
    before, up_to = (torch.searchsorted(negated, negated, right=side) for side in (False, True))
    j = torch.arange(1, width + 1, device=scores.device) - before
    ranks = better + j.double() * (not_worse - better + 1) / (up_to - before + 1)
    # Infinite scores among the relevant are real +inf, NaN, or items that cannot be recommended.
    ranks = ranks.masked_fill(~own.isfinite(), float("inf"))
    return ranks.sort(dim=1).values, count


class RankingMetric:
    """Base of the metrics: a function of a batch, and a sum over many.

    ``metric(scores, labels)`` is the value of the batch, and adds the batch to the sum; `update` only adds, `compute`
    is the mean over all rows added, `reset` forgets them. What is kept is a number a cut-off.

    Parameters
    ----------
    top_ks : sequence of int, optional
        The cut-offs; 2 and 5 by default.
    labels_onehot : bool
        Accepted for compatibility: the labels' shape says whether they are ids or rows of zeros and ones.
    """

    name = ""
    _sum: Tensor
    _count: int

    def __init__(self, top_ks: Sequence[int] | None = None, labels_onehot: bool = False) -> None:
        self.top_ks = [int(k) for k in (top_ks if top_ks is not None else (2, 5))]
        if not self.top_ks or min(self.top_ks) < 1:
            raise ValueError(f"top_ks must be positive numbers, not {list(top_ks or ())}")
        self.labels_onehot = labels_onehot
        self.reset()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"top_ks": self.top_ks, "labels_onehot": self.labels_onehot}

    def gains(self, ranks: Tensor, relevant: Tensor, k: int) -> Tensor:
        """Value of each row [N] at a cut-off, from ranks [N, R] as of `ranks_of_many` and their number [N]."""
        raise NotImplementedError

    def _rows(self, ranks: Tensor, relevant: Tensor) -> Tensor:
        return torch.stack([self.gains(ranks, relevant, k) for k in self.top_ks], dim=-1)

    def rows(self, ranks: Tensor) -> Tensor:
        """Value of each row at each cut-off [N, len(top_ks)], from ranks [N] of one relevant item a row."""
        return self._rows(ranks.double()[:, None], torch.ones_like(ranks, dtype=torch.long))

    def from_ranks(self, ranks: Tensor) -> Tensor:
        """Mean at each cut-off [len(top_ks)], from ranks [N] of one relevant item a row; NaN of none."""
        return self.rows(ranks).mean(0)

    def _values(self, scores: Tensor, labels: Tensor) -> Tensor:
        lead = scores.shape[:-1]
        flat = scores.reshape(-1, scores.shape[-1])
        if labels.shape in (lead, (*lead, 1), flat.shape[:1]):
            ranks = rank_of(flat, labels.reshape(-1).long()).double()
            return self._rows(ranks[:, None], torch.ones_like(ranks, dtype=torch.long))
        if labels.shape in (scores.shape, flat.shape):
            return self._rows(*ranks_of_many(flat, labels.reshape(flat.shape) > 0))
        raise ValueError(
            f"labels of shape {list(labels.shape)} do not fit scores of shape {list(scores.shape)}: give an id a row, "
            "or a row of zeros and ones"
        )

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean at each cut-off over the batch, which is also added to the sum.

        Parameters
        ----------
        scores : Tensor [N, C] or [B, T, C], float
            -inf for what cannot be recommended.
        labels : Tensor
            Ids [N] or [B, T], or rows of zeros and ones (several relevant items) of the scores' shape.

        Returns
        -------
        Tensor [len(top_ks)], float64
            NaN of an empty batch.

        Raises
        ------
        ValueError
            When the shapes do not fit.
        """
        values = self._values(scores, labels)
        self._sum = self._sum.to(values.device) + values.sum(0)
        self._count += len(values)
        return values.mean(0)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch; see `__call__`."""
        self(preds, target)

    def compute(self) -> Tensor:
        """Mean at each cut-off [len(top_ks)] over all rows since `reset`; NaN of none."""
        return self._sum / self._count if self._count else self._sum * float("nan")

    def reset(self) -> None:
        """Forget all batches."""
        self._sum = torch.zeros(len(self.top_ks), dtype=torch.double)
        self._count = 0


@part
class PrecisionAt(RankingMetric):
    """Share of the first k that is relevant."""

    name = "precision"

    def gains(self, ranks: Tensor, relevant: Tensor, k: int) -> Tensor:
        """``h / k``."""
        return (ranks <= k).sum(1).double() / k


@part
class RecallAt(RankingMetric):
    """Share of the relevant items that is among the first k (of one relevant item also the hit rate)."""

    name = "recall"

    def gains(self, ranks: Tensor, relevant: Tensor, k: int) -> Tensor:
        """``h / R``."""
        return (ranks <= k).sum(1).double() / relevant.clamp(min=1)


@part
class AvgPrecisionAt(RankingMetric):
    """Mean average precision: precision at each relevant item found, over ``min(R, k)``."""

    name = "avg_precision"

    def gains(self, ranks: Tensor, relevant: Tensor, k: int) -> Tensor:
        """The sum of (number of the item among the relevant) / rank, over ``min(R, k)``."""
        number = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
        return (number / ranks * (ranks <= k)).sum(1) / relevant.clamp(1, k)


@part
class DCGAt(RankingMetric):
    """Discounted cumulative gain, of relevance 0 or 1."""

    name = "dcg"

    def gains(self, ranks: Tensor, relevant: Tensor, k: int) -> Tensor:
        """The sum of ``1 / log2(rank + 1)``."""
        return (1 / torch.log2(ranks + 1) * (ranks <= k)).sum(1)


@part
class NDCGAt(DCGAt):
    """Normalised discounted cumulative gain; with one relevant item ``1 / log2(rank + 1)``."""

    name = "ndcg"

    def gains(self, ranks: Tensor, relevant: Tensor, k: int) -> Tensor:
        """`DCGAt`, over that of the best order."""
        best = torch.arange(1, ranks.shape[1] + 1, device=ranks.device, dtype=ranks.dtype)
        ideal = super().gains(best.masked_fill(best > relevant[:, None], float("inf")), relevant, k)
        return super().gains(ranks, relevant, k) / ideal.where(ideal > 0, 1.0)


@part
class MeanReciprocalRankAt(RankingMetric):
    """Mean of ``1 / rank`` of the first relevant item."""

    name = "mrr"

    def gains(self, ranks: Tensor, relevant: Tensor, k: int) -> Tensor:
        """``1 / rank``, or 0 beyond k."""
        return 1 / ranks[:, 0] * (ranks[:, 0] <= k)


ranking_metrics_registry: dict[str, type[RankingMetric]] = {
    "precision": PrecisionAt,
    "recall": RecallAt,
    "avg_precision": AvgPrecisionAt,
    "dcg": DCGAt,
    "ndcg": NDCGAt,
    "mrr": MeanReciprocalRankAt,
}
ranking_metrics_registry |= {f"{name}_at": cls for name, cls in ranking_metrics_registry.items()}
ranking_metrics_registry["map"] = AvgPrecisionAt


def summary(ranks: Tensor, ks: Sequence[int] = (10, 20)) -> dict[str, float]:
    """All metrics of some ranks: ``{"recall@10": ..., "ndcg@10": ..., "mrr@10": ..., "recall@20": ...}``."""
    found: dict[str, float] = {}
    for k in ks:
        for metric in (RecallAt([k]), NDCGAt([k]), MeanReciprocalRankAt([k])):
            found[f"{metric.name}@{k}"] = float(metric.from_ranks(ranks)[0]) if len(ranks) else 0.0
    return found


def metrics_by_row(ranks: Tensor, ks: Sequence[int] = (10, 20)) -> dict[str, Tensor]:
    """Metrics of each rank by itself: what `summary` is the mean of.

    Parameters
    ----------
    ranks : Tensor [N]
        As of `rank_of`, of one relevant item a row; NaN where there is nothing to measure.
    ks : sequence of int
        Cut-offs.

    Returns
    -------
    dict of Tensor [N], float64
        ``recall@k`` (also the hit rate), ``ndcg@k``, ``mrr@k`` and ``map@k`` for each k; NaN where the rank is. With
        one relevant item, ``map@k`` is ``mrr@k``.
    """
    found = {}
    for k in ks:
        for metric in (RecallAt([k]), NDCGAt([k]), MeanReciprocalRankAt([k])):
            found[f"{metric.name}@{k}"] = metric.rows(ranks)[:, 0].masked_fill(ranks.isnan(), float("nan"))
        found[f"map@{k}"] = AvgPrecisionAt([k]).rows(ranks)[:, 0].masked_fill(ranks.isnan(), float("nan"))
    return found
