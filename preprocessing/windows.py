"""Sessions of the raw events, and the split of sessions into windows of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from common.errors import UserError
from preprocessing import kernels
from preprocessing.settings import Dataset

WINDOWS = ("train", "valid", "test")


@dataclass
class Windows:
    """Which rows belong to which window.

    Attributes
    ----------
    rows : dict of str to list of int64 arrays
        For train, valid and test, partitions of row numbers; a session is always whole inside one partition.
    sessions, events : dict of str to int
        Sessions and events of each window.
    begins : dict of str to str
        Start of each window, ISO 8601, UTC.
    dropped : dict of str to int
        Events dropped, by reason.
    """

    rows: dict[str, list[np.ndarray]]
    sessions: dict[str, int]
    events: dict[str, int]
    begins: dict[str, str]
    dropped: dict[str, int]


def codes(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Number the values from 0 by first appearance: int64 [N]."""
    return np.asarray(pd.factorize(values.to_pandas())[0], dtype=np.int64)


def split(table: pa.Table, dataset: Dataset, partition_events: int = 1_000_000) -> Windows:
    """Find the sessions, drop the short ones, and split the rest by the time of their first event.

    Parameters
    ----------
    table : pyarrow.Table
        The events, with the time as int64 nanoseconds.
    dataset : Dataset
        Names the columns, the session rules and the split.
    partition_events : int
        Events a partition, roughly; sessions are never cut.

    Raises
    ------
    UserError
        When a window would hold no session.
    """
    events, rules = dataset.events, dataset.sessions
    key, item = codes(table.column(events.key)), codes(table.column(events.item))
    time = table.column(events.time.column).to_numpy()
    order = table.column(events.order).to_numpy() if events.order else None
    grouped = kernels.group(key, item, time, order, gap=rules.gap_ns)
    first, last = grouped.offsets[:-1], grouped.offsets[1:]
    kept = last - first
    if rules.collapse_repeats:
        starts = np.zeros(len(grouped.rows), dtype=bool)
        starts[first] = True
        kept = np.add.reduceat(kernels.first_of_repeats(item[grouped.rows], starts), first, dtype=np.int64)
    long_enough = kept >= rules.min_length
    dropped = {f"in sessions shorter than {rules.min_length} events": int((last - first)[~long_enough].sum())}
    first, last = first[long_enough], last[long_enough]
    if not len(first):
        raise UserError(f"{dataset.name}: no session has {rules.min_length} events: is events.session right?")
    start = time[grouped.rows[first]]
    begins = _boundaries(start, dataset)
    windows = Windows({}, {}, {}, {name: _iso(begins[name]) for name in WINDOWS}, dropped)
    ends = [begins["valid"], begins["test"], np.iinfo(np.int64).max]
    for name, end in zip(WINDOWS, ends, strict=True):
        # In order of their start, so that neighbouring partitions are neighbours in time.
        chosen = np.flatnonzero((start >= begins[name]) & (start < end))
        chosen = chosen[np.argsort(start[chosen], kind="stable")]
        if not len(chosen):
            raise UserError(
                f"{dataset.name}: the {name} window ({_iso(begins[name])} on) holds no session; sessions start from "
                f"{_iso(start.min())} to {_iso(start.max())}: change split"
            )
        rows, offsets = kernels.take_ranges(grouped.rows, first[chosen], last[chosen])
        cuts = np.unique(np.searchsorted(offsets, np.arange(partition_events, len(rows), partition_events)))
        windows.rows[name] = [part for part in np.split(rows, offsets[cuts]) if len(part)]
        windows.sessions[name], windows.events[name] = len(chosen), len(rows)
    return windows


def _boundaries(start: np.ndarray, dataset: Dataset) -> dict[str, int]:
    rule, ordered = dataset.split, np.sort(start)
    if rule.valid_from and rule.test_from:
        valid, test = (_nanoseconds(point) for point in (rule.valid_from, rule.test_from))
    else:
        test_count, valid_count = (max(1, round(len(ordered) * share)) for share in (rule.test, rule.valid))
        test = int(ordered[max(0, len(ordered) - test_count)])
        valid = int(ordered[max(0, len(ordered) - test_count - valid_count)])
    return {"train": int(ordered[0]), "valid": valid, "test": test}


def _nanoseconds(point: datetime) -> int:
    aware = point if point.tzinfo else point.replace(tzinfo=UTC)
    return int(pd.Timestamp(aware).value)


def _iso(nanoseconds: int) -> str:
    return str(pd.Timestamp(int(nanoseconds)).isoformat())
