"""Which sessions come when, worked out from numbers of rows alone: no data is read, so a pass can be taken up anywhere.

A row group is cut into pieces that are read at once. A pass has the pieces in some order (`schedule`); a session's
place in that order is its position. `windows` says which positions are handed out together. The data's lengths matter
only afterwards, inside a window (`modeling.loading.batching`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Rows of a row group that are read together.

    Attributes
    ----------
    part : int
        Which row group, counted over all files.
    start, rows : int
        Its rows ``start`` to ``start + rows - 1``.
    """

    part: int
    start: int
    rows: int


@dataclass(frozen=True)
class Window:
    """Sessions that are handed out together.

    Attributes
    ----------
    chosen : Tensor [W], int64
        Their positions, in random order.
    held : Tensor [N], int64
        All positions from which they were chosen, ascending: what must be in memory.
    entered : int
        Every position below it is held now, or was handed out.
    last : bool
        Whether the pass ends with it.
    """

    chosen: Tensor
    held: Tensor
    entered: int
    last: bool

    def needs(self, at: int, piece: Piece, end: int) -> bool:
        """Whether a piece, whose first row has position `at`, has sessions of this window or of later ones."""
        place = torch.searchsorted(self.held, torch.tensor([at, at + piece.rows]))
        return bool(place[1] > place[0]) or (at < end and at + piece.rows > self.entered)


def generator(*numbers: int) -> torch.Generator:
    """A random generator of its own for each sequence of numbers."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)


def pieces_of(rows: Sequence[int], largest: int) -> list[list[Piece]]:
    """Each row group as pieces of about the same size, of `largest` rows at most; none of an empty one."""
    found = []
    for part, n in enumerate(rows):
        size = -(-n // -(-n // largest)) if n else 1
        found.append([Piece(part, start, min(size, n - start)) for start in range(0, n, size)])
    return found


def schedule(parts: Sequence[Sequence[Piece]], lanes: int, random: torch.Generator | None) -> list[Piece]:
    """The pieces of a pass.

    Parameters
    ----------
    parts : sequence of sequences of Piece
        Each row group's, in the order in which they can be read.
    lanes : int
        Row groups that are open at a time. The next piece comes from any of them; when one is through, the next opens.
    random : torch.Generator, optional
        Row groups in random order; without it everything comes in the order of the files.
    """
    if random is None:
        return [piece for part in parts for piece in part]
    waiting = [list(parts[i]) for i in torch.randperm(len(parts), generator=random).tolist() if parts[i]]
    waiting.reverse()
    open_: list[list[Piece]] = []
    found = []
    while waiting or open_:
        while waiting and len(open_) < lanes:
            open_.append(waiting.pop())
        lane = int(torch.randint(len(open_), (1,), generator=random))
        found.append(open_[lane].pop(0))
        if not open_[lane]:
            del open_[lane]
    return found


def windows(first: int, end: int, buffer_size: int, step: int, random: torch.Generator | None) -> Iterator[Window]:
    """Positions ``first`` to ``end - 1``, each once.

    A buffer holds `buffer_size` positions. `step` of them are drawn at random and replaced by the next ones, so that a
    session may stay for several windows: what is drawn together comes from further apart than the buffer is long.

    Parameters
    ----------
    first, end : int
        The positions.
    buffer_size, step : int
        Of the buffer, and of a window; the last windows may have fewer.
    random : torch.Generator, optional
        Draws; without it the positions come in order.
    """
    entered = min(end, first + buffer_size)
    held = torch.arange(first, entered)
    while len(held):
        left = torch.ones(len(held), dtype=torch.bool)
        drawn = torch.arange(len(held)) if random is None else torch.randperm(len(held), generator=random)
        drawn = drawn[:step]
        left[drawn] = False
        yield Window(held[drawn], held, entered, len(held) <= step and entered == end)
        more = min(end, entered + len(drawn))
        held = torch.cat([held[left], torch.arange(entered, more)])
        entered = more
