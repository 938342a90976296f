"""Categories without a vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing import frames
from preprocessing.engine import ColumnSchema, ColumnSelector, Operator, Schema, Tags
from preprocessing.feature_kernels import hash_codes
from preprocessing.kernels import NULL, RESERVED


class HashBuckets(Operator):
    """Categories as the hash of their value: nothing is learnt, so no value is ever unknown.

    Codes (int64): 1 is a missing value, 3 to ``buckets + 2`` are for values; see `feature_kernels.stable_hash`. Columns
    of lists are encoded value by value.

    Parameters
    ----------
    buckets : int
        How many codes there are for values; values that share one cannot be told apart.
    """

    def __init__(self, buckets: int) -> None:
        super().__init__()
        if buckets < 1:
            raise ValueError(f"buckets must be at least 1, not {buckets}")
        self.buckets = buckets

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Codes of every column, int64, or lists of them."""
        return type(df)({name: self._encode(df[name]) for name in col_selector.names}, index=df.index)

    def _encode(self, column: Any) -> Any:
        if frames.on_gpu(column):
            return frames.map_distinct(column, self._codes, NULL)
        return frames.map_values(column, self._codes)

    def _codes(self, values: pa.Array) -> np.ndarray:
        values = frames.plain(values)
        if not pa.types.is_string(values.type):
            return hash_codes(values.to_numpy(zero_copy_only=False), self.buckets)
        # A text is hashed once, however often it occurs.
        distinct = values.dictionary_encode()
        hashed = hash_codes(frames.hashable(distinct.dictionary), self.buckets)
        places = pc.fill_null(distinct.indices, 0).to_numpy(zero_copy_only=False)
        present = values.is_valid().to_numpy(zero_copy_only=False)
        codes = np.full(len(values), NULL, dtype=np.int64)
        codes[present] = hashed[places[present]]
        return codes

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """Adds the domain and Merlin's embedding size."""
        schema: ColumnSchema = super().compute_column_schema(col_name, input_schema)
        return schema.with_properties(coded(col_name, RESERVED + self.buckets))

    @property
    def output_tags(self) -> list[Tags]:
        """Categorical."""
        return [Tags.CATEGORICAL]

    @property
    def output_dtype(self) -> type:
        """Whole numbers."""
        return np.int64


def coded(name: str, size: int) -> dict[str, Any]:
    """What a schema says of a column of codes below `size`: the domain, and Merlin's rule for embedding tables."""
    width = min(max(16, round(1.6 * size**0.56)), 512)
    return {
        "domain": {"min": 0, "max": size - 1, "name": name},
        "embedding_sizes": {"cardinality": size, "dimension": width},
    }
