"""Batches of sessions from parquet files that need not fit into memory.

    stream = SessionStream.of("features/train", features, batch_size=256)
    for chosen, columns in stream:      # a pass; the next `for` is the next one, in another order
        ...

Row groups come in random order, several at a time, through a buffer of bounded size. Threads read and decode them and
make the batches while the model computes. The order depends on the seed alone, not on threads or their speed, and
`state_dict` says in a few numbers how to go on in the middle of a pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.errors import UserError
from modeling.data import Sessions
from modeling.loading.ahead import made_ahead
from modeling.loading.batching import batches_of, spread
from modeling.loading.buffer import Buffer
from modeling.loading.order import generator, pieces_of, schedule, windows
from modeling.loading.parts import Part, parquet_files, parts_of, read_pieces
from modeling.schema import Feature

BUFFER_SIZE = 65_536
_SCHEDULE, _DRAW, _BATCHES = range(3)  # what random numbers are for
_UNLIMITED = 2**31


class Place(NamedTuple):
    """How far a pass is: batches given of the window that is under way."""

    epoch: int
    window: int
    batch: int


def _up(number: int, by: int) -> int:
    return -(-number // by)


class SessionStream:
    """Goes over sessions in padded batches; each ``for`` is one pass over all of them.

    Parameters
    ----------
    parts : sequence of Part
        Row groups; `of` finds those of files.
    features : sequence of Feature
        The columns to read.
    batch_size : int, optional
        Sessions a batch; the last of a pass may have fewer.
    max_events : int, optional
        Instead: sessions of a batch times the longest of them are no more than this. A longer session is alone.
    limit : int, optional
        Most recent events kept of each session; all, by default.
    shuffle : bool
        Another random order in each pass. Otherwise the order of the files.
    bucket : bool, optional
        Put sessions of like length together; by default when shuffling.
    buffer_size : int
        Sessions that are mixed. In memory are at most this many, a piece of a row group (a quarter as many) more, and
        the pieces that are read ahead: one a worker, two at least.
    open_parts : int
        Row groups that are read side by side when shuffling.
    drop_last : bool
        Leave out a last batch of fewer sessions.
    seed : int
        Of the orders.
    workers : int
        Threads that read and decode. 0: everything happens while the caller waits.
    ahead : int
        Batches that are made before they are asked for, by a thread of their own, unless `workers` is 0.
    pin_memory : bool
        Lay batches into pinned memory, from where they go to a GPU without waiting. Without a GPU it does nothing.
    rank, world_size : int
        This process and how many there are. Each session comes on one of them, and each of them makes the same number
        of batches; only where there are fewer sessions left than processes, some come twice. With a batch size every
        process reads its own share of the row groups; with `max_events` each reads all.
    reader : mapping, optional
        Keyword arguments of pyarrow.parquet.ParquetFile, such as ``memory_map``.

    Raises
    ------
    UserError
        When there are no sessions, or fewer than processes.
    ValueError
        When an argument makes no sense.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        features: Sequence[Feature],
        batch_size: int | None = None,
        max_events: int | None = None,
        limit: int | None = None,
        shuffle: bool = True,
        bucket: bool | None = None,
        buffer_size: int = BUFFER_SIZE,
        open_parts: int = 4,
        drop_last: bool = False,
        seed: int = 0,
        workers: int = 1,
        ahead: int = 2,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        reader: Mapping[str, Any] | None = None,
    ) -> None:
        if (batch_size is None) == (max_events is None):
            raise ValueError("give either batch_size or max_events")
        if drop_last and max_events is not None:
            raise ValueError("drop_last goes with batch_size: batches of max_events are never full")
        sizes = {"batch_size": batch_size, "max_events": max_events, "buffer_size": buffer_size, "limit": limit}
        for name, value in {**sizes, "open_parts": open_parts, "ahead": ahead, "world_size": world_size}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if workers < 0 or not 0 <= rank < world_size:
            raise ValueError(f"workers ({workers}) must not be negative, rank ({rank}) be below {world_size}")
        self.parts, self.features, self.limit = list(parts), list(features), limit
        self.batch_size, self.max_events, self.drop_last = batch_size, max_events, drop_last
        self.shuffle, self.bucket = shuffle, shuffle if bucket is None else bucket
        self.buffer_size, self.open_parts, self.seed = max(buffer_size, batch_size or 1), open_parts, seed
        self.workers, self.ahead, self.reader = workers, ahead, dict(reader or {})
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.rank, self.world_size = rank, world_size
        self.sessions = sum(part.rows for part in self.parts)
        if self.sessions < world_size:
            raise UserError(f"the parquet files hold {self.sessions} sessions: too few for {world_size} process(es)")
        self.most_held = 0  # the most sessions that were in memory at a time, without those that workers read ahead
        rows = [part.rows for part in self.parts]
        self._pieces = pieces_of(rows, max(1, self.buffer_size // 4))
        self._first_row = torch.tensor([0, *accumulate(rows)])
        self._limit = limit or _UNLIMITED
        self._place, self._resume = Place(0, 0, 0), False

    @classmethod
    def of(cls, paths: Any, features: Sequence[Feature], *arguments: Any, **named: Any) -> SessionStream:
        """A stream of the row groups of parquet files.

        Parameters
        ----------
        paths : str, Path or sequence of them
            Files, folders or patterns: `modeling.loading.parts.parquet_files`.
        features : sequence of Feature
            The columns to read.
        *arguments, **named
            The others, as in the constructor.

        Raises
        ------
        UserError
            When there are no files, or one has not all columns.
        """
        return cls(parts_of(parquet_files(paths), features), features, *arguments, **named)

    def __len__(self) -> int:
        """Batches of a pass.

        Raises
        ------
        TypeError
            With `max_events`: that depends on the sessions' lengths.
        """
        if self.batch_size is None:
            raise TypeError("how many batches max_events makes is known after the pass")
        if self.drop_last:
            return self.sessions // self.world_size // self.batch_size
        return _up(_up(self.sessions, self.world_size), self.batch_size)

    def __iter__(self) -> Generator[tuple[Tensor, dict[str, Tensor]], None, None]:
        """One pass, or what is left of it after `load_state_dict`.

        Yields
        ------
        Tensor [B], int64
            Which sessions: their row numbers over all files, in the order of the files.
        dict of Tensor
            Their columns, as `modeling.data.Sessions.padded` makes them.
        """
        begun = self._place.window or self._place.batch
        place = Place(self._place.epoch + 1, 0, 0) if begun and not self._resume else self._place
        self._resume = False
        made = self._batches(place)
        if self.workers:
            made = made_ahead(made, self.ahead)
        try:
            for number, columns, after in made:
                self._place = after
                yield number, columns
        finally:
            made.close()

    def _batches(self, place: Place) -> Generator[tuple[Tensor, dict[str, Tensor], Place], None, None]:
        """The batches of a pass from a place on, each with the place behind it."""
        epoch = place.epoch
        # What batches hold is the same on all processes where each makes all of them and takes its share.
        share = self.rank if self.batch_size else 0
        first, end = self._range()
        pieces = schedule(self._pieces, self.open_parts, self._random(epoch, _SCHEDULE))
        starts = [0, *accumulate(piece.rows for piece in pieces)]
        step = max(1, self.buffer_size // 2 // (self.batch_size or 1)) * (self.batch_size or 1)
        buffer, reading = None, None
        try:
            drawn = windows(first, end, self.buffer_size, step, self._random(epoch, _DRAW, share))
            for number, window in enumerate(drawn):
                if number < place.window:
                    continue
                if buffer is None:
                    needed = [both for both in zip(starts, pieces, strict=False) if window.needs(*both, end)]
                    wanted = [piece for _, piece in needed]
                    reading = read_pieces(self.parts, wanted, self.features, self.workers, self.reader)
                    buffer = Buffer(needed, reading, self._first_row, end, window)
                buffer.fill(window.entered)
                self.most_held = max(self.most_held, len(buffer))
                sessions, row, numbers = buffer.window(window.chosen)
                made = number * step // self.batch_size if self.batch_size else 0
                lengths = sessions.lengths[row].clamp(max=self._limit)
                chunks = self._chunks(lengths, window.last, made, self._random(epoch, _BATCHES, share, number))
                for i in range(place.batch if number == place.window else 0, len(chunks)):
                    after = Place(epoch, number, i + 1) if i + 1 < len(chunks) else Place(epoch, number + 1, 0)
                    if (made + i + 1 == len(self)) if self.batch_size else (window.last and i + 1 == len(chunks)):
                        after = Place(epoch + 1, 0, 0)
                    yield numbers[chunks[i]], self._columns(sessions, row[chunks[i]]), after
                buffer.drop(row)
        finally:
            if reading is not None:
                reading.close()

    def _random(self, *purpose: int) -> torch.Generator | None:
        return generator(self.seed, *purpose) if self.shuffle else None

    def _range(self) -> tuple[int, int]:
        """The positions of this process: its share where batches have a size."""
        if self.batch_size is None:
            return 0, self.sessions
        first, end = (rank * self.sessions // self.world_size for rank in (self.rank, self.rank + 1))
        return first, end

    def _chunks(self, lengths: Tensor, last: bool, made: int, random: torch.Generator | None) -> list[Tensor]:
        """The batches of a window, as places in it: as many on each process."""
        chunks = batches_of(lengths, self.batch_size, self.max_events, self.bucket, random)
        if self.batch_size is None:
            chunks = spread(chunks, _up(len(chunks), self.world_size) * self.world_size)
            return chunks[self.rank :: self.world_size]
        if last and self.drop_last:
            return [chunk for chunk in chunks if len(chunk) == self.batch_size][: len(self) - made]
        return spread(chunks, len(self) - made) if last else chunks

    def _columns(self, sessions: Sessions, chosen: Tensor) -> dict[str, Tensor]:
        columns = sessions.padded(chosen, self._limit)
        for feature in self.features:
            column = columns[feature.name]
            if not feature.sequence and feature.kind == "categorical" and column.dim() == 2:
                # Several codes a session, padded to the longest that happens to be in memory.
                used = column.ne(0).any(0).nonzero()
                columns[feature.name] = column[:, : int(used.max()) + 1 if len(used) else 1]
        return {name: column.pin_memory() for name, column in columns.items()} if self.pin_memory else columns

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is: behind the last batch that was handed out. Plain data, for JSON or ``torch.save``."""
        return {**self._place._asdict(), "stream": self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there: the next ``for`` gives exactly the batches that were left.

        Raises
        ------
        UserError
            When the state is of other files or other arguments.
        """
        own = self._identity()
        for name, value in own.items():
            if state.get("stream", {}).get(name) != value:
                what = "files" if name == "parts" else name
                raise UserError(f"the state of the loader cannot be used: it was made with other {what}")
        self._place, self._resume = Place(*(int(state[name]) for name in Place._fields)), True

    def _identity(self) -> dict[str, Any]:
        """What the order of the batches depends on."""
        names = ("seed", "batch_size", "max_events", "limit", "shuffle", "bucket", "buffer_size", "open_parts")
        found = {name: getattr(self, name) for name in (*names, "drop_last", "rank", "world_size")}
        parts = [(Path(part.file).name, part.row_group, part.rows) for part in self.parts]
        return {**found, "parts": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}
