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
MAX_EVENTS = 100_000
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


def check_lengths(columns: Sequence[Column], raw: Mapping[str, Array]) -> None:
    """Refuse a request without events, with too many, or whose columns differ in length."""
    lengths = {column.name: raw[column.name].size for column in columns}
    longest = max(lengths.values())
    if longest == 0:
        raise RequestError("the request holds no events: send one at least")
    if longest > MAX_EVENTS:
        raise RequestError(f"the request holds {longest} events: send at most {MAX_EVENTS} at a time")
    for name, length in lengths.items():
        if length != longest:
            raise RequestError(f"'{name}' has {length} values but other columns have {longest}: send one an event")
