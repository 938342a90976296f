"""Features of the time of an event: a point on a circle, the age of its item, the time since the event before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from preprocessing import feature_kernels, frames, kernels
from preprocessing.engine import ColumnSchema, ColumnSelector, Operator, Schema, StatOperator, Tags, dd
from preprocessing.operators.reduce import merge_arrays, reduced

_NEVER = np.iinfo(np.int64).max


class CyclicTime(Operator):
    """The hour of the day or the weekday of a time column as a point on a circle.

    Input: one int64 column of nanoseconds since 1970. Outputs: ``<period>_sin`` and ``<period>_cos``, float32.

    Parameters
    ----------
    period : {"hour", "weekday"}
        The circle.
    """

    def __init__(self, period: str) -> None:
        super().__init__()
        self.period = period

    def outputs(self) -> dict[str, str]:
        """Output column -> ``"sin"`` or ``"cos"``."""
        return {f"{self.period}_{function}": function for function in ("sin", "cos")}

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Compute both coordinates; see `kernels.cyclic`."""
        time = frames.to_numpy(df[col_selector.names[0]])
        return type(df)(
            {name: kernels.cyclic(time, self.period, function) for name, function in self.outputs().items()},
            index=df.index,
        )

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """Both outputs come from the time column."""
        return dict.fromkeys(self.outputs(), col_selector.names)

    @property
    def output_tags(self) -> list[Tags]:
        """Continuous."""
        return [Tags.CONTINUOUS]

    @property
    def output_dtype(self) -> type:
        """Single precision."""
        return np.float32


class ItemAge(StatOperator):
    """Days between an event and the first training event of its item (``age``, float64).

    Inputs: the encoded item, then the time column. Items that training did not see have age 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first_seen: np.ndarray | None = None

    def fit(self, col_selector: ColumnSelector, ddf: dd.DataFrame) -> Any:
        """Lazily find the first time of every encoded item."""
        return reduced(ddf, col_selector.names, _first_times, _earliest)

    def fit_finalize(self, dask_stats: np.ndarray) -> None:
        """Keep the first times as an array indexed by encoded item."""
        self.first_seen = np.where(dask_stats == _NEVER, 0, dask_stats)

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Compute the age; see `kernels.age_days`."""
        assert self.first_seen is not None, "fit the workflow first"
        item, time = (frames.to_numpy(df[name]) for name in col_selector.names)
        return type(df)({"age": kernels.age_days(time, item, self.first_seen)}, index=df.index)

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """``age`` comes from item and time."""
        return {"age": list(reversed(col_selector.names))}

    def clear(self) -> None:
        """Forget the fitted times."""
        self.first_seen = None

    def set_storage_path(self, new_path: str, copy: bool = False) -> None:
        """Nothing is kept outside the operator."""

    @property
    def output_tags(self) -> list[Tags]:
        """Continuous."""
        return [Tags.CONTINUOUS]

    @property
    def output_dtype(self) -> type:
        """Double precision, until it is normalised."""
        return np.float64


def _first_times(df: Any, names: Sequence[str]) -> np.ndarray:
    """The earliest time of each code in one partition."""
    item, time = (frames.to_numpy(df[name]) for name in names)
    first = np.full(int(item.max(initial=0)) + 1, _NEVER, dtype=np.int64)
    np.minimum.at(first, item, time)
    return first


def _earliest(parts: Sequence[np.ndarray]) -> np.ndarray:
    return merge_arrays(parts, np.minimum, _NEVER)


class SincePrevious(Operator):
    """The logarithm of 1 + the seconds since the event before it in the session (``since_previous``, float64).

    Inputs: the columns that are named here. Partitions hold whole sessions, in any order of events. See
    `feature_kernels.since_previous`.

    Parameters
    ----------
    session, item, time : str
        The raw columns.
    order : str, optional
        Breaks ties of time.
    gap, collapse_repeats
        As in `GroupSessions`.
    encoded_item : str, optional
        The encoded item, where events of unknown items are left out of the sessions.
    """

    def __init__(
        self,
        session: str,
        item: str,
        time: str,
        order: str | None = None,
        gap: int | None = None,
        collapse_repeats: bool = False,
        encoded_item: str | None = None,
    ) -> None:
        super().__init__()
        self.session, self.item, self.time, self.order = session, item, time, order
        self.gap, self.collapse_repeats, self.encoded_item = gap, collapse_repeats, encoded_item

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Compute it for one partition."""
        key = frames.factorize(df[self.session])[0]
        left_out = None
        if self.encoded_item:
            left_out = feature_kernels.left_out(key, frames.to_numpy(df[self.encoded_item]))
        since = feature_kernels.since_previous(
            key,
            frames.factorize(df[self.item])[0] if self.collapse_repeats else key,
            frames.to_numpy(df[self.time]),
            frames.to_numpy(df[self.order]) if self.order else None,
            self.gap,
            self.collapse_repeats,
            left_out,
        )
        return type(df)({"since_previous": since}, index=df.index)

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """One number from all inputs."""
        return {"since_previous": list(col_selector.names)}

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """A number of its own."""
        return ColumnSchema(col_name, dtype=np.float64, tags=[Tags.CONTINUOUS])
