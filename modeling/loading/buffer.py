"""The sessions that are in memory, by their position in the pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from modeling.data import Sessions, joined
from modeling.loading.order import Piece, Window


class Buffer:
    """Takes pieces in as they are read, and gives windows out.

    Parameters
    ----------
    pieces : list of (int, Piece)
        What will be read, with the position of each piece's first row.
    read : iterator of Sessions
        Their sessions, in this order.
    first_row : Tensor [parts], int64
        The number of each row group's first session, counted over all files.
    end : int
        Positions from here on are not kept.
    window : Window
        The first that will be asked for. Of the positions that entered before, only those that it holds are kept.
    """

    def __init__(
        self, pieces: list[tuple[int, Piece]], read: Iterator[Sessions], first_row: Tensor, end: int, window: Window
    ) -> None:
        self._pieces, self._read, self._first_row, self._end, self._begin = iter(pieces), read, first_row, end, window
        self._sessions: Sessions | None = None
        self._position = self._number = torch.zeros(0, dtype=torch.long)
        self._next = next(self._pieces, None)

    def __len__(self) -> int:
        return len(self._position)

    def fill(self, entered: int) -> None:
        """Read until all positions below `entered` are here."""
        sessions = [self._sessions] if self._sessions is not None else []
        positions, numbers = [self._position], [self._number]
        while self._next is not None and self._next[0] < entered:
            (first, piece), more = self._next, next(self._read)
            self._next = next(self._pieces, None)
            row = torch.arange(piece.rows)
            wanted = self._wanted(first + row)
            if not bool(wanted.all()):
                more, row = more.where(wanted), row[wanted]
            sessions.append(more)
            positions.append(first + row)
            numbers.append(self._first_row[piece.part] + piece.start + row)
        if len(positions) > 1:
            self._sessions = joined(sessions)
            self._position, self._number = torch.cat(positions), torch.cat(numbers)

    def _wanted(self, position: Tensor) -> Tensor:
        held = self._begin.held
        later = (position >= self._begin.entered) & (position < self._end)
        place = torch.searchsorted(held, position).clamp(max=len(held) - 1)
        return later | (held[place] == position)

    def window(self, chosen: Tensor) -> tuple[Sessions, Tensor, Tensor]:
        """All sessions that are here, and which of them these positions are, and their numbers over all files."""
        assert self._sessions is not None
        row = torch.searchsorted(self._position, chosen)
        return self._sessions, row, self._number[row]

    def drop(self, row: Tensor) -> None:
        """Forget sessions that were handed out."""
        assert self._sessions is not None
        left = torch.ones(len(self), dtype=torch.bool)
        left[row] = False
        self._sessions = self._sessions.where(left)
        self._position, self._number = self._position[left], self._number[left]
