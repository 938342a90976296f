"""Statistics over all partitions, merged a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import numpy as np

from preprocessing.engine import dd

# How many partial results are merged at a time: few enough to fit in memory, many enough for a shallow tree.
_FAN_IN = 8


def reduced(ddf: dd.DataFrame, names: Sequence[str], part: Callable[..., Any], merge: Callable[..., Any]) -> Any:
    """A statistic of some columns, lazily.

    Parameters
    ----------
    ddf : dask.dataframe.DataFrame
        The data.
    names : sequence of str
        The columns.
    part : callable
        (data frame, names) -> the statistic of one partition.
    merge : callable
        (list of statistics) -> their sum. The result must not depend on how they are put together.

    Returns
    -------
    dask.delayed.Delayed
    """
    names = list(names)
    parts = [dask.delayed(part)(frame, names) for frame in ddf[names].to_delayed(optimize_graph=False)]
    while len(parts) > 1:
        parts = [dask.delayed(merge)(parts[start : start + _FAN_IN]) for start in range(0, len(parts), _FAN_IN)]
    return parts[0]


def merge_arrays(arrays: Sequence[np.ndarray], function: np.ufunc, empty: float) -> np.ndarray:
    """Arrays of different lengths as one, element by element; `empty` stands where an array has ended."""
    longest = max(len(array) for array in arrays)
    merged = np.full(longest, empty, dtype=arrays[0].dtype)
    for array in arrays:
        function(merged[: len(array)], array, out=merged[: len(array)])
    return merged
