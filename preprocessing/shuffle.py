"""Bring the events of a session together, whatever file they are in, in memory that the total does not set.

    files -> chunks -> `spill`: clean, and append to partitions by the hash of the session key
                    -> `arrange`: sort one partition into sessions -> `Partition`

Partitions live in a scratch folder as uncompressed Arrow files that are mapped into memory, not read. What is small,
and worked on by threads of one process, stays in memory instead.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from preprocessing import frames, kernels
from preprocessing.contract import Contract, wanted_columns
from preprocessing.events import REASON, clean, malformed, repeated_text
from preprocessing.feature_kernels import stable_hash
from preprocessing.files import Chunk, blocks
from preprocessing.settings import Dataset
from preprocessing.statistics import EventStatistics

_BLOCK_EVENTS = 1_000_000


@dataclass(frozen=True)
class Spill:
    """What `spill` needs besides the chunk.

    Attributes
    ----------
    dataset, contract
        What the columns mean and what form they take.
    folder : Path
        For scratch files.
    partitions : int
        How many to spread the events over.
    held : dict, optional
        Where the events of (partition, chunk) stay instead of in files: for threads of one process only.
    """

    dataset: Dataset
    contract: Contract
    folder: Path
    partitions: int
    held: dict[tuple[int, int], list[pa.Table]] | None = None


@dataclass
class Spilled:
    """What became of a chunk.

    Attributes
    ----------
    number : int
        The chunk's place among all chunks.
    read : int
        Rows read.
    dropped, bad : Counter
        Rows left out by filters, and bad rows, by reason.
    example : str
        The first bad row in words.
    """

    number: int
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    example: str = ""


def spill(job: Spill, number: int, chunk: Chunk) -> Spilled:
    """Read a chunk, clean it, and write each event into the file of its partition.

    Events keep their order inside a partition. Bad rows go to ``bad-<number>.parquet``.
    """
    result = Spilled(number)
    writers: dict[int, tuple[Path, Any]] = {}
    apart: list[pa.Table] = []
    job.folder.mkdir(parents=True, exist_ok=True)

    def on_bad(line: int, text: str) -> None:
        apart.append(malformed(chunk.path, line, text, job.contract))
        result.read += 1

    first_row = chunk.first_row
    try:
        repeated = repeated_text(job.dataset, job.contract.types)
        for block in blocks(chunk, wanted_columns(job.dataset), _BLOCK_EVENTS, on_bad, repeated):
            cleaned = clean(block, job.dataset, job.contract, chunk.path, first_row)
            first_row += len(block)
            result.read += cleaned.read
            result.dropped += cleaned.dropped
            if cleaned.bad is not None:
                apart.append(cleaned.bad)
            for partition, table in _distribute(cleaned.table, job.dataset.events.key, job.partitions):
                if job.held is not None:
                    job.held.setdefault((partition, number), []).append(table)
                    continue
                if partition not in writers:
                    path = unfinished(job.folder / f"spill-{partition:05d}-{number:05d}.arrow")
                    writers[partition] = path, pa.ipc.new_file(str(path), frames.decoded(table.slice(0, 0)).schema)
                writers[partition][1].write_table(frames.decoded(table))
    finally:
        for _, writer in writers.values():
            writer.close()
    for partition, (path, _) in writers.items():
        os.replace(path, job.folder / f"spill-{partition:05d}-{number:05d}.arrow")
    if apart:
        bad = pa.concat_tables(apart)
        path = unfinished(job.folder / f"bad-{number:05d}.parquet")
        pa.parquet.write_table(bad, path)
        os.replace(path, job.folder / f"bad-{number:05d}.parquet")
        result.bad.update(_reasons(bad))
        result.example = _in_words(bad.slice(0, 1).to_pylist()[0])
    return result


def unfinished(path: Path) -> Path:
    """Where to write a file before it gets its name.

    A cluster that believes a worker lost has its task done by another one: neither may see half of what the other
    wrote.
    """
    return path.with_name(f".{path.name}-{uuid4().hex}")


def _reasons(bad: pa.Table) -> dict[str, int]:
    # What is told of one csv line is of no use as a count.
    kinds = pc.if_else(pc.starts_with(bad.column(REASON), "line "), "csv line of another width", bad.column(REASON))
    return {count["values"]: count["counts"] for count in pc.value_counts(kinds).to_pylist()}


def _in_words(row: dict[str, Any]) -> str:
    reason = row[REASON]
    column = next((name for name in row if reason.startswith(f"column '{name}' ")), None)
    where = f"{row['_file']}: {reason}" + (f" in row {row['_row']}" if row["_row"] >= 0 else "")
    return where + (f" ({row[column]!r})" if column else "")


def _distribute(table: pa.Table, key: str, partitions: int) -> list[tuple[int, pa.Table]]:
    if partitions == 1 or not len(table):
        return [(0, table)] if len(table) else []
    values = table.column(key).combine_chunks()
    if pa.types.is_string(values.type):
        encoded = values.dictionary_encode()
        distinct = pd.util.hash_array(np.array(encoded.dictionary.to_pylist(), dtype=object), categorize=False)
        hashed = distinct[encoded.indices.to_numpy(zero_copy_only=False)]
    else:
        hashed = stable_hash(values.to_numpy())
    place = (hashed % np.uint64(partitions)).astype(np.int64)
    order = kernels.sort_codes(place)
    ends = np.searchsorted(place[order], np.arange(partitions + 1))
    table = table.take(pa.array(order))
    return [
        (number, table.slice(begin, end - begin))
        for number, (begin, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        if end > begin
    ]


@dataclass
class Partition:
    """Whole sessions in the order of their starts, as files that are mapped when they are read.

    Attributes
    ----------
    folder : Path
        Where the files are.
    number : int
        Of the partition.
    sessions, events : int
        What it holds.
    dropped : Counter
        Events left out, by reason.
    statistics : EventStatistics
        Of the events that are kept.
    held : tuple, optional
        Events, starts and offsets, where they stay in memory.
    """

    folder: Path
    number: int
    sessions: int = 0
    events: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    statistics: EventStatistics = field(default_factory=EventStatistics)
    held: tuple[pa.Table, np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def _path(self) -> Path:
        return self.folder / f"sessions-{self.number:05d}.arrow"

    def _array(self, name: str) -> Path:
        return self.folder / f"{name}-{self.number:05d}.npy"

    def starts(self) -> np.ndarray:
        """First moment of each session, ascending: int64 [S], nanoseconds since 1970."""
        if self.held is not None:
            return self.held[1]
        return np.load(self._array("starts"), mmap_mode="r") if self.sessions else np.zeros(0, np.int64)

    def offsets(self) -> np.ndarray:
        """Where each session begins among the events: int64 [S + 1]."""
        if self.held is not None:
            return self.held[2]
        return np.load(self._array("offsets"), mmap_mode="r") if self.sessions else np.zeros(1, np.int64)

    def table(self, begin: int = 0, end: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Events `begin` to `end` of the partition, without copying what is a number."""
        if self.held is not None:
            table = self.held[0]
        else:
            with pa.memory_map(str(self._path)) as source:
                table = pa.ipc.open_file(source).read_all()
        table = table.select(list(columns)) if columns is not None else table
        return frames.decoded(table.slice(begin, None if end is None else end - begin))

    def write(self, table: pa.Table, starts: np.ndarray, offsets: np.ndarray) -> None:
        """Put sorted events into the partition's files."""
        table, path = table.combine_chunks(), unfinished(self._path)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
        os.replace(path, self._path)
        for name, values in (("starts", starts), ("offsets", offsets)):
            path = unfinished(self._array(name))
            with path.open("wb") as file:
                np.save(file, values)
            os.replace(path, self._array(name))
        self.sessions, self.events = len(starts), len(table)


def arrange(job: Spill, number: int) -> Partition:
    """Sort one partition's events into sessions, and drop the short ones.

    Equal times keep the order of the files and of their rows, unless ``events.order`` says otherwise.
    """
    partition, done = Partition(job.folder, number), job.folder / f"arranged-{number:05d}.pickle"
    if done.exists():
        # By a worker that was lost before its answer was read; what was spilled is gone.
        arranged: Partition = pickle.loads(done.read_bytes())
        return arranged
    paths = sorted(job.folder.glob(f"spill-{number:05d}-*.arrow"))
    sources = [pa.memory_map(str(path)) for path in paths]
    tables = [pa.ipc.open_file(source).read_all() for source in sources]
    if job.held is not None:
        for piece in sorted(piece for piece in list(job.held) if piece[0] == number):
            tables += job.held.pop(piece)
    if not tables:
        return partition
    if any(table.schema != tables[0].schema for table in tables):
        tables = [frames.decoded(table) for table in tables]
    table = pa.concat_tables(tables)
    del tables
    events, rules = job.dataset.events, job.dataset.sessions
    key = frames.codes(table.column(events.key))
    time = table.column(events.time.column).to_numpy()
    order = table.column(events.order).to_numpy() if events.order else None
    grouped = kernels.group(key, key, time, order, gap=rules.gap_ns)
    first, last = grouped.offsets[:-1], grouped.offsets[1:]
    kept = last - first
    if rules.collapse_repeats and len(first):
        item = frames.codes(table.column(events.item))[grouped.rows]
        starts = np.zeros(len(item), dtype=bool)
        starts[first] = True
        kept = np.add.reduceat(kernels.first_of_repeats(item, starts), first, dtype=np.int64)
    enough = kept >= rules.min_length
    partition.dropped[f"in sessions shorter than {rules.min_length} events"] = int((last - first)[~enough].sum())
    first, last = first[enough], last[enough]
    moments = time[grouped.rows[first]]
    # In order of their starts, so that a window is a range.
    by_start = np.argsort(moments, kind="stable")
    rows, offsets = kernels.take_ranges(grouped.rows, first[by_start], last[by_start])
    if len(rows):
        partition.statistics.add(time[rows], np.diff(offsets))
        sessions = table.take(pa.array(rows))
        if job.held is not None:
            partition.held = sessions.combine_chunks(), moments[by_start], offsets
            partition.sessions, partition.events = len(moments), len(sessions)
            return partition
        partition.write(sessions, moments[by_start], offsets)
    path = unfinished(done)
    path.write_bytes(pickle.dumps(partition))
    os.replace(path, done)
    del table
    for source, path in zip(sources, paths, strict=True):
        source.close()
        path.unlink(missing_ok=True)
    return partition
