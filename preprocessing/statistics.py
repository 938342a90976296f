"""What the data looks like, counted a partition at a time: small sums that add up across partitions and processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

_HOUR = 3_600 * 10**9
_EPOCH = date(1970, 1, 1)
_LONGEST = 100
# Up to eleven years are told a day at a time, anything longer a month at a time.
_DAYS = 4_018
_NULL, _UNKNOWN = 1, 2
_LOW, _HIGH, _BINS = -10.0, 10.0, 40
_TAIL_POINTS = 60
_SHARES = (50, 80, 90)
_RARE = 5


class EventStatistics:
    """Events by day and by hour of the week, sessions by length.

    Memory is bounded by the 213,504 days that int64 nanoseconds can name, whatever the number of events. Times are UTC.
    """

    def __init__(self) -> None:
        self._days: dict[int, int] = {}
        self._week = np.zeros((7, 24), dtype=np.int64)
        self._lengths = np.zeros(_LONGEST + 2, dtype=np.int64)
        self._longest = 0

    def add(self, time: np.ndarray, lengths: np.ndarray) -> None:
        """Count a partition.

        Parameters
        ----------
        time : int64 [N]
            When each event happened, nanoseconds since 1970, in any order.
        lengths : int64 [S]
            Events of each session.
        """
        if len(time):
            hours = time // _HOUR
            first = int(hours.min())
            counts = np.bincount(hours - first)
            seen = np.flatnonzero(counts)
            counts, hours = counts[seen], seen + first
            days = hours // 24
            # 1970 began on a Thursday; the week begins on Monday.
            np.add.at(self._week, ((days + 3) % 7, hours % 24), counts)
            starts = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
            for day, count in zip(days[starts].tolist(), np.add.reduceat(counts, starts).tolist(), strict=True):
                self._days[day] = self._days.get(day, 0) + count
        if len(lengths):
            self._lengths += np.bincount(np.minimum(lengths, _LONGEST + 1), minlength=_LONGEST + 2)
            self._longest = max(self._longest, int(lengths.max()))

    def merge(self, other: EventStatistics) -> None:
        """Add what another partition or process counted."""
        for day, count in other._days.items():
            self._days[day] = self._days.get(day, 0) + count
        self._week += other._week
        self._lengths += other._lengths
        self._longest = max(self._longest, other._longest)

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON.

        Returns
        -------
        dict
            ``days``: ``unit`` (``"day"``, or ``"month"`` when the days would be too many), ``first_day`` (ISO date, or
            None without events) and ``counts``, one a unit without gaps; ``stray``, a list of ``{first_day, last_day,
            events}``: the few events (under 1%) that lie more than a year before or after the others and would
            squeeze the rest into a corner. ``lengths``: ``counts`` (entry k: sessions of k events, k to 100), ``more``
            (sessions longer than that) and ``longest``. ``week``: 7 rows, Monday first, of 24 hours.
        """
        known = np.trim_zeros(self._lengths[:-1], "b")
        return {
            "days": _calendar(self._days),
            "lengths": {"counts": known.tolist(), "more": int(self._lengths[-1]), "longest": self._longest},
            "week": self._week.tolist(),
        }


def _calendar(counts: dict[int, int]) -> dict[str, Any]:
    if not counts:
        return {"unit": "day", "first_day": None, "counts": [], "stray": []}
    days = np.array(sorted(counts), dtype=np.int64)
    events = np.array([counts[day] for day in days.tolist()], dtype=np.int64)
    low, high = _main_part(days, events)
    stray = [
        {"first_day": _iso(days[part][0]), "last_day": _iso(days[part][-1]), "events": int(events[part].sum())}
        for part in (slice(0, low), slice(high, len(days)))
        if len(days[part])
    ]
    days, events = days[low:high], events[low:high]
    first, last = int(days[0]), int(days[-1])
    unit, position = "day", days - first
    if last - first >= _DAYS:
        unit = "month"
        month = (days.astype("datetime64[D]").astype("datetime64[M]")).astype(np.int64)
        position, first = month - month[0], int(month[0].astype("datetime64[M]").astype("datetime64[D]").astype(int))
    dense = np.zeros(int(position[-1]) + 1, dtype=np.int64)
    np.add.at(dense, position, events)
    return {"unit": unit, "first_day": _iso(first), "counts": dense.tolist(), "stray": stray}


def _main_part(days: np.ndarray, events: np.ndarray) -> tuple[int, int]:
    """Positions from and to which the days belong together: far ends with under 1% of all events are left out."""
    gaps = np.flatnonzero(np.diff(days) > 366) + 1
    before = np.concatenate([[0], np.cumsum(events)])
    few = before[-1] / 100
    low = max((int(gap) for gap in gaps if before[gap] < few), default=0)
    high = min((int(gap) for gap in gaps if before[-1] - before[gap] < few), default=len(days))
    return low, high


def _iso(day: int | np.integer) -> str:
    return (_EPOCH + timedelta(days=int(day))).isoformat()


@dataclass
class _Codes:
    events: int = 0
    nulls: int = 0
    unknown: int = 0


@dataclass
class _Numbers:
    """Moments that add up (Chan, Golub and LeVeque) and a histogram with fixed edges."""

    n: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0
    # The first and the last entry count what lies below and above the bins.
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(_BINS + 2, dtype=np.int64))

    def merge(self, other: _Numbers) -> None:
        self.missing += other.missing
        if other.n:
            n, step = self.n + other.n, other.mean - self.mean
            self.squares += other.squares + step * step * self.n * other.n / n
            self.mean += step * other.n / n
            self.n = n
            self.histogram += other.histogram


class FeatureStatistics:
    """By window: nulls and unknown values of categorical features, moments and histograms of continuous ones."""

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, _Codes]] = {}
        self._numbers: dict[str, dict[str, _Numbers]] = {}

    def add(self, window: str, sessions: pa.Table, categorical: Sequence[str], continuous: Sequence[str]) -> None:
        """Count a partition of the features as they are written.

        Parameters
        ----------
        window : str
            ``"train"``, ``"valid"`` or ``"test"``.
        sessions : pyarrow.Table
            One row a session; the columns hold lists, or one value a session.
        categorical : sequence of str
            Columns of int64 codes: 1 is null, 2 unknown.
        continuous : sequence of str
            Columns of numbers.
        """
        for name in categorical:
            seen = self._codes.setdefault(window, {}).setdefault(name, _Codes())
            for values in _leaves(sessions.column(name)):
                codes = values.to_numpy(zero_copy_only=False)
                seen.events += len(codes)
                seen.nulls += int(np.count_nonzero(codes == _NULL))
                seen.unknown += int(np.count_nonzero(codes == _UNKNOWN))
        for name in continuous:
            numbers = self._numbers.setdefault(window, {}).setdefault(name, _Numbers())
            for values in _leaves(sessions.column(name)):
                known = values if pa.types.is_floating(values.type) else values.cast(pa.float64())
                # What is beyond float64 ends as None in the JSON.
                with np.errstate(over="ignore", invalid="ignore"):
                    numbers.merge(_measure(known.to_numpy(zero_copy_only=False)))

    def merge(self, other: FeatureStatistics) -> None:
        """Add what another partition or process counted."""
        for window, codes in other._codes.items():
            for name, theirs in codes.items():
                ours = self._codes.setdefault(window, {}).setdefault(name, _Codes())
                ours.events += theirs.events
                ours.nulls += theirs.nulls
                ours.unknown += theirs.unknown
        for window, numbers in other._numbers.items():
            for name, values in numbers.items():
                self._numbers.setdefault(window, {}).setdefault(name, _Numbers()).merge(values)

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON.

        Returns
        -------
        dict
            ``categorical``: window -> feature -> ``events``, ``nulls``, ``unknown``. ``continuous``: window -> feature
            -> ``n``, ``missing``, ``mean``, ``std`` (of the population; None without values), ``histogram`` (values in
            each bin, lower edge included), ``below`` and ``above`` (values outside). ``bins``: ``low``, ``high``
            and ``count`` of the histograms.
        """
        return {
            "categorical": {
                window: {name: dict(vars(seen)) for name, seen in codes.items()}
                for window, codes in self._codes.items()
            },
            "continuous": {
                window: {name: _numbers_json(numbers) for name, numbers in features.items()}
                for window, features in self._numbers.items()
            },
            "bins": {"low": _LOW, "high": _HIGH, "count": _BINS},
        }


def _leaves(column: pa.ChunkedArray) -> list[pa.Array]:
    """The values of a column of lists, or lists of lists (vectors), without the lists."""
    chunks = []
    for chunk in column.chunks:
        while (
            pa.types.is_list(chunk.type)
            or pa.types.is_large_list(chunk.type)
            or pa.types.is_fixed_size_list(chunk.type)
        ):
            chunk = chunk.flatten()
        chunks.append(chunk)
    return chunks


def _measure(values: np.ndarray) -> _Numbers:
    finite = np.isfinite(values)
    missing = len(values) - int(np.count_nonzero(finite))
    values = values[finite] if missing else values
    if not len(values):
        return _Numbers(missing=missing)
    mean = float(values.mean(dtype=np.float64))
    # In float64 throughout: a float32 value squared may be beyond float32.
    apart = np.subtract(values, mean, dtype=np.float64)
    width = (_HIGH - _LOW) / _BINS
    bins = np.clip(np.floor((values - _LOW) / width), -1, _BINS).astype(np.int64) + 1
    counts = np.bincount(bins, minlength=_BINS + 2)
    return _Numbers(len(values), missing, mean, float(np.dot(apart, apart)), counts)


def _numbers_json(numbers: _Numbers) -> dict[str, Any]:
    deviation = math.sqrt(numbers.squares / numbers.n) if numbers.n else None
    return {
        "n": numbers.n,
        "missing": numbers.missing,
        "mean": _finite(numbers.mean) if numbers.n else None,
        "std": _finite(deviation),
        "histogram": numbers.histogram[1:-1].tolist(),
        "below": int(numbers.histogram[0]),
        "above": int(numbers.histogram[-1]),
    }


def _finite(value: float | None) -> float | None:
    """None for what JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def catalogue(values: pa.Array, counts: np.ndarray, top: int = 20) -> dict[str, Any]:
    """The most popular items and the long tail.

    Parameters
    ----------
    values : pyarrow.Array [K]
        Item ids, whole numbers or text.
    counts : int64 [K]
        Events of each item.
    top : int
        How many items to name.

    Returns
    -------
    dict
        ``items``, ``events``; ``top``: a list of ``{item, events}``, the most popular first (ties as they came);
        ``tail``: ``rank`` (about 60, evenly spaced on a logarithmic scale), ``events`` of the item of that rank and
        ``share`` of all events that it and the more popular ones have; ``reach``: how many items make 50, 80
        and 90% of the events; ``rare_share``: share of the items with fewer than 5 events.
    """
    order = np.argsort(-counts, kind="stable")
    ordered = counts[order]
    total, items = int(ordered.sum()), len(ordered)
    summed = np.cumsum(ordered)
    # Rounding makes the low ranks coincide, so that few and many items both get the points they need.
    ranks = np.unique(np.geomspace(1, items, min(items, _TAIL_POINTS)).round().astype(np.int64)) if items else order
    named = values.take(pa.array(order[:top])).to_pylist()
    return {
        "items": items,
        "events": total,
        "top": [
            {"item": item if isinstance(item, int | str) else str(item), "events": count}
            for item, count in zip(named, ordered[:top].tolist(), strict=True)
        ],
        "tail": {
            "rank": ranks.tolist(),
            "events": ordered[ranks - 1].tolist(),
            "share": (summed[ranks - 1] / max(total, 1)).tolist(),
        },
        # In whole numbers: 50% of 4 events are 2, not 2.0000001.
        "reach": {
            str(share): int(np.searchsorted(summed * 100, total * share)) + 1 if total else 0 for share in _SHARES
        },
        "rare_share": float(np.count_nonzero(ordered < _RARE) / items) if items else 0.0,
    }
