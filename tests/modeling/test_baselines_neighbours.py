"""Nearest sessions, against the formulas written out for one session after the other."""

import math
from collections.abc import Callable

import pytest
import torch

import modeling as tr
from modeling.baselines import BASELINES, STAN, VSTAN, TrainingWindow, VSkNN

from .counting import sessions


def test_v_sknn_by_hand() -> None:
    train = sessions([3, 4, 5], [4, 6], [7, 6])
    (scores,) = VSkNN(TrainingWindow(train, "item_id", 9, 3)).scores(torch.tensor([[3, 4, 0]]))
    # The first shares 3 (weight 1/2) and 4 (weight 1), the second 4; both match at the last item; the third nothing.
    assert scores[3:8].tolist() == pytest.approx([1.5 / 2.5, 1, 1.5 / 2.5, 1 / 2.5, 0], abs=1e-6)
    assert scores[8] < scores[7] < 1e-6  # popularity for what no neighbour has
    (earlier,) = VSkNN(TrainingWindow(train, "item_id", 9, 3)).scores(torch.tensor([[4, 8, 0]]))
    (half,) = VSkNN(TrainingWindow(train, "item_id", 9, 3)).scores(torch.tensor([[4, 2, 0]]))
    assert torch.allclose(earlier, half)  # an item without neighbours, or unknown, only takes a place


def test_v_sknn_matches_late_items_first() -> None:
    train = sessions([3, 5], [4, 6])
    (scores,) = VSkNN(TrainingWindow(train, "item_id", 7, 3), power=2, match_power=1).scores(torch.tensor([[3, 4]]))
    assert (scores[5] / scores[6]).item() == pytest.approx(0.25 / 2, abs=1e-6)


def test_only_the_latest_are_looked_at() -> None:
    train = sessions([3, 4, 5], [3, 6], [3, 7])
    times = torch.tensor([2.0, 0.0, 1.0])
    (scores,) = VSkNN(TrainingWindow(train, "item_id", 8, 3, times), neighbours=5, sample=2).scores(
        torch.tensor([[4, 3]])
    )
    assert scores[5] > scores[7] > 0.1
    assert scores[6] < 1e-6
    (nearest,) = VSkNN(TrainingWindow(train, "item_id", 8, 3, times), neighbours=1, sample=3).scores(
        torch.tensor([[4, 3]])
    )
    assert nearest[5] > 0.1
    assert (nearest[[6, 7]] < 1e-6).all()


def test_of_equally_similar_sessions_the_latest_votes() -> None:
    train = sessions([3, 4], [3, 5], [3, 6])
    times = torch.tensor([1.0, 2.0, 0.0])
    (scores,) = VSkNN(TrainingWindow(train, "item_id", 8, 3, times), neighbours=1).scores(torch.tensor([[3]]))
    assert scores[5] > 0.1
    assert (scores[[4, 6]] < 1e-6).all()


def test_stan_by_hand() -> None:
    train = sessions([3, 4, 5], [4, 6])
    times = torch.tensor([0.0, 4.0])
    model = STAN(TrainingWindow(train, "item_id", 8, 3, times), position_decay=1.0, days_decay=2.0, distance_decay=1.0)
    (scores,) = model.scores(torch.tensor([[3, 4]]))
    first = (math.exp(-1) + 1) / math.sqrt(2 * 3) * math.exp(-2)
    second = 1 / math.sqrt(2 * 2)
    wanted = {3: first / math.e, 4: first + second, 5: first / math.e, 6: second / math.e}
    for item, score in wanted.items():
        assert scores[item].item() == pytest.approx(score / wanted[4], abs=1e-6)
    assert torch.isinf(scores[:3]).all()


def test_votes_of_very_old_neighbours_still_count() -> None:
    model = STAN(TrainingWindow(sessions([3, 4], [5, 6]), "item_id", 8, 3, torch.tensor([0.0, 2000.0])), days_decay=5.0)
    (scores,) = model.scores(torch.tensor([[3]]))
    assert scores[4] > 0.1


def _by_hand(rows: list[list[int]], times: list[float], query: list[int], size: int, options: dict[str, float]) -> list:
    """VSTAN, a session and an item at a time."""
    scores = [0.0] * size
    place = {item: number for number, item in enumerate(query, 1) if item >= 3}
    for row, time in zip(rows, times, strict=True):
        theirs = {item: number for number, item in enumerate(row) if item >= 3}
        common = set(place) & set(theirs)
        if not common:
            continue
        similar = sum(math.exp((place[i] - len(query)) / options["position_decay"]) for i in common)
        similar /= math.sqrt(len(place) * len(theirs))
        similar *= math.exp(-(max(times) - time) / options["days_decay"])
        last = max(common, key=lambda i: place[i])
        similar *= math.exp(-(len(query) - place[last]) / options["match_decay"])
        for item, number in theirs.items():
            rare = math.log(len(rows) / sum(item in other for other in rows))
            close = math.exp(-abs(number - theirs[last]) / options["distance_decay"])
            scores[item] += similar * close * (1 + options["rarity_weight"] * rare)
    return scores


def test_vstan_equals_its_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(2, 20, (n,), generator=generator).tolist() for n in (2, 3, 7, 5, 4, 6, 2, 8, 3, 3)]
    times = [5.0, 1.0, 3.0, 0.0, 8.0, 2.5, 9.0, 4.0, 7.0, 6.0]
    options = {
        "position_decay": 0.8,
        "days_decay": 6.0,
        "distance_decay": 1.7,
        "match_decay": 1.3,
        "rarity_weight": 0.5,
    }
    model = VSTAN(TrainingWindow(sessions(*rows), "item_id", 20, 3, torch.tensor(times)), **options)
    queries = [torch.randint(2, 20, (n,), generator=generator).tolist() for n in (1, 5, 9, 3)]
    padded = torch.tensor([query + [0] * (9 - len(query)) for query in queries])
    for query, scores in zip(queries, model.scores(padded), strict=True):
        wanted = torch.tensor(_by_hand(rows, times, query, 20, options), dtype=torch.double)
        assert torch.allclose(scores[3:], wanted[3:] / wanted.max().clamp(min=1e-300), atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_neither_batch_mates_nor_padding_nor_chunks_matter(
    name: str, sessions_of: Callable[..., tr.Sessions], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = sessions_of(60, 12, 3, 0)
    model = BASELINES[name](TrainingWindow(train, "item_id", 16, 3, torch.arange(60).double()))
    items = torch.tensor([[3, 4, 5, 0], [7, 0, 0, 0], [2, 15, 2, 9], [0, 0, 0, 0]])
    scores = model.scores(items)
    assert torch.isinf(scores[:, :3]).all()
    assert torch.isfinite(scores[:, 3:]).all()
    assert torch.allclose(model.scores(items[:1, :3]), scores[:1], atol=0, rtol=1e-9)
    monkeypatch.setattr("modeling.baselines.neighbours._AT_ONCE", 1)
    assert torch.equal(model.scores(items), scores)
