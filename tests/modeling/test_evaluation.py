"""Ranks, metrics, groups and lists against values computed by hand, on a catalogue of four items."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from modeling.baselines import Cooccurrence, TrainingWindow
from modeling.data import Sessions
from modeling.evaluation import (
    Exposure,
    all_items,
    all_ranks,
    break_down,
    coverage,
    figures,
    gini,
    last_items,
    length_groups,
    mean_popularity,
    percentiles,
    popularity_groups,
    prefixes,
    ranks,
    scoring,
)
from modeling.ranking_metric import metrics_by_row, rank_of, summary
from modeling.schema import Feature

INF, NAN = float("inf"), float("nan")
ITEM = Feature("item_id", "categorical", 7, 3, True)


def sessions(*rows: list[int]) -> Sessions:
    offsets = torch.tensor([0] + [len(row) for row in rows]).cumsum(0)
    return Sessions({"item_id": torch.tensor([item for row in rows for item in row])}, offsets)


def same_for_all(past: dict[str, Tensor]) -> Tensor:
    """4 and 5 are equally good, then 3, then 6."""
    return torch.tensor([-INF, -INF, -INF, 1.0, 2.0, 2.0, 0.0]).repeat(len(past["item_id"]), 1)


# A tie, the worst item, the item before it once more, an unknown one, nothing to predict from, one without a tie.
WINDOW = sessions([3, 4], [5, 6], [4, 4], [3, 2], [6], [6, 3])


def equal(found: Tensor, expected: list[float]) -> bool:
    return torch.equal(found.nan_to_num(nan=-1), torch.tensor(expected).nan_to_num(nan=-1))


def test_ranks_of_ties_struck_and_unknown_targets() -> None:
    assert equal(ranks(same_for_all, WINDOW, ITEM, 8, "none"), [1.5, 4, 1.5, NAN, NAN, 3])
    assert equal(ranks(same_for_all, WINDOW, ITEM, 8, "last"), [1.5, 3, INF, NAN, NAN, 3])


def test_metrics_of_every_session() -> None:
    found = metrics_by_row(ranks(same_for_all, WINDOW, ITEM, 8, "last"), [1, 2, 3])
    assert list(found)[:4] == ["recall@1", "ndcg@1", "mrr@1", "map@1"]
    assert equal(found["recall@1"].float(), [0, 0, 0, NAN, NAN, 0])
    assert equal(found["recall@2"].float(), [1, 0, 0, NAN, NAN, 0])
    assert equal(found["recall@3"].float(), [1, 1, 0, NAN, NAN, 1])
    assert equal(found["ndcg@3"].float(), [1 / math.log2(2.5), 0.5, 0, NAN, NAN, 0.5])
    assert equal(found["mrr@3"].float(), [1 / 1.5, 1 / 3, 0, NAN, NAN, 1 / 3])
    assert equal(found["map@3"].float(), [1 / 1.5, 1 / 3, 0, NAN, NAN, 1 / 3])


def test_the_summary_is_the_mean_over_the_measured_sessions() -> None:
    own = ranks(same_for_all, WINDOW, ITEM, 8, "none")
    rows = metrics_by_row(own, [1, 2])
    assert summary(own[~own.isnan()], [1, 2]) == pytest.approx(
        {name: float(value.nanmean()) for name, value in rows.items() if not name.startswith("map")}
    )


def test_targets_are_those_that_are_ranked() -> None:
    window = sessions([3, 4, 5, 6], [5], [6, 2, 3])
    last = last_items(window, "item_id", 3)
    assert (last.session.tolist(), last.seen.tolist(), last.item.tolist()) == ([0, 1, 2], [2, 0, 2], [6, 5, 3])
    every = all_items(window, "item_id", 3)
    assert every.session.tolist() == [0, 0, 0, 2, 2]
    assert every.seen.tolist() == [1, 2, 2, 1, 2]
    assert every.item.tolist() == [4, 5, 6, 2, 3]
    assert equal(all_ranks(same_for_all, window, ITEM, 3), [1.5, 1.5, 4, NAN, 3])


def test_prefixes_by_hand() -> None:
    window = sessions([3, 4, 5, 6], [5], [6, 3])
    window.values["price"] = torch.tensor([0.3, 0.4, 0.5, 0.6, 5.0, 0.6, 0.3])
    window.values["country"] = torch.tensor([7, 8, 9])
    found = prefixes(Sessions(window.values, window.offsets, frozenset({"country"})), torch.tensor([0, 1, 2]), 3)
    assert found.offsets.tolist() == [0, 2, 5, 8, 10]
    assert found.values["item_id"].tolist() == [3, 4, 3, 4, 5, 4, 5, 6, 6, 3]
    assert found.values["price"].tolist() == pytest.approx([0.3, 0.4, 0.3, 0.4, 0.5, 0.4, 0.5, 0.6, 0.6, 0.3])
    assert found.values["country"].tolist() == [7, 7, 7, 9]


@pytest.mark.parametrize("at_once", [1, 30, 1 << 20])
@pytest.mark.parametrize("cell", [("gpt2", "clm"), ("xlnet", "mlm")], ids="-".join)
def test_all_next_items_equal_each_prefix_by_itself(
    cell: Any, make: Any, batch_of: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against scores of the very prefix, without anything of `ranks`: nothing leaks from the events behind it."""
    monkeypatch.setattr(scoring, "_EVENTS_AT_ONCE", at_once)
    model, limit = make(*cell), 5
    lengths = [7, 1, 3, 2, 6]
    columns = batch_of(lengths)
    kept = torch.arange(7) < torch.tensor(lengths)[:, None]
    window = Sessions({name: column[kept] for name, column in columns.items()}, torch.tensor([0, *lengths]).cumsum(0))
    item = next(feature for feature in model.features if feature.item)
    found = all_ranks(model, window, item, limit, "last", batch_size=3)
    expected = []
    for row, length in enumerate(lengths):
        for cut in range(1, length):
            past = {name: column[row : row + 1, max(0, cut + 1 - limit) : cut] for name, column in columns.items()}
            scores = model(past).detach().clone()
            scores[0, columns["item_id"][row, cut - 1]] = -INF
            expected.append(float(rank_of(scores, columns["item_id"][row, cut : cut + 1])))
    assert len(found) == 6 + 0 + 2 + 1 + 5
    assert found.tolist() == expected


def test_all_next_items_end_with_the_last_ones() -> None:
    train = sessions([3, 4, 5], [3, 4], [3, 5], [2, 4], [5, 3, 6])
    baseline = Cooccurrence(TrainingWindow(train, "item_id", 7, 3))
    window = sessions([3, 4, 5, 3], [6, 5], [4, 2, 3])

    def scores(past: dict[str, Tensor]) -> Tensor:
        return baseline.scores(past["item_id"])

    every = all_ranks(scores, window, ITEM, 8, "last")
    assert equal(every[torch.tensor([2, 3, 5])], ranks(scores, window, ITEM, 8, "last").tolist())


def test_groups_by_what_was_seen() -> None:
    seen = torch.tensor([0, 1, 2, 3, 4, 5, 9, 10, 50])
    assert length_groups(seen).tolist() == [-1, 0, 1, 2, 2, 3, 3, 4, 4]


def test_thirds_of_the_training_events() -> None:
    # Nine events without those of the unknown id 2: 5 of item 3, then 2 and 2, then none.
    assert popularity_groups(torch.tensor([0, 0, 100, 5, 2, 2, 0]), 3)[3:].tolist() == [0, 1, 1, 2]
    assert popularity_groups(torch.tensor([0, 0, 0, 1, 2, 3, 3]), 3)[3:].tolist() == [2, 2, 0, 0]
    # The equally popular stay together, in whatever order they are.
    assert popularity_groups(torch.tensor([0, 0, 0, 1, 1, 1, 1]), 3)[3:].tolist() == [0, 0, 0, 0]


def test_a_breakdown_by_hand() -> None:
    values = {"model": {"recall@2": torch.tensor([1.0, 1.0, 0.0, 0.5])}, "other": {"recall@2": torch.zeros(4)}}
    found = break_down(values, torch.tensor([0, 0, 2, 0]), ("a", "b", "c"))
    assert {name: group["targets"] for name, group in found.items()} == {"a": 3, "c": 1}
    assert found["a"]["intervals"]["model"]["recall@2"]["mean"] == pytest.approx(2.5 / 3)
    assert found["c"]["intervals"]["model"]["recall@2"] == {"mean": 0, "low": 0, "high": 0}
    assert found["a"]["intervals"]["other"]["recall@2"] == {"mean": 0, "low": 0, "high": 0}


def test_figures_of_sessions_with_several_targets_weigh_targets_alike() -> None:
    values = {"model": {"recall@2": torch.tensor([1.0, 1.0, 1.0, 0.0])}}
    found = figures(values, torch.tensor([4, 4, 4, 9]))["model"]["recall@2"]
    assert found["mean"] == pytest.approx(0.75)
    # Two sessions: a draw has the first alone, the second alone, or both.
    assert (found["low"], found["high"]) == (0, 1)


def test_exposure_coverage_and_gini_by_hand() -> None:
    exposure = Exposure(7, [1, 2])
    exposure.add(torch.tensor([[-INF, -INF, -INF, 4.0, 3.0, 2.0, 1.0]]))
    exposure.add(torch.tensor([[-INF, -INF, -INF, 1.0, -INF, -INF, -INF]]))  # a list that is too short
    exposure.add(torch.empty(0, 7))
    assert exposure.counts.tolist() == [[0, 0, 0, 2, 0, 0, 0], [0, 0, 0, 2, 1, 0, 0]]
    one, two = exposure.counts
    assert (coverage(one, 3), coverage(two, 3)) == (0.25, 0.5)
    assert gini(one, 3) == pytest.approx(0.75)  # one of four has all: 1 - 1/4
    assert gini(two, 3) == pytest.approx(7 / 12)
    assert gini(torch.tensor([0, 0, 0, 5, 5, 5, 5]), 3) == 0
    assert gini(torch.zeros(7, dtype=torch.long), 3) == coverage(torch.zeros(7, dtype=torch.long), 3) == 0


def test_popularity_by_hand() -> None:
    train = torch.tensor([0, 0, 100, 5, 2, 2, 0])
    found = percentiles(train, 3)
    assert found.tolist() == [0, 0, 0, 0.875, 0.5, 0.5, 0.125]
    assert mean_popularity(torch.tensor([0, 0, 0, 2, 1, 0, 0]), found) == 0.75
    # Whoever recommends everything alike is at one half.
    assert mean_popularity(torch.tensor([0, 0, 0, 3, 3, 3, 3]), found) == 0.5


def test_lists_are_counted_for_the_measured_sessions_only() -> None:
    exposure = Exposure(7, [1])
    ranks(same_for_all, WINDOW, ITEM, 8, "seen", exposure=exposure)
    # Four sessions have a rank; 4 is struck of [4, 4], 5 of [5, 6].
    assert int(exposure.counts.sum()) == 4
    assert int(exposure.counts[0, 4:6].sum()) == 4


def test_sessions_of_a_group_are_drawn_whole() -> None:
    values = {"model": {"recall@2": torch.tensor([1.0, 1.0, 0.0, 0.0])}}
    groups, session = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 2, 2, 3])
    found = break_down(values, groups, ("a", "b"), session)
    # The first group has a target of each of two sessions, the second two of one session: nothing to draw from.
    assert found["a"]["intervals"]["model"]["recall@2"] == {"mean": 0.5, "low": 0, "high": 1}
    assert found["b"]["intervals"]["model"]["recall@2"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
