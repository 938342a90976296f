"""The encoding of categorical columns: counts by Arrow, look-ups by hash or by position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing import frames
from preprocessing.engine import ColumnSchema, ColumnSelector, Schema, StatOperator, Tags, dd
from preprocessing.feature_kernels import stable_hash
from preprocessing.kernels import NULL, RESERVED, UNKNOWN

# How many partial counts are merged at a time: few enough to fit in memory, many enough for a shallow tree.
_FAN_IN = 8
# A table by position is worth its memory while it is at most this many times larger than the vocabulary.
_SPREAD = 16
_LARGEST = np.iinfo(np.int64).max


class Encode(StatOperator):
    """Categories as whole numbers, the most frequent first: what Categorify does, without its cost.

    Codes (int64): 0 is left for padding, 1 is a missing value, 2 an unknown one, and known values follow from 3 by
    falling count in the data that the operator was fitted on; equal counts go by value, ascending, so that neither
    partitions nor workers change a code. With `buckets`, codes 3 to ``buckets + 2`` are for rare and unknown values, by
    hash, and known values follow from ``buckets + 3``. Columns of lists are encoded value by value.

    Parameters
    ----------
    min_count : int
        Values seen less often are rare: they share the code of unknown values, or the buckets.
    max_size : int
        At most so many values are known, the most frequent ones; 0 for all.
    buckets : int
        Codes that rare and unknown values are spread over; 0 for the one code of unknown values.

    Attributes
    ----------
    values : dict of str to pyarrow.Array
        Known values of each column in the order of their codes.
    counts : dict of str to int64 array
        How often each known value was seen.
    nulls, rare : dict of str to int
        Missing values, and events of values that are too rare to be known.
    """

    def __init__(self, min_count: int = 0, max_size: int = 0, buckets: int = 0) -> None:
        super().__init__()
        if min(min_count, max_size, buckets) < 0:
            raise ValueError("min_count, max_size and buckets must not be negative")
        self.min_count, self.max_size, self.buckets = min_count, max_size, buckets
        self.clear()

    def clear(self) -> None:
        """Forget the vocabularies."""
        self.values: dict[str, pa.Array] = {}
        self.counts: dict[str, np.ndarray] = {}
        self.nulls: dict[str, int] = {}
        self.rare: dict[str, int] = {}
        self._tables: dict[str, _Table] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Look-up tables are made anew where they are needed.
        return self.__dict__ | {"_tables": {}}

    def fit(self, col_selector: ColumnSelector, ddf: dd.DataFrame) -> Any:
        """Lazily count the values of every column."""
        names = col_selector.names
        parts = [dask.delayed(_count)(part, names) for part in ddf[names].to_delayed(optimize_graph=False)]
        while len(parts) > 1:
            parts = [
                dask.delayed(_merge)(parts[start : start + _FAN_IN], names) for start in range(0, len(parts), _FAN_IN)
            ]
        return parts[0]

    def fit_finalize(self, dask_stats: dict[str, pa.Table]) -> None:
        """Order the values by count."""
        for name, table in dask_stats.items():
            missing = pc.is_null(table.column("value"))
            self.nulls[name] = pc.sum(table.filter(missing).column("count")).as_py() or 0
            known = table.filter(pc.invert(missing))
            total = pc.sum(known.column("count")).as_py() or 0
            if self.min_count > 1:
                known = known.filter(pc.greater_equal(known.column("count"), self.min_count))
            known = known.sort_by([("count", "descending"), ("value", "ascending")])
            known = known.slice(0, self.max_size or None).combine_chunks()
            self.values[name] = _one(known.column("value"))
            self.counts[name] = known.column("count").to_numpy()
            self.rare[name] = total - int(self.counts[name].sum())

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Codes of every column, int64, or lists of them."""
        return type(df)({name: self._encode(df[name], name) for name in col_selector.names}, index=df.index)

    def _encode(self, column: Any, name: str) -> Any:
        if name not in self.values:
            raise RuntimeError(f"Encode was not fitted on the column '{name}': fit the workflow first")
        if name not in self._tables:
            self._tables[name] = _Table(self.values[name], self.buckets)
        if frames.on_gpu(column):
            return frames.map_distinct(column, self._tables[name].encode, NULL)
        return frames.map_values(column, self._tables[name].encode)

    def cardinality(self, name: str) -> int:
        """Rows that an embedding table of this column needs: its largest code + 1."""
        return RESERVED + self.buckets + len(self.values[name])

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """Adds the domain and Merlin's embedding size, once the values are known."""
        schema: ColumnSchema = super().compute_column_schema(col_name, input_schema)
        if col_name not in self.values:
            return schema
        size = self.cardinality(col_name)
        width = min(max(16, round(1.6 * size**0.56)), 512)
        return schema.with_properties(
            {
                "domain": {"min": 0, "max": size - 1, "name": col_name},
                "embedding_sizes": {"cardinality": size, "dimension": width},
            }
        )

    def set_storage_path(self, new_path: str, copy: bool = False) -> None:
        """Nothing is kept outside the operator."""

    @property
    def output_tags(self) -> list[Tags]:
        """Categorical."""
        return [Tags.CATEGORICAL]

    @property
    def output_dtype(self) -> type:
        """Whole numbers."""
        return np.int64


class _Table:
    """Look-ups in one vocabulary."""

    def __init__(self, values: pa.Array, buckets: int) -> None:
        self.values, self.buckets, self.first = values, buckets, RESERVED + buckets
        self.low, self.codes, self.index = 0, None, None
        if pa.types.is_integer(values.type) and len(values):
            numbers = values.to_numpy(zero_copy_only=False)
            low, high = int(numbers.min()), int(numbers.max())
            if high - low < _SPREAD * len(numbers) + 65_536 and low >= -_LARGEST and high < _LARGEST:
                # One place before and one behind: what lies outside is looked up there.
                self.low = low - 1
                self.codes = np.full(high - low + 3, UNKNOWN, dtype=np.int64)
                self.codes[numbers - self.low] = np.arange(self.first, self.first + len(numbers))
            else:
                # Unlike Arrow's look-up, it keeps its hash table from one partition to the next.
                self.index = pd.Index(numbers)
                self.index.get_indexer(numbers[:1])

    def encode(self, values: pa.Array) -> np.ndarray:
        """Codes of Arrow values: int64 [N]."""
        values = frames.plain(values)
        if not pa.types.is_integer(values.type) or values.null_count:
            codes = self._by_hash(values)
        elif self.codes is not None:
            numbers = values.to_numpy()
            codes = self.codes[np.clip(numbers, self.low, self.low + len(self.codes) - 1) - self.low]
        elif self.index is not None:
            position = self.index.get_indexer(values.to_numpy())
            codes = np.where(position < 0, UNKNOWN, position + self.first).astype(np.int64)
        else:
            codes = self._by_hash(values)
        if self.buckets:
            self._spread(values, codes)
        return codes

    def _by_hash(self, values: pa.Array) -> np.ndarray:
        known = self.values
        if values.type != known.type:
            common = pa.string() if pa.types.is_string(known.type) or pa.types.is_string(values.type) else pa.float64()
            values, known = values.cast(common), known.cast(common)
        position = pc.index_in(values, known)
        codes = pc.fill_null(position, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        codes = np.where(codes < 0, UNKNOWN, codes + self.first)
        if values.null_count:
            codes[pc.is_null(values).to_numpy(zero_copy_only=False)] = NULL
        return codes

    def _spread(self, values: pa.Array, codes: np.ndarray) -> None:
        """Unknown values into buckets, in place."""
        places = np.flatnonzero(codes == UNKNOWN)
        distinct = values.take(pa.array(places)).dictionary_encode()
        hashed = stable_hash(frames.hashable(distinct.dictionary)) % np.uint64(self.buckets)
        codes[places] = RESERVED + hashed.astype(np.int64)[distinct.indices.to_numpy(zero_copy_only=False)]


def _count(df: Any, names: Sequence[str]) -> dict[str, pa.Table]:
    """Values of one partition and how often each occurs; null is a value."""
    return {name: _table(*frames.value_counts(df[name])) for name in names}


def _merge(parts: Sequence[dict[str, pa.Table]], names: Sequence[str]) -> dict[str, pa.Table]:
    merged = {}
    for name in names:
        tables = [part[name] for part in parts]
        kinds = {table.schema.field("value").type for table in tables}
        if len(kinds) > 1:
            # Of a partition that holds nothing, not even the kind is known.
            kinds.discard(pa.null())
            # Whole numbers in one partition, with gaps (as floating point) in another.
            text = any(pa.types.is_string(kind) for kind in kinds)
            kind = kinds.pop() if len(kinds) == 1 else pa.string() if text else pa.float64()
            tables = [_table(table.column("value").cast(kind), table.column("count")) for table in tables]
        grouped = pa.concat_tables(tables).group_by("value", use_threads=False).aggregate([("count", "sum")])
        merged[name] = _table(grouped.column("value"), grouped.column("count_sum"))
    return merged


def _table(values: Any, counts: Any) -> pa.Table:
    return pa.table({"value": values, "count": counts})


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
