"""The description of a data set: where the events are and what their columns mean.

The same model is filled from a YAML file (``examples/*.yaml``), from flags or from Python::

    name: my_shop
    events: {files: "clicks/*.parquet", session: visit, item: sku, time: clicked_at}
    features: {item: {categorical: [brand], continuous: [price]}, time: [hour, weekday, age]}
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from common.settings import Settings
from preprocessing.feature_settings import TIME_FEATURES, Features, check_features

_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}
ITEM_ID = "item_id"
SESSION_ID = "session_id"


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d)\s*", value)):
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    if isinstance(value, timedelta):
        return value
    raise ValueError("write a duration such as '30 min', '2 h' or '1 d'")


Duration = Annotated[timedelta, BeforeValidator(_duration)]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Time(Settings):
    """The column that holds the time of an event."""

    column: str
    unit: Literal["s", "ms", "us", "ns"] | None = Field(None, description="for integers since 1970")
    format: str | None = Field(None, description="strptime pattern of text that is not ISO 8601")


class Filter(Settings):
    """Which values of a column are kept; rows that fail, or are null, are dropped and counted."""

    min: float | None = None
    max: float | None = None
    one_of: list[str | int | float | bool] | None = None
    matches: str | None = Field(None, description="regular expression found anywhere in the text")
    not_matches: str | None = None


class Events(Settings):
    """Files of raw events, and what the columns mean."""

    files: Annotated[list[str], BeforeValidator(_several)] = Field(min_length=1)
    session: str | None = None
    user: str | None = Field(None, description="instead of a session column, together with sessions.gap")
    item: str
    time: Time
    order: str | None = Field(None, description="column that breaks ties of time inside a session")
    where: dict[str, Filter] = Field(default_factory=dict)
    max_bad_share: float = Field(0.01, ge=0, le=1, description="more rows that cannot be used than this stop the job")

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_key(self) -> Events:
        if (self.session is None) == (self.user is None):
            raise ValueError("name either 'session' or 'user' (with sessions.gap)")
        return self

    @property
    def key(self) -> str:
        """The column whose value the client sends and gets back as ``session_id``."""
        return self.session or self.user or ""


class Sessions(Settings):
    """Which sessions there are, and how much of them is kept."""

    min_length: int = Field(2, ge=2, description="shorter sessions have no next item to learn")
    max_length: int = Field(20, ge=2, le=2000, description="the most recent events are kept")
    collapse_repeats: bool = Field(False, description="the same item several times in a row counts once")
    gap: Duration | None = Field(None, description="inactivity that ends a user's session")
    min_item_count: int = Field(0, ge=0, description="items seen less often in training count as unknown")
    unknown_items: Literal["keep", "drop"] = Field("keep", description="events of unknown items: keep or leave out")

    @property
    def gap_ns(self) -> int | None:
        """The gap in nanoseconds, the unit of all times inside the pipeline."""
        return int(self.gap.total_seconds() * 1e9) if self.gap else None


class Split(Settings):
    """Windows by the start of a session: shares from the end, or points in time."""

    valid: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)
    valid_from: datetime | None = None
    test_from: datetime | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("give both valid_from and test_from, or neither")
        points = [p if p is None or p.tzinfo else p.replace(tzinfo=UTC) for p in (self.valid_from, self.test_from)]
        if points[0] and points[1] and points[0] >= points[1]:
            raise ValueError("valid_from must be before test_from")
        if self.valid + self.test >= 1:
            raise ValueError("valid and test together leave nothing to train on")
        return self


class Dataset(Settings):
    """One data set, described once.

    ``data_root`` is the folder that ``events.files`` are relative to; itself it is relative to the YAML file.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    data_root: Path = Path(".")
    events: Events
    features: Features = Features()
    sessions: Sessions = Sessions()
    split: Split = Split()

    @model_validator(mode="after")
    def _columns(self) -> Dataset:
        events, named = self.events, [*self.features.item.names(), *self.features.event.names()]
        for column in named:
            if named.count(column) > 1:
                raise ValueError(f"features: the column '{column}' is named twice")
            if column in (events.key, events.item):
                raise ValueError(f"features: the column '{column}' is the session or the item already")
            if column in (ITEM_ID, SESSION_ID) or column in sum(TIME_FEATURES.values(), ()):
                raise ValueError(
                    f"features: '{column}' is the name of a feature that nextitem makes: rename the column"
                )
        for column in [events.key, events.item, events.time.column, *named]:
            if "/" in column or not column or column.startswith("_nextitem"):
                raise ValueError(f"the column name '{column}' cannot be used: rename it in the events")
        if (events.user is None) != (self.sessions.gap is None):
            raise ValueError("sessions.gap and events.user go together: give both, or name events.session")
        check_features(self)
        return self

    def columns(self) -> list[str]:
        """The raw columns that a request holds, in the order of the contract."""
        events = self.events
        keys = [events.key, events.item, events.time.column, *([events.order] if events.order else [])]
        return list(dict.fromkeys([*keys, *self.features.raw_columns()]))
