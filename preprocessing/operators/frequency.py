"""How often training showed a value: a category as one number that knows nothing of what is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from preprocessing import feature_kernels, frames
from preprocessing.engine import ColumnSchema, ColumnSelector, Schema, StatOperator, Tags, dd
from preprocessing.feature_settings import frequency_name
from preprocessing.operators.reduce import merge_arrays, reduced


class Frequency(StatOperator):
    """The logarithm of 1 + the number of training events with the same value (``<name>_frequency``, float64).

    Inputs: encoded columns (`Encode`, Categorify). A value that training did not show has 0, a missing one NaN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, np.ndarray] = {}

    def fit(self, col_selector: ColumnSelector, ddf: dd.DataFrame) -> Any:
        """Lazily count the codes of every column."""
        return reduced(ddf, col_selector.names, _count, _add)

    def fit_finalize(self, dask_stats: dict[str, np.ndarray]) -> None:
        """Keep the counts as arrays indexed by code."""
        self.counts = dask_stats

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Look the counts up; see `feature_kernels.frequency`."""
        columns = {
            frequency_name(name): feature_kernels.frequency(frames.to_numpy(df[name]), self.counts[name])
            for name in col_selector.names
        }
        return type(df)(columns, index=df.index)

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """A number for each column."""
        return {frequency_name(name): [name] for name in col_selector.names}

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """A number; what the schema of the codes says is not true of it."""
        return ColumnSchema(col_name, dtype=np.float64, tags=[Tags.CONTINUOUS])

    def clear(self) -> None:
        """Forget the counts."""
        self.counts = {}

    def set_storage_path(self, new_path: str, copy: bool = False) -> None:
        """Nothing is kept outside the operator."""


def _count(df: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: np.bincount(frames.to_numpy(df[name]), minlength=1).astype(np.int64) for name in names}


def _add(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: merge_arrays([part[name] for part in parts], np.add, 0) for name in parts[0]}
