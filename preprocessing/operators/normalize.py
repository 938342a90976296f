"""Normalize, with moments that do not depend on how the data is cut."""

from __future__ import annotations

from typing import Any

from preprocessing.engine import ColumnSelector, dd, ops


class Normalize(ops.Normalize):
    """NVTabular's Normalize, its sums in double precision.

    The stock operator adds up numbers in the precision that they come in, and `LogOp` gives single precision: there
    the deviation of a logged price moved by some 1e-5 with the number of partitions.
    """

    def fit(self, col_selector: ColumnSelector, ddf: dd.DataFrame) -> Any:
        """Lazily compute the moments of every column."""
        return super().fit(col_selector, ddf[col_selector.names].astype("float64"))
