"""Which items are left, and the best of them."""

import pytest
import torch

from modeling.ranking import best, restrict, strike

INF = float("inf")
SCORES = torch.tensor([[-INF, 5.0, 4.0, 3.0, 2.0], [-INF, 1.0, 2.0, 3.0, 4.0]])
ITEMS = torch.tensor([[1, 2, 1], [4, 0, 0]])


def ids(scores: torch.Tensor, k: int = 4) -> list[list[int]]:
    return best(scores, k)[1].tolist()


def test_items_of_the_session_are_struck() -> None:
    assert ids(strike(SCORES, ITEMS, "none")) == [[1, 2, 3, 4], [4, 3, 2, 1]]
    assert ids(strike(SCORES, ITEMS, "last")) == [[2, 3, 4, 0], [3, 2, 1, 0]]
    assert ids(strike(SCORES, ITEMS, "seen")) == [[3, 4, 0, 0], [3, 2, 1, 0]]
    nothing = torch.zeros(2, 1, dtype=torch.long)
    assert ids(strike(SCORES, nothing, "last")) == ids(strike(SCORES, nothing, "seen")) == ids(SCORES)


def test_lists_of_items() -> None:
    assert ids(restrict(SCORES, torch.tensor([1, 4]), None)) == [[2, 3, 0, 0], [3, 2, 0, 0]]
    assert ids(restrict(SCORES, None, torch.tensor([1, 4]))) == [[1, 4, 0, 0], [4, 1, 0, 0]]
    each = torch.tensor([[1, 2], [3, 0]])  # 0 fills up
    assert ids(restrict(SCORES, each, None)) == [[3, 4, 0, 0], [4, 2, 1, 0]]
    assert ids(restrict(SCORES, None, each)) == [[1, 2, 0, 0], [3, 0, 0, 0]]
    # What is on both lists is not recommended, and padding never is.
    assert ids(restrict(SCORES, torch.tensor([1]), each)) == [[2, 0, 0, 0], [3, 0, 0, 0]]
    assert ids(restrict(SCORES, None, torch.tensor([], dtype=torch.long))) == [[0] * 4, [0] * 4]
    assert torch.equal(restrict(SCORES, None, None), SCORES)


def test_lists_are_checked() -> None:
    with pytest.raises(ValueError, match="not in the catalogue"):
        restrict(SCORES, torch.tensor([5]), None)
    with pytest.raises(ValueError, match="not in the catalogue"):
        restrict(SCORES, None, torch.tensor([-1]))
    with pytest.raises(ValueError, match="row for each session"):
        restrict(SCORES, torch.ones(3, 1, dtype=torch.long), None)


def test_the_best_are_filled_up() -> None:
    scores, found = best(SCORES, 7)
    assert found.tolist() == [[1, 2, 3, 4, 0, 0, 0], [4, 3, 2, 1, 0, 0, 0]]
    assert scores[0].tolist() == [5, 4, 3, 2, -INF, -INF, -INF]
    with pytest.raises(ValueError, match="k must be at least 1"):
        best(SCORES, 0)
