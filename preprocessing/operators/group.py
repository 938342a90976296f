"""The grouping of events into sessions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from preprocessing import kernels
from preprocessing.engine import ColumnSchema, ColumnSelector, Operator, Schema, Tags
from preprocessing.settings import ITEM_ID, SESSION_ID

# The inputs of GroupSessions that are not features; raw values under names no feature can have.
SESSION, ITEM, TIME, ORDER = "_nextitem_session", "_nextitem_item", "_nextitem_time", "_nextitem_order"
KEYS = (SESSION, ITEM, TIME, ORDER)


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
