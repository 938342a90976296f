"""Orders and batches, by hand."""

import pytest
import torch

from modeling.loading.batching import batches_of, by_events, spread
from modeling.loading.order import Piece, generator, pieces_of, schedule, windows


def test_row_groups_are_cut_into_pieces_of_about_the_same_size() -> None:
    assert pieces_of([10, 0, 4], 4) == [[Piece(0, 0, 4), Piece(0, 4, 4), Piece(0, 8, 2)], [], [Piece(2, 0, 4)]]
    assert pieces_of([5], 4) == [[Piece(0, 0, 3), Piece(0, 3, 2)]]


@pytest.mark.parametrize("lanes", [1, 3, 50])
def test_a_row_group_is_read_from_front_to_back_and_few_are_open(lanes: int) -> None:
    parts = pieces_of([40, 0, 12, 33, 8, 21, 5], 5)
    order = schedule(parts, lanes, generator(1))
    assert sorted(order, key=lambda piece: (piece.part, piece.start)) == [piece for part in parts for piece in part]
    begun: dict[int, int] = {}
    for piece in order:
        assert piece.start == begun.get(piece.part, 0)
        begun[piece.part] = piece.start + piece.rows
        assert sum(0 < rows < [40, 0, 12, 33, 8, 21, 5][part] for part, rows in begun.items()) <= lanes
    assert schedule(parts, lanes, generator(1)) == order
    assert schedule(parts, lanes, generator(2)) != order
    assert schedule(parts, lanes, None) == [piece for part in parts for piece in part]


def test_windows_in_order() -> None:
    found = [(w.chosen.tolist(), w.held.tolist(), w.entered, w.last) for w in windows(3, 10, 4, 2, None)]
    assert found == [
        ([3, 4], [3, 4, 5, 6], 7, False),
        ([5, 6], [5, 6, 7, 8], 9, False),
        ([7, 8], [7, 8, 9], 10, False),
        ([9], [9], 10, True),
    ]


@pytest.mark.parametrize("buffer_size", [1, 7, 20, 1000])
def test_windows_draw_each_position_once_and_far_apart(buffer_size: int) -> None:
    seen: list[int] = []
    for window in windows(5, 405, buffer_size, max(1, buffer_size // 2), generator(0)):
        assert len(window.held) <= buffer_size
        assert set(window.chosen.tolist()) <= set(window.held.tolist())
        assert set(window.held.tolist()) | set(seen) == set(range(5, window.entered))
        seen += window.chosen.tolist()
        assert window.last == (len(seen) == 400)
    assert sorted(seen) == list(range(5, 405))
    late = max(place - position + 5 for place, position in enumerate(seen))
    assert late > buffer_size or buffer_size in (1, 1000), "some stay for longer than a buffer's length"


def test_batches_of_events_by_hand() -> None:
    lengths = torch.tensor([3, 1, 2, 9, 2, 2, 0])
    # 2 x 3, then 1 x 2 and the 9 alone, 3 x 2: 6 cells at most.
    found = by_events(torch.arange(7), lengths, 6)
    assert [batch.tolist() for batch in found] == [[0, 1], [2], [3], [4, 5, 6]]
    assert by_events(torch.arange(0), lengths, 6) == []


def test_batches_of_like_length_by_hand() -> None:
    lengths = torch.tensor([5, 1, 3, 1, 5])
    found = batches_of(lengths, 2, None, True, None)
    assert [batch.tolist() for batch in found] == [[1, 3], [2, 0], [4]]
    found = batches_of(lengths, 2, None, False, None)
    assert [batch.tolist() for batch in found] == [[0, 1], [2, 3], [4]]
    mixed = batches_of(lengths, 2, None, True, generator(5))
    assert sorted(batch.tolist() for batch in mixed) == [[1, 3], [2, 0], [4]]


def test_batches_are_halved_until_there_are_enough() -> None:
    batches = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    assert [batch.tolist() for batch in spread(batches, 2)] == [[1, 2, 3], [4]]
    assert [batch.tolist() for batch in spread(batches, 3)] == [[1, 2], [3], [4]]
    assert [batch.tolist() for batch in spread(batches, 5)] == [[1], [1], [2], [3], [4]]
