"""What the report says, whether on a page or on a screen: the rows and sentences behind its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from common.display import plain

WINDOWS = ("train", "valid", "test")
# The upper end of each row, when there are too many lengths to give each its own.
_LENGTH_ENDS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)


@dataclass(frozen=True)
class Step:
    """A line of the account from events read to events kept; `kind` is ``"read"``, ``"dropped"`` or ``"kept"``."""

    label: str
    events: int
    kind: str

    @property
    def text(self) -> str:
        """The label with a sign for what is taken away."""
        return f"- {self.label}" if self.kind == "dropped" else self.label


def steps(report: Mapping[str, Any]) -> list[Step]:
    """Account for every event: read, dropped by each reason, kept. Reasons that dropped nothing are left out."""
    read, kept = report["events_read"], report["events"]
    dropped = [Step(plain(reason), count, "dropped") for reason, count in report["events_dropped"].items() if count]
    missing = read - kept - sum(step.events for step in dropped)
    quarantined = report.get("quarantined") or {}
    if missing and missing == quarantined.get("rows"):
        dropped = [
            Step(f"quarantined: {plain(reason)}", count, "dropped")
            for reason, count in quarantined.get("reasons", {}).items()
            if count
        ] + dropped
        missing = read - kept - sum(step.events for step in dropped)
    if missing:
        dropped.append(Step("not accounted for", missing, "dropped"))
    return [Step("read", read, "read"), *dropped, Step("kept", kept, "kept")]


@dataclass(frozen=True)
class Bins:
    """Events by stretches of the calendar: ``unit``; of each bin the first day, a name, the events; the day after."""

    unit: str
    starts: list[date]
    end: date
    labels: list[str]
    counts: list[int]


def calendar(days: Mapping[str, Any], most: int) -> Bins:
    """Put events a day (`EventStatistics.to_json`) into at most `most` bins, as fine as that allows.

    Parameters
    ----------
    days : mapping
        ``unit``, ``first_day`` and ``counts``.
    most : int
        Bins that fit, 14 or more.
    """
    counts = np.array(days["counts"], dtype=np.int64)
    if not len(counts):
        return Bins("day", [], date(1970, 1, 1), [], [])
    unit = "D" if days["unit"] == "day" else "M"
    moments = np.datetime64(days["first_day"], unit) + np.arange(len(counts))
    names = list(_BINS)
    for name in names[0 if unit == "D" else names.index("month") :]:
        number, begin, label = _BINS[name]
        position = number(moments)
        if position[-1] - position[0] < most:
            break
    summed = np.zeros(int(position[-1] - position[0]) + 1, dtype=np.int64)
    np.add.at(summed, position - position[0], counts)
    *starts, end = (begin(int(at)) for at in range(int(position[0]), int(position[-1]) + 2))
    return Bins(name, starts, end, [label(start) for start in starts], summed.tolist())


def span(days: Mapping[str, Any]) -> str:
    """From the first day, or month, to the last; empty without events."""
    labels = calendar(days, len(days["counts"]) + 1).labels
    return f"{labels[0]} to {labels[-1]}" if len(labels) > 1 else "".join(labels)


def _ordinal(moments: np.ndarray, unit: str) -> np.ndarray:
    return moments.astype(f"datetime64[{unit}]").astype(np.int64)


def _day(number: int) -> date:
    return np.datetime64(number, "D").item()


def _years(width: int) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[int], date], Callable[[date], str]]:
    def label(start: date) -> str:
        return f"{start.year}" if width == 1 else f"{start.year}-{start.year + width - 1}"

    return (
        lambda moments: (_ordinal(moments, "Y") + 1970) // width,
        lambda number: date(number * width, 1, 1),
        label,
    )


# For each name of a bin: the numbers of the bins that moments lie in, the first day of a numbered bin, its label.
_BINS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[int], date], Callable[[date], str]]] = {
    "day": (lambda moments: _ordinal(moments, "D"), _day, date.isoformat),
    # Day 0 was a Thursday: three days later the first Monday has not come yet.
    "week": (lambda moments: (_ordinal(moments, "D") + 3) // 7, lambda n: _day(n * 7 - 3), date.isoformat),
    "month": (
        lambda moments: _ordinal(moments, "M"),
        lambda n: np.datetime64(n, "M").astype("datetime64[D]").item(),
        lambda start: f"{start:%Y-%m}",
    ),
    "quarter": (
        lambda moments: _ordinal(moments, "M") // 3,
        lambda n: np.datetime64(n * 3, "M").astype("datetime64[D]").item(),
        lambda start: f"{start.year} Q{start.month // 3 + 1}",
    ),
    "year": _years(1),
    "half-decade": _years(5),
    "decade": _years(10),
    "half-century": _years(50),
}


def lengths(counted: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Sessions by length in at most 14 rows of (events, sessions), from the shortest session to the longest."""
    counts = [*counted["counts"], *[0] * (101 - len(counted["counts"]))]
    longest = counted["longest"]
    shortest = next((length for length, count in enumerate(counts) if count), 1)
    if longest - shortest < 14 and longest <= 100:
        return [(str(length), counts[length]) for length in range(shortest, longest + 1)]
    rows, low = [], 1
    for high in _LENGTH_ENDS:
        if low <= longest and high >= shortest:
            rows.append((str(low) if low == high else f"{low}-{high}", sum(counts[low : high + 1])))
        low = high + 1
    return [*rows, ("over 100", counted["more"])] if longest > 100 else rows


def sessions(counted: Mapping[str, Any]) -> int:
    """How many sessions were counted."""
    return int(sum(counted["counts"]) + counted["more"])


def median_length(counted: Mapping[str, Any]) -> int | None:
    """The length that half of the sessions do not exceed; None where it is over 100, or without sessions."""
    total = sessions(counted)
    reached = np.flatnonzero(np.cumsum(counted["counts"]) * 2 >= total)
    return int(reached[0]) if total and len(reached) else None


def strays(days: Mapping[str, Any]) -> str:
    """A sentence on the few events far from the others, or an empty string."""
    parts = []
    for stray in days["stray"]:
        first, last = stray["first_day"], stray["last_day"]
        parts.append(f"{stray['events']:,} of {first}" + (f" to {last}" if last != first else ""))
    return f"Not shown, far from the others: {' and '.join(parts)}." if parts else ""


def tail(catalogue: Mapping[str, Any]) -> str:
    """A sentence on the long tail of the items."""
    if catalogue["items"] == 1:
        return "There is one item."
    half, items = catalogue["reach"]["50"], catalogue["items"]
    most = f"The {half:,} most popular of" if half > 1 else "The most popular of"
    verb = "make" if half > 1 else "makes"
    rare = share(catalogue["rare_share"])
    return f"{most} {items:,} items {verb} half of the training events; {rare} of items have fewer than 5 of them."


def unknown(features: Mapping[str, Any], window: str = "test") -> list[tuple[str, float]]:
    """Categorical features with the share of a window's events that training did not know, largest first."""
    seen = features["categorical"].get(window, {})
    shares = [(name, counts["unknown"] / counts["events"]) for name, counts in seen.items() if counts["events"]]
    return sorted(shares, key=lambda entry: -entry[1])


def share(part: float, whole: float = 1.0) -> str:
    """A percentage that does not round something to nothing, nor less than everything to everything."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.0f}%" if percent in (0, 100) else f"{percent:.1f}%"


def among(names: Sequence[str]) -> list[str]:
    """Windows in the order of time, whatever the order they were counted in."""
    return [*(name for name in WINDOWS if name in names), *sorted(set(names) - set(WINDOWS))]
