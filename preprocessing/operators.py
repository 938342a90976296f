"""NVTabular operators of our own: time features, item age and the grouping of events into sessions.

They work in any NVTabular graph beside stock operators. Their arithmetic is that of `preprocessing.kernels`,
which the server uses as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from preprocessing import kernels
from preprocessing.engine import ColumnSchema, ColumnSelector, Operator, Schema, StatOperator, Tags, dd
from preprocessing.settings import ITEM_ID, SESSION_ID

# The inputs of GroupSessions that are not features; raw values under names no feature can have.
SESSION, ITEM, TIME, ORDER = "_nextitem_session", "_nextitem_item", "_nextitem_time", "_nextitem_order"
KEYS = (SESSION, ITEM, TIME, ORDER)


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

    def transform(self, col_selector: ColumnSelector, df: pd.DataFrame) -> pd.DataFrame:
        """Compute both coordinates; see `kernels.cyclic`."""
        time = df[col_selector.names[0]].to_numpy()
        return pd.DataFrame(
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
        item, time = col_selector.names
        return ddf.groupby(item)[time].min()

    def fit_finalize(self, dask_stats: pd.Series) -> None:
        """Keep the first times as an array indexed by encoded item."""
        self.first_seen = np.zeros(int(dask_stats.index.max()) + 1, dtype=np.int64)
        self.first_seen[dask_stats.index.to_numpy()] = dask_stats.to_numpy()

    def transform(self, col_selector: ColumnSelector, df: pd.DataFrame) -> pd.DataFrame:
        """Compute the age; see `kernels.age_days`."""
        assert self.first_seen is not None, "fit the workflow first"
        item, time = (df[name].to_numpy() for name in col_selector.names)
        return pd.DataFrame({"age": kernels.age_days(time, item, self.first_seen)}, index=df.index)

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


class GroupSessions(Operator):
    """Turn events into sessions: one row a session, a list a feature, oldest event first.

    Inputs: the key columns (`KEYS`; order is optional) and any number of encoded feature columns. Lists are Arrow
    arrays with offsets (pandas ArrowDtype), so no Python object is made a session. See `kernels.group`.

    Parameters
    ----------
    max_length : int
        The most recent events that are kept.
    gap : int, optional
        Nanoseconds of inactivity that begin another session of the same key.
    collapse_repeats : bool
        Of equal items in a row keep the first.
    """

    def __init__(self, max_length: int, gap: int | None = None, collapse_repeats: bool = False) -> None:
        super().__init__()
        self.max_length, self.gap, self.collapse_repeats = max_length, gap, collapse_repeats

    def transform(self, col_selector: ColumnSelector, df: pd.DataFrame) -> pd.DataFrame:
        """Group the events of one partition, which must hold whole sessions."""
        key, names = pd.factorize(df[SESSION])
        grouped = kernels.group(
            key.astype(np.int64),
            pd.factorize(df[ITEM])[0].astype(np.int64),
            df[TIME].to_numpy(),
            df[ORDER].to_numpy() if ORDER in df else None,
            max_length=self.max_length,
            gap=self.gap,
            collapse_repeats=self.collapse_repeats,
        )
        offsets = pa.array(grouped.offsets.astype(np.int32))
        columns: dict[str, Any] = {SESSION_ID: np.asarray(names)[grouped.keys]}
        for name in col_selector.names:
            if name not in KEYS:
                values = pa.array(df[name].to_numpy()[grouped.rows])
                lists = pa.ListArray.from_arrays(offsets, values)
                columns[name] = pd.arrays.ArrowExtensionArray(lists)  # type: ignore[attr-defined]  # absent from the stubs
        return pd.DataFrame(columns)

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """The session id, then the features."""
        return {SESSION_ID: [SESSION]} | {name: [name] for name in col_selector.names if name not in KEYS}

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """Lists of 1 to `max_length` values for features; the item carries its tags."""
        source: ColumnSchema = input_schema[input_schema.column_names[0]]
        if col_name == SESSION_ID:
            return ColumnSchema(SESSION_ID, dtype=source.dtype, tags=[Tags.SESSION_ID])
        tags = {*source.tags, *([Tags.ITEM_ID, Tags.ITEM] if col_name == ITEM_ID else [])}
        properties = {**source.properties, "value_count": {"min": 0, "max": self.max_length}}
        return ColumnSchema(
            col_name,
            dtype=source.dtype,
            tags=sorted(tags, key=str),
            properties=properties,
            is_list=True,
            is_ragged=True,
        )
