"""The columns of a request: what a client may send, checked value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.kernels import LARGEST, UNITS

Array = NDArray[Any]
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_RANGE = np.iinfo(np.int64)


class RequestError(ValueError):
    """A request that cannot be answered; the message goes to the client in one line."""


@dataclass(frozen=True)
class Column:
    """One raw column.

    Attributes
    ----------
    name : str
        As in the event files.
    type : {"INT64", "FP64", "BOOL", "BYTES"}
        How it travels.
    role : {"session", "item", "time", "order", "feature"}
        What it is.
    unit, format : str, optional
        Of the time: the unit of integers, or the strptime pattern of text (ISO 8601 without one).
    """

    name: str
    type: str
    role: str
    unit: str | None = None
    format: str | None = None

    def decode(self, values: Array) -> Array:
        """Check a column and bring it into the form the program computes with.

        Returns
        -------
        array [N]
            Time as int64 nanoseconds; text as bytes; numbers as they are, with NaN for what is no number or too large.
        """
        if self.role == "time":
            return self._text_times(values) if self.type == "BYTES" else self._number_times(values)
        if self.role in ("session", "item") and self.type == "BYTES":
            for row, value in enumerate(values.tolist()):
                if not value.strip():
                    raise RequestError(f"'{self.name}' is empty in event {row}: every event needs its {self.role} id")
        if self.type == "FP64":
            usable = np.abs(values) <= LARGEST
            if self.role == "order" and not usable.all():
                raise RequestError(f"'{self.name}' is not a number in event {int(np.argmin(usable))}")
            return np.where(usable, values, np.nan)
        return values

    def example(self) -> Array:
        """A value that `decode` takes, as an array [1]."""
        if self.type != "BYTES":
            return np.ones(1, dtype={"INT64": np.int64, "FP64": np.float64, "BOOL": np.bool_}[self.type])
        text = _EPOCH.strftime(self.format) if self.format else _EPOCH.isoformat()
        return np.array([text.encode() if self.role == "time" else b"1"], dtype=object)

    def _number_times(self, values: Array) -> Array:
        factor = UNITS[self.unit or "ns"]
        limit = _RANGE.max // factor
        beyond = np.flatnonzero((values > limit) | (values < -limit))
        if len(beyond):
            row = int(beyond[0])
            raise RequestError(
                f"'{self.name}' is out of range in event {row}: {values[row]} is not a time in {self.unit}"
            )
        return values * factor

    def _text_times(self, values: Array) -> Array:
        return np.fromiter(
            (self._parse(row, value) for row, value in enumerate(values.tolist())), np.int64, len(values)
        )

    def _parse(self, row: int, value: bytes) -> int:
        try:
            text = value.decode("utf-8").strip()
            moment = datetime.strptime(text, self.format) if self.format else datetime.fromisoformat(text)
            if moment.tzinfo is not None:
                moment = moment.astimezone(UTC).replace(tzinfo=None)
            nanoseconds = (moment - _EPOCH) // _MICROSECOND * 1000
            if _RANGE.min <= nanoseconds <= _RANGE.max:
                return nanoseconds
        except (ValueError, OverflowError):
            pass
        expected = f"a time like {self.format}" if self.format else "an ISO 8601 time such as 2026-11-20T09:30:00"
        raise RequestError(f"'{self.name}' in event {row} is {value[:40]!r}: send {expected}")


def check_sizes(columns: Sequence[Column], raw: Mapping[str, Array], max_events: int, max_bytes: int) -> None:
    """Refuse a request that lacks a column, has no events or too many, a text too long, or columns of other lengths."""
    missing = [column.name for column in columns if column.name not in raw]
    if missing:
        raise RequestError(f"the request lacks {', '.join(map(repr, missing))}: every event needs a value")
    lengths = {column.name: raw[column.name].size for column in columns}
    longest = max(lengths.values())
    if longest == 0:
        raise RequestError("the request holds no events: send one at least")
    if longest > max_events:
        raise RequestError(f"the request holds {longest} events: send at most {max_events} at a time")
    for column in columns:
        name, values = column.name, raw[column.name]
        if values.size != longest:
            raise RequestError(f"'{name}' has {values.size} values but other columns have {longest}: send one an event")
        if values.ndim != 1:
            raise RequestError(f"'{name}' has {values.ndim} dimensions: send a flat list with one value an event")
        if column.type == "BYTES":
            sizes = [len(value) for value in values.tolist()]
            if max(sizes) > max_bytes:
                row = next(row for row, size in enumerate(sizes) if size > max_bytes)
                raise RequestError(f"'{name}' has {sizes[row]} bytes in event {row}: send at most {max_bytes}")
