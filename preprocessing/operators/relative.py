"""A number next to the training mean of its category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from preprocessing import feature_kernels, frames
from preprocessing.engine import ColumnSchema, ColumnSelector, Schema, StatOperator, Tags, dd
from preprocessing.kernels import RESERVED
from preprocessing.operators.reduce import merge_arrays, reduced


class Relative(StatOperator):
    """The ratio (or difference) of a number to the mean of its category in training (float64).

    Inputs: the number, then the encoded category (`Encode`, Categorify). Categories that training did not show, and
    those that are missing, have the mean of all events. Means are kept in single precision, where the order in which
    partitions are added no longer shows.

    Parameters
    ----------
    name : str
        The output.
    log : bool
        The logarithm of the ratio, of positive numbers only: others count as missing, in the means too. Or else the
        difference.
    """

    def __init__(self, name: str, log: bool = True) -> None:
        super().__init__()
        self.name, self.log = name, log
        self.means: np.ndarray | None = None

    def fit(self, col_selector: ColumnSelector, ddf: dd.DataFrame) -> Any:
        """Lazily add up the numbers of every category."""
        return reduced(ddf, col_selector.names, _sums_of_positive if self.log else _sums, _add)

    def fit_finalize(self, dask_stats: tuple[np.ndarray, np.ndarray]) -> None:
        """Keep the means as an array indexed by code, with the mean of all where there is none."""
        total, count = dask_stats
        overall = float(total.sum() / count.sum()) if count.sum() else 0.0
        means = np.divide(total, count, out=np.full(len(total), overall), where=count > 0)
        means[:RESERVED] = overall
        self.means = np.append(means, [overall] * max(0, RESERVED - len(means))).astype(np.float32).astype(np.float64)

    def transform(self, col_selector: ColumnSelector, df: Any) -> Any:
        """Compare with the means; see `feature_kernels.relative`."""
        assert self.means is not None, "fit the workflow first"
        number, category = (frames.to_numpy(df[name]) for name in col_selector.names)
        values = feature_kernels.relative(number, category, self.means, self.log)
        return type(df)({self.name: values}, index=df.index)

    def column_mapping(self, col_selector: ColumnSelector) -> dict[str, list[str]]:
        """The output comes from number and category."""
        return {self.name: list(col_selector.names)}

    def compute_column_schema(self, col_name: str, input_schema: Schema) -> ColumnSchema:
        """A number of its own."""
        return ColumnSchema(col_name, dtype=np.float64, tags=[Tags.CONTINUOUS])

    def clear(self) -> None:
        """Forget the means."""
        self.means = None

    def set_storage_path(self, new_path: str, copy: bool = False) -> None:
        """Nothing is kept outside the operator."""


def _sums(df: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the numbers of each code."""
    number, category = (frames.to_numpy(df[name]) for name in names)
    return _summed(number.astype(np.float64), category, ~np.isnan(number))


def _sums_of_positive(df: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    number, category = (frames.to_numpy(df[name]) for name in names)
    return _summed(number.astype(np.float64), category, number > 0)


def _summed(number: np.ndarray, category: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    number, category = number[usable], category[usable]
    # Of nothing at all numpy counts in whole numbers, weights or not.
    return np.bincount(category, number, minlength=1).astype(np.float64), np.bincount(category, minlength=1)


def _add(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    sums, counts = zip(*parts, strict=True)
    return merge_arrays(sums, np.add, 0), merge_arrays(counts, np.add, 0)
