"""The arithmetic of features and sessions, in numpy alone.

The NVTabular operators (offline) and the request-time program (inside Triton) call these same functions, so
training and serving cannot drift apart. Nothing here imports pandas, dask or NVTabular.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]

# Nanoseconds in the units that whole-number times may have, and in a day.
UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
DAY = 86_400 * UNITS["s"]
# 1970-01-01 was a Thursday; weeks are counted from Monday.
_PERIODS = {"hour": (DAY, 0), "weekday": (7 * DAY, 3 * DAY)}
# Numbers beyond single precision, which models compute in, count as missing: one would make every mean infinite.
LARGEST = float(np.finfo(np.float32).max)
PADDING, NULL, UNKNOWN, RESERVED = 0, 1, 2, 3


def cyclic(time: Int, period: str, function: str) -> NDArray[np.float32]:
    """A point in time on a circle.

    Parameters
    ----------
    time : int64 [N]
        Nanoseconds since 1970.
    period : {"hour", "weekday"}
        The circle: a day or a week from Monday.
    function : {"sin", "cos"}
        Which coordinate.

    Returns
    -------
    float32 [N]
    """
    length, shift = _PERIODS[period]
    angle = ((time + shift) % length).astype(np.float64) * (2 * np.pi / length)
    return (np.sin(angle) if function == "sin" else np.cos(angle)).astype(np.float32)


def age_days(time: Int, item: Int, first_seen: Int) -> NDArray[np.float64]:
    """Days since an item was first seen in training, 0 for items that were not.

    Parameters
    ----------
    time : int64 [N]
        Nanoseconds since 1970.
    item : int64 [N]
        Encoded item ids.
    first_seen : int64 [cardinality]
        Nanoseconds since 1970 of the first training event of each encoded id; reserved ids are ignored.

    Returns
    -------
    float64 [N]
        Never negative: an event before the first one counts as day 0.
    """
    days = (time - first_seen[item]) / DAY
    return np.where(item < RESERVED, 0.0, np.maximum(days, 0.0))


class Grouped(NamedTuple):
    """Events arranged into sessions.

    Attributes
    ----------
    rows : int64 [M]
        Positions of the kept events in the input, session by session, oldest first.
    offsets : int64 [S + 1]
        Session ``s`` is ``rows[offsets[s]:offsets[s + 1]]``.
    keys : int64 [S]
        The key code of each session.
    """

    rows: Int
    offsets: Int
    keys: Int


def group(
    key: Int,
    item: Int,
    time: Int,
    order: NDArray[np.generic] | None = None,
    max_length: int | None = None,
    gap: int | None = None,
    collapse_repeats: bool = False,
    last_only: bool = False,
) -> Grouped:
    """Arrange events into sessions in time order.

    Parameters
    ----------
    key : int64 [N]
        Code of the session (or of the user, with `gap`), numbered from 0 by first appearance.
    item : int64 [N]
        Code of the raw item, for `collapse_repeats`.
    time : int64 [N]
        Nanoseconds since 1970.
    order : array [N], optional
        Breaks ties of time; the order of the input breaks what ties remain.
    max_length : int, optional
        Keep the most recent events of each session.
    gap : int, optional
        Nanoseconds of inactivity after which the same key begins another session.
    collapse_repeats : bool
        Of equal items in a row keep the first.
    last_only : bool
        With `gap`, keep only the last session of each key.

    Returns
    -------
    Grouped
        Sessions ordered by key and, inside a key, by time.
    """
    sort_keys = (time, key) if order is None else (order, time, key)
    rows = np.lexsort(sort_keys).astype(np.int64)
    key, item, time = key[rows], item[rows], time[rows]
    starts = _starts(key)
    if gap is not None:
        starts[1:] |= (time[1:] - time[:-1]) > gap
    if collapse_repeats:
        kept = first_of_repeats(item, starts)
        rows, key, starts = rows[kept], key[kept], starts[kept]
    first = np.flatnonzero(starts)
    offsets = np.append(first, len(rows)).astype(np.int64)
    keys = key[first]
    begin, end = offsets[:-1], offsets[1:]
    if last_only and len(keys):
        last = np.append(keys[1:] != keys[:-1], True)
        begin, end, keys = begin[last], end[last], keys[last]
    if max_length is not None:
        begin = np.maximum(begin, end - max_length)
    rows, offsets = take_ranges(rows, begin, end)
    return Grouped(rows, offsets, keys)


def _starts(key: Int) -> NDArray[np.bool_]:
    starts = np.ones(len(key), dtype=bool)
    starts[1:] = key[1:] != key[:-1]
    return starts


def first_of_repeats(item: Int, starts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which events are not a repeat of the one before: bool [N], from items in session order and session starts."""
    kept = starts.copy()
    kept[1:] |= item[1:] != item[:-1]
    return kept


def take_ranges(values: Int, begin: Int, end: Int) -> tuple[Int, Int]:
    """Concatenate ``values[begin[i]:end[i]]`` for every i; returns them with their offsets [len(begin) + 1]."""
    lengths = end - begin
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    positions = np.arange(offsets[-1], dtype=np.int64) + np.repeat(begin - offsets[:-1], lengths)
    return values[positions], offsets
