"""Popularity and rules on sessions small enough to count by hand."""

import math

import pytest
import torch

from modeling.baselines import (
    ItemKNN,
    MarkovChain,
    RecentPopularity,
    SequentialRules,
    SessionPopularity,
    TrainingWindow,
)

from .counting import TRAIN, order, sessions


def test_popularity_of_the_last_days_and_then_of_all() -> None:
    times = torch.tensor([0.0, 1.0, 2.0, 9.5, 10.0])
    (scores,) = RecentPopularity(TrainingWindow(TRAIN, "item_id", 7, 3, times), days=1).scores(torch.tensor([[3]]))
    # The last two sessions hold 4, 5 and 3 once each; of all, 3 is the most frequent; 6 was never seen.
    assert scores.floor()[3:].tolist() == [1, 1, 1, 0]
    assert order(scores)[:1] == [3]
    assert scores[4] == scores[5] > scores[6]
    (narrow,) = RecentPopularity(TrainingWindow(TRAIN, "item_id", 7, 3, times), days=0.25).scores(torch.tensor([[3]]))
    assert narrow.floor()[3:].tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="times"):
        RecentPopularity(TrainingWindow(TRAIN, "item_id", 7, 3))


def test_the_sessions_own_items_come_first() -> None:
    model = SessionPopularity(TrainingWindow(TRAIN, "item_id", 8, 3))
    scores = model.scores(torch.tensor([[6, 4, 6, 5, 0], [7, 0, 0, 0, 0], [2, 0, 0, 0, 0]]))
    # 6 twice; 5 came after 4; then the popular 3, then 7 that nobody saw.
    assert order(scores[0])[:5] == [6, 5, 4, 3, 7]
    assert order(scores[1])[:2] == [7, 3]
    assert order(scores[2])[0] == 3
    assert torch.isinf(scores[:, :3]).all()


def test_markov_probabilities_add_up_to_one() -> None:
    scores = MarkovChain(TrainingWindow(TRAIN, "item_id", 7, 3), prior=2.0).scores(torch.tensor([[4, 3], [6, 0]]))
    # Known events: 3 four times, 4 and 5 three times. After 3: 4 twice, 5 once.
    wanted = [(0 + 2 * 0.4) / 5, (2 + 2 * 0.3) / 5, (1 + 2 * 0.3) / 5, 0]
    assert scores[0, 3:].tolist() == pytest.approx(wanted)
    assert scores[1, 3:].tolist() == pytest.approx([0.4, 0.3, 0.3, 0])
    assert scores[:, 3:].sum(1).tolist() == pytest.approx([1, 1])


def test_sequential_rules_weigh_by_distance() -> None:
    train = sessions([3, 4, 5, 6], [3, 5], [2, 3, 2, 6])
    (scores,) = SequentialRules(TrainingWindow(train, "item_id", 7, 3), steps=2).scores(torch.tensor([[5, 3]]))
    # 3 -> 4: 1; 3 -> 5: 1/2 + 1; 3 -> 6: not at three steps, 1/2 in the last session across an unknown item.
    assert scores[3:].tolist() == pytest.approx([0, 1, 1.5, 0.5], abs=1e-6)
    far = SequentialRules(TrainingWindow(train, "item_id", 7, 3), steps=3).scores(torch.tensor([[3]]))
    assert far[0, 6].item() == pytest.approx(1 / 3 + 1 / 2, abs=1e-6)
    assert torch.isinf(far[:, :3]).all()


def test_item_knn_is_a_damped_cosine() -> None:
    train = sessions([3, 4, 3], [4, 3], [3, 5], [2, 5], [6])
    model = ItemKNN(TrainingWindow(train, "item_id", 7, 3), damping=1.0)
    (scores,) = model.scores(torch.tensor([[5, 3]]))
    # Sessions with 3: three, 4: two, 5: two; with 3 and 4: two, with 3 and 5: one.
    assert scores[4].item() == pytest.approx(2 / math.sqrt(4 * 3), abs=1e-6)
    assert scores[5].item() == pytest.approx(1 / math.sqrt(4 * 3), abs=1e-6)
    assert scores[3].item() < 1e-6  # not a neighbour of its own
    (nearest,) = ItemKNN(TrainingWindow(train, "item_id", 7, 3), neighbours=1, damping=1.0).scores(torch.tensor([[3]]))
    assert nearest[4] == scores[4]
    assert nearest[5].item() < 1e-6


def test_item_knn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    train = sessions(*torch.randint(3, 30, (40, 6), generator=generator).tolist())
    whole = ItemKNN(TrainingWindow(train, "item_id", 30, 3), neighbours=5).rules.toarray()
    monkeypatch.setattr("modeling.baselines.rules._PAIRS_AT_ONCE", 90)
    blocks = ItemKNN(TrainingWindow(train, "item_id", 30, 3), neighbours=5).rules.toarray()
    assert (whole == blocks).all()
    assert (whole > 0).sum(1).max() == 5
