"""Sessions that go on from one appended batch of event files to the next, and the days that sessions belong to.

A batch leaves the raw events of the sessions that were open at its end. The next one puts them before its own events of
the same keys, so that a session that goes on is whole there; the earlier batch keeps what was known at its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from preprocessing import frames, kernels
from preprocessing.shuffle import Partition, Spill, unfinished

# Without sessions.gap: a session whose last event is older than this at the end of a batch is over.
OPEN_FOR = 30 * 60 * 10**9
# Events that are kept of an open session, far more than sessions.max_length allows: one that never ends stays small.
_MOST_EVENTS = 10_000
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Carried:
    """What a partition got from earlier batches.

    Attributes
    ----------
    number : int
        Of the partition.
    events : int
        Events that were put before its own.
    keys : pyarrow.Array
        Keys of the sessions that they belong to.
    first_new : int64 array
        The first moment of the batch's own events of each of these keys.
    """

    number: int
    events: int
    keys: pa.Array
    first_new: np.ndarray


@dataclass(frozen=True)
class DayPart:
    """The sessions of a partition that belong to one day.

    Attributes
    ----------
    day : str
        The UTC day of each session's last event, as ISO date.
    partition : Partition
        The sessions.
    continued : int
        Those of them that began in an earlier batch.
    """

    day: str
    partition: Partition
    continued: int


def bounds(job: Spill, number: int) -> tuple[int, int]:
    """First and last moment of a spilled partition, nanoseconds since 1970; without events, last comes before first."""
    with _spilled(job, number) as table:
        if not len(table):
            return _LAST, _FIRST
        found = pc.min_max(table.column(job.dataset.events.time.column)).as_py()
    return found["min"], found["max"]


def carry(job: Spill, earlier: Path | None, since: int, number: int) -> Carried:
    """Put open events of earlier batches before a spilled partition's own, and write what it leaves open itself.

    Parameters
    ----------
    job : Spill
        The batch.
    earlier : Path, optional
        Parquet of the open events of earlier batches, with the columns of the contract.
    since : int
        Sessions with a last event at or after this moment are open: nanoseconds since 1970.
    number : int
        Of the partition. Its open events go to ``open-<number>.parquet`` in the job's folder.

    Returns
    -------
    Carried
        Which sessions go on.
    """
    with _spilled(job, number) as own:
        if not len(own):
            return _nothing(job, number)
        carried, old = _nothing(job, number), own.slice(0, 0)
        if earlier is not None:
            carried, old = _match(job, own, pa.parquet.read_table(earlier).cast(own.schema), number)
        table = pa.concat_tables([old, own])
        left = table.take(pa.array(_still_open(job, table, since)))
        target = job.folder / f"open-{number:05d}.parquet"
        path = unfinished(target)
        pa.parquet.write_table(left, path, compression="zstd")
        os.replace(path, target)
    if carried.events:
        # Sorts before the numbers of the chunks: at equal times, what is older comes first.
        target = job.folder / f"spill-{number:05d}-{-1:05d}.arrow"
        path = unfinished(target)
        with pa.ipc.new_file(str(path), old.schema) as writer:
            writer.write_table(old)
        os.replace(path, target)
    return carried


@contextmanager
def _spilled(job: Spill, number: int) -> Iterator[pa.Table]:
    """A partition as `preprocessing.shuffle.spill` left it, mapped into memory; without what `carry` may have added."""
    paths = sorted(job.folder.glob(f"spill-{number:05d}-[0-9]*.arrow"))
    sources = [pa.memory_map(str(path)) for path in paths]
    try:
        tables = [pa.ipc.open_file(source).read_all() for source in sources]
        yield pa.concat_tables(tables) if tables else pa.table({})
    finally:
        del tables
        for source in sources:
            source.close()


def _nothing(job: Spill, number: int) -> Carried:
    return Carried(number, 0, pa.array([], job.contract.types[job.dataset.events.key]), np.zeros(0, np.int64))


def _match(job: Spill, own: pa.Table, earlier: pa.Table, number: int) -> tuple[Carried, pa.Table]:
    """The earlier events whose session may go on in this partition."""
    key, time = job.dataset.events.key, job.dataset.events.time.column
    old = earlier.filter(pc.is_in(earlier.column(key), pc.unique(own.column(key))))
    keys = pc.unique(old.column(key))
    first_new = _first(own, key, time, keys)
    # What began after the new events did not go on into them.
    goes_on = pa.array(_first(old, key, time, keys) <= first_new)
    keys, first_new = keys.filter(goes_on), first_new[goes_on.to_numpy(zero_copy_only=False)]
    old = old.filter(pc.is_in(old.column(key), keys)).combine_chunks()
    return Carried(number, len(old), keys, first_new), old


def _first(table: pa.Table, key: str, time: str, keys: pa.Array) -> np.ndarray:
    """The first moment of each of some keys: int64 [K]."""
    place = pc.index_in(table.column(key), keys)
    asked = pc.is_valid(place)
    first = np.full(len(keys), _LAST, dtype=np.int64)
    np.minimum.at(first, place.filter(asked).to_numpy(), table.column(time).filter(asked).to_numpy())
    return first


def _still_open(job: Spill, table: pa.Table, since: int) -> np.ndarray:
    """Rows of the sessions with an event at or after a moment, session by session, oldest first: int64 [M]."""
    events = job.dataset.events
    key, time = frames.codes(table.column(events.key)), table.column(events.time.column).to_numpy()
    last = np.full(int(key.max()) + 1, _FIRST, dtype=np.int64)
    np.maximum.at(last, key, time)
    rows = np.flatnonzero(last[key] >= since)
    order = table.column(events.order).to_numpy()[rows] if events.order else None
    gap = job.dataset.sessions.gap_ns
    grouped = kernels.group(key[rows], key[rows], time[rows], order, _MOST_EVENTS, gap, last_only=True)
    return rows[grouped.rows]


def iso_day(moment: int) -> str:
    """The UTC day of a moment in nanoseconds since 1970, as ISO date."""
    return str(np.datetime64(moment // kernels.DAY, "D"))


def by_day(job: Spill, carried: list[Carried], partition: Partition) -> tuple[list[DayPart], int]:
    """Divide a partition's sessions by the day of their last event.

    Parameters
    ----------
    job : Spill
        The batch; each day's sessions go to ``<day>/`` in its folder.
    carried : list of Carried
        Of all partitions, in their order.
    partition : Partition
        What `preprocessing.shuffle.arrange` made.

    Returns
    -------
    list of DayPart
        The days, ascending.
    int
        Events of sessions that did not go on, and belong to the earlier batch alone: they are left out.
    """
    events, found, offsets = job.dataset.events, carried[partition.number], partition.offsets()
    table, starts = partition.table(), partition.starts()
    time = table.column(events.time.column).to_numpy()
    begin, end = offsets[:-1], offsets[1:]
    last = time[end - 1]
    place = pc.index_in(table.column(events.key).take(pa.array(begin)), found.keys)
    first_new = np.append(found.first_new, _FIRST)[pc.fill_null(place, -1).to_numpy()]
    over = last < first_new
    went_on = ~over & (starts < first_new)
    days = last // kernels.DAY
    parts = []
    for day in np.unique(days[~over]).tolist():
        chosen = np.flatnonzero((days == day) & ~over)
        rows, cuts = kernels.take_ranges(np.arange(len(table)), begin[chosen], end[chosen])
        name = iso_day(day * kernels.DAY)
        part = Partition(job.folder / name, partition.number)
        part.folder.mkdir(exist_ok=True)
        part.write(table.take(pa.array(rows)), np.asarray(starts[chosen]), cuts)
        parts.append(DayPart(name, part, int(went_on[chosen].sum())))
    return parts, int((end - begin)[over].sum())
