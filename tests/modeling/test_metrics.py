"""Metrics against values computed by hand, and against torchmetrics."""

import math
from typing import Any

import pytest
import torch
from torchmetrics.functional import retrieval

import modeling as tr
from modeling import ranking_metric as ranking
from modeling.ranking_metric import rank_of, ranks_of_many, summary

INF = float("inf")
ALL = [
    ranking.PrecisionAt,
    ranking.RecallAt,
    ranking.AvgPrecisionAt,
    ranking.DCGAt,
    ranking.NDCGAt,
    ranking.MeanReciprocalRankAt,
]


def test_metrics_of_known_ranks() -> None:
    ranks = torch.tensor([1.0, 2.0, 4.0, INF])
    assert tr.RecallAt([1, 2, 4]).from_ranks(ranks).tolist() == [0.25, 0.5, 0.75]
    assert tr.MeanReciprocalRankAt([2, 4]).from_ranks(ranks).tolist() == [1.5 / 4, 1.75 / 4]
    assert ranking.PrecisionAt([2, 4]).from_ranks(ranks).tolist() == [2 / 2 / 4, 3 / 4 / 4]
    expected = [(1 + 1 / math.log2(3)) / 4, (1 + 1 / math.log2(3) + 1 / math.log2(5)) / 4]
    assert tr.NDCGAt([2, 4]).from_ranks(ranks).tolist() == pytest.approx(expected, abs=1e-12)


def test_ranks_of_scores() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.2]])
    assert [rank_of(scores, torch.tensor([i])).item() for i in range(4)] == [4, 1, 2, 3]


def test_ties_are_ranked_in_their_middle() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    assert [rank_of(scores, torch.tensor([i])).item() for i in range(4)] == [3, 3, 3, 1]
    # A model that says nothing gets no better than chance.
    assert rank_of(torch.zeros(1, 99), torch.tensor([7])).item() == 50


def test_several_relevant_items_share_a_tie_evenly() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    relevant = torch.tensor([[False, True, True, False, True]])
    # Behind one better item three are equal and two of them relevant: on average at 1 + 4/3 and 1 + 8/3.
    ranks, count = ranks_of_many(scores, relevant)
    assert ranks[0].tolist() == pytest.approx([1 + 4 / 3, 1 + 8 / 3, 5])
    assert count.tolist() == [3]
    # All equal and all relevant: whatever the order, they are the first.
    assert ranks_of_many(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))[0].tolist() == [[1, 2, 3]]


def test_what_cannot_be_recommended_is_never_hit() -> None:
    nan = float("nan")
    scores = torch.tensor([[-INF, -INF, 1.0], [nan, 0.0, 1.0], [nan, nan, nan]])
    assert rank_of(scores, torch.tensor([0, 0, 1])).tolist() == [INF, INF, INF]
    assert rank_of(scores[1:2], torch.tensor([2])).item() == 2  # the NaN counts as better
    assert summary(torch.tensor([INF]), [20])["recall@20"] == 0
    one_hot = torch.nn.functional.one_hot(torch.tensor([0, 0, 1]), 3).bool()
    assert ranks_of_many(scores, one_hot)[0].tolist() == [[INF], [INF], [INF]]
    assert ranks_of_many(scores[1:2], torch.tensor([[True, False, True]]))[0].tolist() == [[2, INF]]


@pytest.mark.parametrize("metric", ALL)
def test_ids_and_one_hot_labels_are_the_same(metric: Any) -> None:
    torch.manual_seed(0)
    scores = torch.randint(0, 6, (40, 9)).float()  # with many ties
    scores[:, 0] = -INF
    labels = torch.randint(0, 9, (40,))
    one_hot = torch.nn.functional.one_hot(labels, 9)
    ks = [1, 3, 5]
    expected = metric(ks)(scores, labels)
    torch.testing.assert_close(metric(ks, labels_onehot=True)(scores, one_hot), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(metric(ks)(scores.view(8, 5, 9), labels.view(8, 5)), expected)
    torch.testing.assert_close(metric(ks)(scores.view(8, 5, 9), labels), expected)
    torch.testing.assert_close(metric(ks)(scores.view(8, 5, 9), one_hot.view(8, 5, 9)), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(metric(ks)(scores, labels[:, None]), expected)
    torch.testing.assert_close(metric(ks).from_ranks(rank_of(scores, labels)), expected)


def test_one_relevant_item_by_hand() -> None:
    # Ranks 1, 3 and 4 of five items: MRR@2 = 1/3, MRR@3 = (1 + 1/3) / 3 = 4/9.
    scores = torch.tensor([[0.9, 0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.3, 0.2, 0.1], [0.5, 0.4, 0.3, 0.2, 0.1]])
    labels = torch.tensor([0, 2, 3])
    ks = [1, 2, 3, 3]
    assert tr.MeanReciprocalRankAt(ks)(scores, labels).tolist() == pytest.approx([1 / 3, 1 / 3, 4 / 9, 4 / 9])
    assert tr.RecallAt(ks)(scores, labels).tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert ranking.PrecisionAt(ks)(scores, labels).tolist() == pytest.approx([1 / 3, 1 / 6, 2 / 9, 2 / 9])


def test_several_relevant_items_by_hand() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    labels = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0]])  # ranks 1, 3, 5; and none
    ks = [1, 3, 5]
    half = 0.5  # the second row counts 0

    def value(metric: type) -> list[float]:
        return metric(ks, labels_onehot=True)(scores, labels).tolist()

    assert value(ranking.PrecisionAt) == pytest.approx([half * 1, half * 2 / 3, half * 3 / 5])
    assert value(ranking.RecallAt) == pytest.approx([half * 1 / 3, half * 2 / 3, half * 1])
    # Over min(R, k): 1/1, (1/1 + 2/3) / 3, (1/1 + 2/3 + 3/5) / 3.
    assert value(ranking.AvgPrecisionAt) == pytest.approx([half * 1, half * 5 / 9, half * (5 / 3 + 3 / 5) / 3])
    gains = [1, 1 + 1 / 2, 1 + 1 / 2 + 1 / math.log2(6)]
    assert value(ranking.DCGAt) == pytest.approx([half * gain for gain in gains])
    ideal = [1, 1 + 1 / math.log2(3) + 1 / 2, 1 + 1 / math.log2(3) + 1 / 2]
    assert value(ranking.NDCGAt) == pytest.approx([half * g / i for g, i in zip(gains, ideal, strict=True)])
    assert value(ranking.MeanReciprocalRankAt) == pytest.approx([half, half, half])


@pytest.mark.parametrize("k", [1, 3, 10, 30])
@pytest.mark.parametrize("relevant", [1, 4])
def test_equals_torchmetrics(relevant: int, k: int) -> None:
    torch.manual_seed(relevant)
    scores = torch.rand(25, 30, dtype=torch.double)  # positive: torchmetrics counts no others as retrieved
    labels = torch.zeros(25, 30, dtype=torch.long).scatter_(1, torch.rand(25, 30).argsort(1)[:, :relevant], 1)

    def theirs(function: Any) -> float:
        values = [function(s, label, top_k=k) for s, label in zip(scores, labels, strict=True)]
        return float(torch.stack(values).double().mean())

    def ours(metric: type) -> float:
        return float(metric([k], labels_onehot=True)(scores, labels)[0])

    assert ours(ranking.PrecisionAt) == pytest.approx(theirs(retrieval.retrieval_precision), abs=1e-6)
    assert ours(ranking.RecallAt) == pytest.approx(theirs(retrieval.retrieval_recall), abs=1e-6)
    assert ours(ranking.NDCGAt) == pytest.approx(theirs(retrieval.retrieval_normalized_dcg), abs=1e-6)
    assert ours(ranking.MeanReciprocalRankAt) == pytest.approx(theirs(retrieval.retrieval_reciprocal_rank), abs=1e-6)

    def over_all(s: torch.Tensor, label: torch.Tensor, top_k: int) -> torch.Tensor:
        # Theirs is the mean over the relevant items found; ours is over min(R, k), as in Transformers4Rec.
        found = retrieval.retrieval_recall(s, label, top_k=top_k) * relevant
        return retrieval.retrieval_average_precision(s, label, top_k=top_k) * found / min(relevant, top_k)

    assert ours(ranking.AvgPrecisionAt) == pytest.approx(theirs(over_all), abs=1e-6)


@pytest.mark.parametrize("metric", ALL)
def test_batches_add_up(metric: Any) -> None:
    torch.manual_seed(1)
    scores, labels = torch.randn(31, 12), torch.randint(0, 12, (31,))
    one = metric([2, 5])
    whole = metric([2, 5])(scores, labels)
    for part in (slice(0, 20), slice(20, 21), slice(21, 31), slice(31, 31)):
        one.update(scores[part], labels[part])
    torch.testing.assert_close(one.compute(), whole)
    one.reset()
    assert one.compute().isnan().all()
    # A call gives the batch's value, and adds the batch as well.
    first = one(scores[:20], labels[:20])
    assert not torch.equal(first, whole)
    one(scores[20:], labels[20:])
    torch.testing.assert_close(one.compute(), whole)


def test_memory_does_not_grow_with_the_batches() -> None:
    metric = ranking.NDCGAt([10, 20])
    for _ in range(3):
        metric.update(torch.randn(64, 500), torch.randint(0, 500, (64,)))
        kept = [value for value in vars(metric).values() if isinstance(value, torch.Tensor)]
        assert sum(value.untyped_storage().nbytes() for value in kept) == 2 * 8
        assert not [value for value in vars(metric).values() if isinstance(value, list) and value != [10, 20]]


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ranking.RecallAt([1])(torch.randn(4, 5), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="top_ks"):
        ranking.RecallAt([0])
    with pytest.raises(ValueError, match="top_ks"):
        ranking.RecallAt([])


def test_metrics_have_the_names_of_transformers4rec() -> None:
    names = ranking.ranking_metrics_registry
    assert names["map"] is names["avg_precision_at"] is ranking.AvgPrecisionAt
    assert names["mrr_at"] is names["mrr"] is ranking.MeanReciprocalRankAt
    assert {names[f"{m}_at"] for m in ("precision", "recall", "avg_precision", "dcg", "ndcg", "mrr")} == set(ALL)
    assert ranking.NDCGAt().top_ks == [2, 5]


def test_summary_names() -> None:
    assert set(summary(torch.tensor([1.0]))) == {f"{m}@{k}" for m in ("recall", "ndcg", "mrr") for k in (10, 20)}
