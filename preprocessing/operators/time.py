"""Features of the time of an event: a point on a circle, and the age of its item."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from preprocessing import kernels
from preprocessing.engine import ColumnSelector, Operator, StatOperator, Tags, dd


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
