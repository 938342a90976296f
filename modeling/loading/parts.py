"""Row groups of parquet files, and their rows as flat tensors, a piece at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from modeling.data import Sessions, sessions_of
from modeling.loading.order import Piece
from modeling.schema import Feature


@dataclass(frozen=True)
class Part:
    """A row group.

    Attributes
    ----------
    file : Path
        The parquet file.
    row_group, rows : int
        Which of its row groups, and how many sessions that has.
    size : int
        Bytes that the wanted columns take in memory, roughly: 8 a value.
    """

    file: Path
    row_group: int
    rows: int
    size: int


def parquet_files(given: Any) -> list[Path]:
    """The parquet files that are meant.

    Parameters
    ----------
    given : str, Path or iterable of them
        Files, folders or patterns; the files of a folder come by name.

    Raises
    ------
    UserError
        When there are none.
    """
    files: list[Path] = []
    for path in [given] if isinstance(given, str | Path) else list(given):
        if Path(path).is_dir():
            files += sorted(Path(path).glob("*.parquet"))
        else:
            files += [Path(path)] if Path(path).is_file() else [Path(found) for found in sorted(glob(str(path)))]
    if not files:
        raise UserError(f"{given} holds no parquet files")
    return files


def parts_of(files: Sequence[Path], features: Sequence[Feature]) -> list[Part]:
    """The row groups of files, in order; only what the files say of themselves is read.

    Raises
    ------
    UserError
        When a file is no parquet or has not all columns.
    """
    wanted = tuple(f"{feature.name}." for feature in features)  # names may hold dots, as paths in a file do
    found = []
    for file in files:
        with _reading(file), pq.ParquetFile(file) as parquet:
            missing = [f.name for f in features if f.name not in parquet.schema_arrow.names]
            if missing:
                raise UserError(f"{file} has no column {missing[0]!r}, which its schema names")
            for number in range(parquet.num_row_groups):
                group = parquet.metadata.row_group(number)
                columns = (group.column(i) for i in range(group.num_columns))
                values = sum(c.num_values for c in columns if f"{c.path_in_schema}.".startswith(wanted))
                found.append(Part(file, number, group.num_rows, 8 * values))
    return found


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Says of Arrow's errors which file they are about."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet: {error}") from error


class _OpenPart:
    """A row group that is read from front to back."""

    def __init__(self, part: Part, features: Sequence[Feature], rows: int, options: Mapping[str, Any]) -> None:
        self.part, self.features = part, features
        self.at = 0
        self._tables: deque[pa.RecordBatch] = deque()
        with _reading(part.file):
            self._file = pq.ParquetFile(part.file, **options)
            names = [feature.name for feature in features]
            self._batches = self._file.iter_batches(rows, row_groups=[part.row_group], columns=names, use_threads=False)

    def read(self, piece: Piece) -> Sessions:
        """The sessions of a piece behind those that were read; rows between are skipped."""
        with _reading(self.part.file):
            self._take(piece.start - self.at)
            table = pa.Table.from_batches(self._take(piece.rows))
        if piece.start + piece.rows == self.part.rows:
            self._file.close()
        return sessions_of(table, self.features, str(self.part.file))

    def _take(self, rows: int) -> list[pa.RecordBatch]:
        taken = []
        self.at += rows
        while rows:
            batch = self._tables.popleft() if self._tables else next(self._batches, None)
            if batch is None:
                raise UserError(f"{self.part.file} was changed while it was read")
            if batch.num_rows > rows:
                self._tables.appendleft(batch.slice(rows))
                batch = batch.slice(0, rows)
            rows -= batch.num_rows
            taken.append(batch)
        return taken


def read_pieces(
    parts: Sequence[Part],
    pieces: Sequence[Piece],
    features: Sequence[Feature],
    workers: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Generator[Sessions, None, None]:
    """The sessions of pieces, in this order whatever the number of threads.

    Parameters
    ----------
    parts : sequence of Part
        What the pieces are of.
    pieces : sequence of Piece
        What to read; those of the same row group from front to back.
    features : sequence of Feature
        The columns.
    workers : int
        Threads that read and decode, each a piece at a time. As many pieces are read ahead, but two at least, which is
        what a window of the buffer takes in. 0: nothing is read ahead.
    options : mapping, optional
        Keyword arguments of pyarrow.parquet.ParquetFile.

    Raises
    ------
    UserError
        When a file cannot be read or breaks the contract: see `modeling.data.sessions_of`.
    """
    left: dict[int, int] = {}
    for piece in pieces:
        left[piece.part] = left.get(piece.part, 0) + 1
    opened: dict[int, _OpenPart] = {}

    def read(piece: Piece, before: threading.Event | None, done: threading.Event) -> Sessions:
        try:
            if before is not None:
                before.wait()
            if piece.part not in opened:
                opened[piece.part] = _OpenPart(parts[piece.part], features, piece.rows, options or {})
            sessions = opened[piece.part].read(piece)
            left[piece.part] -= 1
            if not left[piece.part]:
                del opened[piece.part]
            return sessions
        finally:
            done.set()

    if not workers:
        for piece in pieces:
            yield read(piece, None, threading.Event())
        return
    latest: dict[int, threading.Event] = {}
    ahead: deque[Future[Sessions]] = deque()
    threads = ThreadPoolExecutor(workers, "sessions")
    try:
        for piece in pieces:
            # Work begins in this order, so one that waits for a piece of its row group waits for work that has begun.
            done = threading.Event()
            ahead.append(threads.submit(read, piece, latest.get(piece.part), done))
            latest[piece.part] = done
            if len(ahead) > max(workers, 2):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
