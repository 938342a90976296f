"""The arithmetic of features and sessions, in numpy alone.

The NVTabular operators (offline) and the request-time program (inside Triton) call these same functions, so
training and serving cannot drift apart. Nothing here imports pandas, dask or NVTabular.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
    repeats, short, older : int
        Events left out: repeats of the item before, those of sessions below `min_length`, and those that
        `max_length` cut off.
    """

    rows: Int
    offsets: Int
    keys: Int
    repeats: int = 0
    short: int = 0
    older: int = 0


def group(
    key: Int,
    item: Int,
    time: Int,
    order: NDArray[np.generic] | None = None,
    max_length: int | None = None,
    gap: int | None = None,
    collapse_repeats: bool = False,
    last_only: bool = False,
    min_length: int = 1,
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
    min_length : int
        Leave out sessions with fewer events, counted before `max_length` cuts.

    Returns
    -------
    Grouped
        Sessions ordered by key and, inside a key, by time.
    """
    rows = stable_order(key, time, order)
    key, item, time = key[rows], item[rows], time[rows]
    starts = _starts(key)
    repeats = short = older = 0
    if gap is not None:
        starts[1:] |= (time[1:] - time[:-1]) > gap
    if collapse_repeats:
        kept = first_of_repeats(item, starts)
        repeats = len(kept) - int(np.count_nonzero(kept))
        rows, key, starts = rows[kept], key[kept], starts[kept]
    first = np.flatnonzero(starts)
    offsets = np.append(first, len(rows)).astype(np.int64)
    keys = key[first]
    begin, end = offsets[:-1], offsets[1:]
    if last_only and len(keys):
        last = np.append(keys[1:] != keys[:-1], True)
        begin, end, keys = begin[last], end[last], keys[last]
    if min_length > 1:
        enough = end - begin >= min_length
        short = int((end - begin)[~enough].sum())
        begin, end, keys = begin[enough], end[enough], keys[enough]
    if max_length is not None:
        longest = np.maximum(begin, end - max_length)
        begin, older = longest, int((longest - begin).sum())
    if int((end - begin).sum()) == len(rows):
        # Nothing was left out, as of most requests: the sessions stand one behind the other already.
        return Grouped(rows, np.append(begin, len(rows)), keys, repeats, short, older)
    rows, offsets = take_ranges(rows, begin, end)
    return Grouped(rows, offsets, keys, repeats, short, older)


def stable_order(key: Int, time: Int, order: NDArray[np.generic] | None = None) -> Int:
    """Positions that sort by key, then time, then order, then position: int64 [N].

    Logs mostly come in the order of time, and partitions by session: what is sorted already is not sorted again.
    """
    if _sorted(key, time, order):
        return np.arange(len(key), dtype=np.int64)
    if order is not None:
        rows = np.lexsort((order, time))
    elif _ascending(time):
        return sort_codes(key)
    else:
        rows = np.argsort(time, kind="stable")
    return np.asarray(rows[sort_codes(key[rows])], dtype=np.int64)


def sort_codes(codes: Int) -> Int:
    """Stable argsort of whole numbers that are not negative: int64 [N].

    By digits of 16 bits from the lowest (numpy sorts so short numbers in linear time): codes are small, so two will do.
    """
    if _ascending(codes):
        return np.arange(len(codes), dtype=np.int64)
    order, shift, bits = None, 0, int(codes.max()).bit_length()
    while shift < bits:
        digit = (codes >> shift).astype(np.uint8 if bits - shift <= 8 else np.uint16)
        order = _stable(digit) if order is None else order[_stable(digit[order])]
        shift += 16
    assert order is not None
    return order


def _stable(digit: NDArray[np.generic]) -> Int:
    return np.asarray(np.argsort(digit, kind="stable"), dtype=np.int64)


def _sorted(key: Int, time: Int, order: NDArray[np.generic] | None) -> bool:
    """Whether events stand by key, then time, then order."""
    if not _ascending(key):
        return False
    tied = key[1:] == key[:-1]
    levels: tuple[NDArray[Any], ...] = (time,) if order is None else (time, order)
    for values in levels:
        if (tied & (values[1:] < values[:-1])).any():
            return False
        tied &= values[1:] == values[:-1]
    return True


def _ascending(values: Int) -> bool:
    return bool((values[1:] >= values[:-1]).all())


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
