"""What the operators need of a data frame, whichever kind it is: pandas over Arrow, or cudf.

Columns go to Arrow without a copy where that is possible. Lists are pandas ArrowDtype columns: flat values and
offsets, never a Python object a row. On cudf the same work is said in the data frame's own words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_lock = threading.Lock()
_lazy: list[bool] = []


@contextmanager
def lazy_copies() -> Iterator[None]:
    """Let pandas share columns between frames until one is written into, as pandas 3 does.

    The option is the process's: with several threads inside, the last one out puts it back.
    """
    with _lock:
        _lazy.append(bool(pd.options.mode.copy_on_write) if not _lazy else _lazy[0])
        pd.options.mode.copy_on_write = True
    try:
        yield
    finally:
        with _lock:
            before = _lazy.pop()
            if not _lazy:
                pd.options.mode.copy_on_write = before


def on_gpu(frame: Any) -> bool:
    """Whether a data frame or a column is cudf's."""
    return type(frame).__module__.partition(".")[0] == "cudf"


def to_arrow(column: Any) -> pa.Array:
    """A column, or an array, as one Arrow array; NaN in a pandas column of numbers is a missing value."""
    if on_gpu(column):
        return column.to_arrow()
    array = getattr(column, "array", column)
    if isinstance(array, pd.arrays.ArrowExtensionArray):  # type: ignore[attr-defined]  # absent from the stubs
        chunks = array.__arrow_array__()
        return chunks.combine_chunks() if isinstance(chunks, pa.ChunkedArray) else chunks
    if _of_numpy(array):
        return pa.array(np.asarray(array), from_pandas=True)
    # Categories, nullable numbers, times of a zone: as Python objects they would lose their kind, times nanoseconds.
    values = pa.array(pd.Series(array), from_pandas=True)
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _of_numpy(array: Any) -> bool:
    extension = pd.arrays.NumpyExtensionArray  # type: ignore[attr-defined]  # absent from the stubs
    return isinstance(array, np.ndarray | extension) or isinstance(array.dtype, np.dtype)


def to_table(frame: Any) -> pa.Table:
    """A data frame as an Arrow table, without an index."""
    if on_gpu(frame):
        return frame.to_arrow(preserve_index=False).replace_schema_metadata(None)
    return pa.table({name: to_arrow(frame[name]) for name in frame.columns})


def from_table(table: pa.Table, gpu: bool = False) -> Any:
    """An Arrow table as a data frame: numbers as numpy columns, text and lists as Arrow columns."""
    if gpu:
        import cudf

        # To cudf NaN is a number like others, and a missing value is null.
        return cudf.DataFrame.from_arrow(table).nans_to_nulls()
    return table.to_pandas(types_mapper=_arrow_type, split_blocks=True)


def _arrow_type(kind: pa.DataType) -> Any:
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return pd.ArrowDtype(kind) if nested or pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def decoded(table: pa.Table) -> pa.Table:
    """The same table with dictionaries as the values that they stand for."""
    for position, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(field.type.value_type))
    return table


def arrow_column(values: pa.Array) -> Any:
    """A pandas column that holds an Arrow array as it is."""
    return pd.arrays.ArrowExtensionArray(values)  # type: ignore[attr-defined]  # absent from the stubs


def lists(values: pa.Array, offsets: np.ndarray) -> Any:
    """A pandas column of lists from flat values [M] and offsets [S + 1]."""
    return arrow_column(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values))


def list_column(column: Any, rows: np.ndarray, offsets: np.ndarray) -> Any:
    """A column of lists: the values in `rows` [M] (positions), cut at `offsets` [S + 1]."""
    if on_gpu(column):
        from merlin.core.dispatch import build_cudf_list_column

        return build_cudf_list_column(column.take(rows).reset_index(drop=True), _device(offsets.astype(np.int32)))
    return lists(to_arrow(take(column, rows)), offsets)


def _device(values: np.ndarray) -> Any:
    import cudf

    return cudf.Series(values)


def take(column: Any, rows: np.ndarray) -> Any:
    """The values in `rows` [M] (positions) of a column or of distinct values, without its index."""
    if on_gpu(column):
        return column.take(rows).reset_index(drop=True)
    if isinstance(column, np.ndarray):
        return column[rows]
    array = getattr(column, "array", column)
    return np.asarray(array)[rows] if _of_numpy(array) else array.take(rows)


def to_numpy(column: Any) -> np.ndarray:
    """A column of numbers in the memory of the CPU; what is missing is NaN."""
    if on_gpu(column) and column.has_nulls:
        return np.asarray(column.to_arrow().to_numpy(zero_copy_only=False))
    return np.asarray(column.to_numpy())


def factorize(column: Any) -> tuple[np.ndarray, Any]:
    """Number the values of a column from 0 by first appearance: int64 [N], and the distinct values."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "i" and len(column):
        # Partitions come session by session: one look a run of equal values, not one a value.
        values = column.to_numpy()
        begins = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
        if len(begins) * 2 < len(values):
            codes, distinct = pd.factorize(values[begins])
            return np.repeat(codes.astype(np.int64), np.diff(np.append(begins, len(values)))), distinct
    codes, distinct = column.factorize()
    codes = codes.get() if hasattr(codes, "get") else codes  # a GPU's numbers are cupy's
    # Distinct values of a cudf column are an index, from which no rows can be taken as from a column.
    distinct = distinct.to_series().reset_index(drop=True) if on_gpu(distinct) else distinct
    return np.asarray(codes, dtype=np.int64), distinct


def plain(values: pa.Array) -> pa.Array:
    """Without a dictionary and without the large variants of text; numbers as int64 or float64."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return plain(values.dictionary_decode())
    if pa.types.is_large_string(kind):
        return values.cast(pa.string())
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8()).cast(pa.int64())
    if pa.types.is_integer(kind) and kind != pa.int64():
        return values.cast(pa.int64())
    if pa.types.is_floating(kind) and kind != pa.float64():
        return values.cast(pa.float64())
    return values


def map_values(column: pd.Series, function: Callable[[pa.Array], np.ndarray]) -> Any:
    """Apply a function of values to a column, or to the values inside a column of lists."""
    array = to_arrow(column)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        # `flatten` leaves out what slices and null lists hide; offsets are made anew from the lengths.
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return lists(function(array.flatten()), offsets)
    return function(array)


def value_counts(column: Any) -> tuple[pa.Array, pa.Array]:
    """Distinct values, null among them, and how often each occurs (int64); of lists, the values inside."""
    if on_gpu(column):
        column = column.list.leaves if _of_lists(column) else column
        counted = column.nans_to_nulls().value_counts(dropna=False)
        return plain(counted.index.to_arrow()), pa.array(counted.to_numpy().astype(np.int64))
    array = to_arrow(column)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        array = array.flatten()
    counted = pc.value_counts(plain(array))
    return counted.field("values"), counted.field("counts")


def _of_lists(column: Any) -> bool:
    """Whether a cudf column holds lists."""
    return type(column.dtype).__name__ == "ListDtype"


def hashable(values: pa.Array) -> np.ndarray:
    """Distinct values as `feature_kernels.stable_hash` takes them: numbers, or text as objects."""
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), dtype=object)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def map_distinct(column: Any, function: Callable[[pa.Array], np.ndarray], missing: int) -> Any:
    """Apply a function to the distinct values of a column and join the answers back, where the column lives.

    In the words that pandas and cudf share: only the distinct values leave a GPU.

    Parameters
    ----------
    column : cudf.Series or pandas.Series [N]
        Single values; of cudf lists, too, whose values are mapped.
    function : callable
        Arrow values [K] -> int64 [K].
    missing : int
        The answer for missing values.

    Returns
    -------
    cudf.Series or pandas.Series [N]
        int64, with the index of `column`.
    """
    if _of_lists(column):
        from merlin.core.dispatch import encode_list_column

        return encode_list_column(column, map_distinct(column.list.leaves, function, missing))
    asked = column.reset_index(drop=True).to_frame("value")
    distinct = asked["value"].dropna().drop_duplicates().reset_index(drop=True)
    known = distinct.to_frame("value")
    known["answer"] = function(to_arrow(distinct))
    asked["row"] = np.arange(len(asked))
    # A join does not promise the order of its rows.
    joined = asked.merge(known, on="value", how="left").sort_values("row")
    answer = joined["answer"].fillna(missing).astype("int64")
    answer.index = column.index
    return answer


def codes(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Number the values from 0 by first appearance: int64 [N]."""
    if pa.types.is_integer(values.type):
        return np.asarray(pd.factorize(values.to_numpy())[0], dtype=np.int64)
    encoded = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return np.asarray(encoded.dictionary_encode().indices.to_numpy(zero_copy_only=False), dtype=np.int64)
