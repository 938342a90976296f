"""Metrics against values computed by hand."""

import math

import pytest
import torch

import modeling as tr
from modeling.ranking_metric import rank_of, summary

INF = float("inf")


def test_metrics_of_known_ranks() -> None:
    ranks = torch.tensor([1.0, 2.0, 4.0, INF])
    assert tr.RecallAt([1, 2, 4]).from_ranks(ranks).tolist() == [0.25, 0.5, 0.75]
    assert tr.MeanReciprocalRankAt([2, 4]).from_ranks(ranks).tolist() == [1.5 / 4, 1.75 / 4]
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


def test_what_cannot_be_recommended_is_never_hit() -> None:
    nan = float("nan")
    scores = torch.tensor([[-INF, -INF, 1.0], [nan, 0.0, 1.0], [nan, nan, nan]])
    assert rank_of(scores, torch.tensor([0, 0, 1])).tolist() == [INF, INF, INF]
    assert rank_of(scores[1:2], torch.tensor([2])).item() == 2  # the NaN counts as better
    assert summary(torch.tensor([INF]), [20])["recall@20"] == 0


def test_metrics_take_ids_or_one_hot_labels() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.9, 0.5]])
    labels = torch.tensor([2, 0])
    metric = tr.NDCGAt(top_ks=[1, 2], labels_onehot=True)
    assert torch.equal(metric(scores, labels), metric(scores, torch.nn.functional.one_hot(labels, 3)))
    assert metric(scores, labels).tolist() == pytest.approx([0, 1 / math.log2(3)])


def test_summary_names() -> None:
    assert set(summary(torch.tensor([1.0]))) == {f"{m}@{k}" for m in ("recall", "ndcg", "mrr") for k in (10, 20)}
