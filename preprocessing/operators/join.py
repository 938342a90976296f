"""Columns of a table beside the events, by a key."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing import frames
from preprocessing.engine import ColumnSchema, ColumnSelector, Operator, Schema
from preprocessing.tables import JoinedTable, index_of


class JoinTable(Operator):
    """Look a key up in a small table: one row an event comes out, whether the table has the key or not.

    Input: the column of keys. Outputs: the table's other columns, float64 (NaN where there is nothing) or text (null).
    The table lies in memory and travels with the workflow.

    Parameters
    ----------
    joined : JoinedTable
        The table; see `preprocessing.tables.read_joins`.
    """

    def __init__(self, joined: JoinedTable) -> None:
        super().__init__()
        self.on, self.table, self.source = joined.on, joined.table, joined.source

    @property
    def columns(self) -> list[str]:
        """The columns that are added."""
        return [name for name in self.table.column_names if name != self.on]

    @property
    def keys(self) -> pa.Array:
        """The table's keys: int64 or text, each once."""
        return self.table.column(self.on).combine_chunks()

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Look up the keys of one partition."""
        key = df[col_selector.names[0]]
        row = index_of(frames.to_arrow(key), self.keys, f"{self.source}: the key '{self.on}'")
        places = pa.array(row, mask=row < 0)
        taken = {name: _filled(self.table.column(name).take(places)) for name in self.columns}
        found = frames.from_table(pa.table(taken), frames.on_gpu(df))
        found.index = df.index
        return found

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """Every column comes from the key."""
        return {name: list(col_selector.names) for name in self.columns}

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """The type of the table's column; what the key's schema says is not true of it."""
        text = pa.types.is_string(self.table.schema.field(col_name).type)
        return ColumnSchema(col_name, dtype=str if text else np.float64)


def _filled(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """NaN for a missing number: a column of the events has it too, and not a null."""
    return pc.fill_null(values, math.nan) if pa.types.is_floating(values.type) else values
