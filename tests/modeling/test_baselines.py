"""Tables of counts on five sessions."""

import torch

from modeling.baselines import Cooccurrence, Popularity, TrainingWindow

from .counting import TRAIN, order, sessions


def test_popularity_counts_every_event() -> None:
    model = Popularity(TrainingWindow(TRAIN, "item_id", 7, 3))
    # 3 four times; 4 and 5 three times; 6 never.
    (scores,) = model.scores(torch.tensor([[5, 4]]))
    assert scores[3:].tolist() == [4, 3, 3, 0]
    assert torch.isinf(scores[:3]).all()


def test_cooccurrence_counts_direct_successors_then_popularity() -> None:
    model = Cooccurrence(TrainingWindow(TRAIN, "item_id", 7, 3))
    scores = model.scores(torch.tensor([[3, 0], [4, 3], [5, 0], [6, 0], [3, 2]]))
    # After 3 came 4 twice and 5 once: not 3 itself, although it is the most popular.
    assert order(scores[0])[:2] == [4, 5]
    assert scores[0, [4, 5, 3]].floor().tolist() == [2, 1, 0]
    assert torch.equal(scores[0], scores[1])  # only the last item counts
    assert order(scores[2])[0] == 3  # a session's end and the next one's beginning are no pair
    assert scores[2, 4] < 1
    # Nothing came after 6, and 2 is unknown: popularity decides.
    for row in (3, 4):
        assert scores[row, 3] > scores[row, 4] == scores[row, 5] > scores[row, 6]
    assert torch.isinf(scores[:, :3]).all()


def test_unknown_items_are_no_pairs() -> None:
    model = Cooccurrence(TrainingWindow(sessions([2, 4], [4, 2], [4, 5]), "item_id", 7, 3))
    scores = model.scores(torch.tensor([[4]]))
    assert order(scores[0])[0] == 5
    assert model.pair_counts.tolist() == [1]
