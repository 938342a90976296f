"""The grouping of events: any columns by any keys (`Group`), and events into sessions (`GroupSessions`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from preprocessing import frames, kernels
from preprocessing.engine import ColumnSchema, ColumnSelector, Operator, Schema, Tags, ops
from preprocessing.settings import ITEM_ID, SESSION_ID

# The inputs of GroupSessions that are not features; raw values under names no feature can have.
SESSION, ITEM, TIME, ORDER = "_nextitem_session", "_nextitem_item", "_nextitem_time", "_nextitem_order"
KEYS = (SESSION, ITEM, TIME, ORDER)
_REDUCTIONS: dict[str, np.ufunc] = {"min": np.minimum, "max": np.maximum, "sum": np.add, "mean": np.add}


class Group(ops.Groupby):
    """What Groupby and then ListSlice do, over flat arrays and offsets: no Python object a group.

    Takes Groupby's arguments, gives its columns, names, dtypes and schema, groups in the order of their keys. Rows
    whose key is missing are left out. Equal sort keys keep the order of the input.

    Parameters
    ----------
    groupby_cols, sort_cols : str or list of str
        The keys, and what the rows of a group are sorted by.
    aggs : dict, list or str
        ``list``, ``first``, ``last``, ``count`` (of values that are there), ``min``, ``max``, ``sum``, ``mean``.
    name_sep : str
        Between column and aggregate in the name of an output.
    ascending : bool
        The direction of the sort. ``first`` and ``last`` are the smallest and the largest either way, as in Groupby.
    max_length : int, optional
        Lists hold the last so many values of the sort (most recent events, if that is time).
    """

    def __init__(
        self,
        groupby_cols: str | list[str] | None = None,
        sort_cols: str | list[str] | None = None,
        aggs: Any = "list",
        name_sep: str = "_",
        ascending: bool = True,
        max_length: int | None = None,
    ) -> None:
        super().__init__(groupby_cols, sort_cols, aggs, name_sep, ascending)
        self.max_length = max_length
        known = {"list", "first", "last", "count", *_REDUCTIONS}
        asked = {agg for wanted in (self.list_aggs, self.conv_aggs) for found in wanted.values() for agg in found}
        for agg in asked - known - {list}:
            raise ValueError(f"Group does not know the aggregate {agg!r}: use one of {', '.join(sorted(known))}")

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Group one partition, which must hold whole groups."""
        if frames.on_gpu(df):
            return self._on_gpu(col_selector, df)
        key, names = _group_codes(df, self.groupby_cols)
        sort = [_sort_key(df[name], self.ascending) for name in reversed(self.sort_cols)]
        rows = np.lexsort(sort) if sort else np.arange(len(df), dtype=np.int64)
        rows = rows[key[rows] >= 0]
        rows = rows[kernels.sort_codes(key[rows])]
        offsets = np.searchsorted(key[rows], np.arange(len(names) + 1))
        columns = {name: frames.take(df[name], names) for name in self.groupby_cols if name in col_selector.names}
        for output, (source, *_) in self.column_mapping(col_selector).items():
            if output not in columns:
                agg = output.removeprefix(source + self.name_sep)
                columns[output] = self._aggregate(df[source], agg, rows, offsets)
        return pd.DataFrame(columns)

    def _aggregate(self, column: pd.Series, agg: str, rows: np.ndarray, offsets: np.ndarray) -> Any:
        first, last = offsets[:-1], offsets[1:]
        if agg == "list":
            if self.max_length is not None:
                # Sorted downwards, the most recent come first.
                keep = (last - self.max_length, last) if self.ascending else (first, first + self.max_length)
                rows, offsets = kernels.take_ranges(rows, np.maximum(keep[0], first), np.minimum(keep[1], last))
            return frames.lists(frames.to_arrow(frames.take(column, rows)), offsets)
        if agg in ("first", "last"):
            return frames.take(column, rows[first if (agg == "first") == self.ascending else last - 1])
        there = column.notna().to_numpy()[rows]
        counts = np.add.reduceat(there, first, dtype=np.int64) if len(first) else np.zeros(0, np.int64)
        if agg == "count":
            return counts.astype(np.int32)
        if agg in ("min", "max") and column.dtype.kind not in "biuf":
            return self._extreme(column, agg, rows, offsets, counts)
        values = column.to_numpy()[rows]
        if agg in ("sum", "mean") and values.dtype.kind in "bf":
            values = values.astype(np.float64)
        fill: Any = 0
        if agg in ("min", "max") and values.dtype.kind == "f":
            fill = np.inf if agg == "min" else -np.inf
        values = values if there.all() else np.where(there, values, fill)
        result = _REDUCTIONS[agg].reduceat(values, first) if len(first) else values[:0]
        if agg in ("min", "max"):
            return result if counts.all() else np.where(counts > 0, result, np.nan)
        with np.errstate(invalid="ignore"):
            return (result / counts if agg == "mean" else result).astype(np.float32)

    def _extreme(self, column: pd.Series, agg: str, rows: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> Any:
        """The smallest or largest of text or times: by the place of each value among all."""
        codes, distinct = pd.factorize(column, sort=True)
        codes = codes[rows]
        codes = np.where(codes < 0, len(distinct), codes) if agg == "min" else codes
        place = _REDUCTIONS[agg].reduceat(codes, offsets[:-1]) if len(counts) else codes[:0]
        return pd.Series(distinct).reindex(np.where(counts > 0, place, -1)).reset_index(drop=True)

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """As Groupby gives it, and for lists of a limited length then ListSlice."""
        schema: ColumnSchema = super().compute_column_schema(col_name, input_schema)
        if self.max_length is None or self._find_agg(schema, input_schema) != "list":
            return schema
        properties = {**schema.properties, "value_count": {"min": 0, "max": self.max_length}}
        return schema.with_shape((None, (0, self.max_length))).with_properties(properties).with_tags([Tags.LIST])

    def _find_agg(self, col_schema: ColumnSchema, input_schema: Schema) -> str:
        # Groupby takes the column's name out of the output's wherever it stands: of "i-list" it leaves "lst".
        source, *_ = self.column_mapping(ColumnSelector(input_schema.column_names))[col_schema.name]
        return str(col_schema.name).removeprefix(f"{source}{self.name_sep}")

    def _on_gpu(self, col_selector: ColumnSelector, df: Any) -> Any:
        """The stock operators, which are at home there."""
        grouped = super().transform(col_selector, df)
        if self.max_length is not None:
            names = [f"{name}{self.name_sep}list" for name in col_selector.names]
            names = [name for name in names if name in grouped.columns]
            part = ops.ListSlice(-self.max_length) if self.ascending else ops.ListSlice(0, self.max_length)
            for name, column in part.transform(ColumnSelector(names), grouped).items():
                grouped[name] = column
        return grouped


def _group_codes(df: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the groups in the order of their keys (-1: a key is missing), and a row that shows each group's keys."""
    codes = np.zeros(len(df), dtype=np.int64)
    for name in names:
        column, values = pd.factorize(df[name], sort=True)
        joined = np.where((column < 0) | (codes < 0), -1, codes * max(1, len(values)) + column)
        codes, _ = pd.factorize(pd.Series(joined).where(joined >= 0), sort=True)
    distinct, shown = np.unique(codes, return_index=True)
    return codes.astype(np.int64), shown[distinct >= 0]


def _sort_key(column: pd.Series, ascending: bool) -> np.ndarray:
    """Numbers that sort as the column does; what is missing comes last either way, as in pandas."""
    if column.dtype.kind in "iufM" and not isinstance(column.dtype, pd.ArrowDtype):
        values = column.to_numpy()
        if ascending:
            return values
    codes, distinct = pd.factorize(column, sort=True)
    return np.where(codes < 0, len(distinct), codes if ascending else len(distinct) - 1 - codes)


class GroupSessions(Operator):
    """Turn events into sessions: one row a session, a list a feature, oldest event first.

    Inputs: the key columns (`KEYS`; order is optional) and any number of encoded feature columns. Lists are Arrow
    arrays with offsets (pandas ArrowDtype), so no Python object is made a session. See `kernels.group`, which runs on
    the CPU wherever the columns are.

    Parameters
    ----------
    max_length : int
        The most recent events that are kept.
    gap : int, optional
        Nanoseconds of inactivity that begin another session of the same key.
    collapse_repeats : bool
        Of equal items in a row keep the first.
    drop_unknown : bool
        Leave out events whose encoded item (the column ``item_id``) is unknown, before anything else.
    min_length : int
        Leave out sessions with fewer events, counted before `max_length` cuts.
    """

    def __init__(
        self,
        max_length: int,
        gap: int | None = None,
        collapse_repeats: bool = False,
        drop_unknown: bool = False,
        min_length: int = 1,
    ) -> None:
        super().__init__()
        self.max_length, self.gap, self.collapse_repeats = max_length, gap, collapse_repeats
        self.drop_unknown, self.min_length = drop_unknown, min_length

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Group the events of one partition, which must hold whole sessions."""
        return self.group(col_selector, df)[0]

    def group(self, col_selector: ColumnSelector, df: Any) -> tuple[Any, dict[str, int]]:
        """What `transform` does, and how many events were left out, by reason."""
        seen = len(df)
        if self.drop_unknown:
            df = df[df[ITEM_ID] != kernels.UNKNOWN].reset_index(drop=True)
        key, names = frames.factorize(df[SESSION])
        grouped = kernels.group(
            key,
            frames.factorize(df[ITEM])[0] if self.collapse_repeats else key,
            frames.to_numpy(df[TIME]),
            frames.to_numpy(df[ORDER]) if ORDER in df.columns else None,
            max_length=self.max_length,
            gap=self.gap,
            collapse_repeats=self.collapse_repeats,
            min_length=self.min_length,
        )
        dropped = {
            "of unknown items": seen - len(df),
            "repeats of the item before": grouped.repeats,
            f"in sessions shorter than {self.min_length} known items": grouped.short,
            f"older than a session's latest {self.max_length}": grouped.older,
        }
        columns: dict[str, Any] = {SESSION_ID: frames.take(names, grouped.keys)}
        for name in col_selector.names:
            if name not in KEYS:
                columns[name] = frames.list_column(df[name], grouped.rows, grouped.offsets)
        return type(df)(columns), {reason: count for reason, count in dropped.items() if count}

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
