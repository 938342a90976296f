"""Columns of raw events as the tensors that the server asked for.

Every conversion keeps the value: text that reads as a number becomes one where a number is expected, a whole float
becomes an integer, a date becomes ISO 8601 text. What cannot be kept is an error that names the column and the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

Column: TypeAlias = Sequence[Any] | NDArray[Any]

NUMPY = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def convert_events(events: Mapping[str, Column], inputs: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Convert raw event columns to the tensors of a request.

    Parameters
    ----------
    events : mapping of str to sequence
        Column name -> N values (lists, numpy arrays, Arrow or pandas columns). Columns that the model does not know
        are ignored. None is a missing value: NaN in a float column, empty text in a text column.
    inputs : mapping of str to str
        Input name -> Triton's data type (``"INT64"``, ``"BYTES"``, ...).

    Returns
    -------
    dict of str to ndarray
        Input name -> array of shape [N] in the type asked for; BYTES are object arrays of ``bytes``.

    Raises
    ------
    UserError
        When a column is missing, there are no events, the columns differ in length, or a value does not convert.
        Rows count from 1.
    """
    missing = [name for name in inputs if name not in events]
    if missing:
        expected = ", ".join(f"{name} ({_word(dtype)})" for name, dtype in inputs.items())
        noun = "column" if len(missing) == 1 else "columns"
        raise UserError(f"missing {noun} {', '.join(missing)}: the model expects {expected}")
    lengths = {name: len(events[name]) for name in inputs}
    if not any(lengths.values()):
        raise UserError("there are no events: give at least one")
    first = next(iter(inputs))
    for name, length in lengths.items():
        if length != lengths[first]:
            raise UserError(f"column {name} has {length} values, column {first} has {lengths[first]}")
    return {name: convert_column(name, events[name], dtype) for name, dtype in inputs.items()}


def convert_column(name: str, values: Column, dtype: str) -> NDArray[Any]:
    """Convert one column (see `convert_events`); `name` is for the error message."""
    if dtype not in NUMPY:
        raise UserError(f"column {name}: the model wants {dtype}, which this client cannot send")
    kind = np.dtype(NUMPY[dtype])
    if isinstance(values, np.ndarray) and _casts(values.dtype, kind):
        return np.ascontiguousarray(values, dtype=kind)
    parse = _parser(dtype, kind)
    result = np.empty(len(values), dtype=kind)
    # An Arrow column yields scalars of its own; its list holds Python values.
    listed = values.to_pylist() if hasattr(values, "to_pylist") else values
    for row, value in enumerate(listed):
        try:
            result[row] = parse(value.item() if isinstance(value, np.generic) and value.dtype.kind != "M" else value)
        except (ValueError, TypeError, OverflowError) as error:
            shown = f"{value!r:.60}" if not isinstance(value, float) else f"{value:g}"
            reason = f" ({error})" if isinstance(error, _ValueIsWrong) else ""
            raise UserError(f"column {name}, row {row + 1}: expected {_word(dtype)}, got {shown}{reason}") from error
    return result


def _casts(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether a whole array converts at once without losing a value (beyond a float's precision)."""
    if source.kind == target.kind == "f":
        return True
    return (source == target and source.kind != "O") or (source.kind in "iu" and np.can_cast(source, target, "safe"))


class _ValueIsWrong(ValueError):
    """Says more than that the value has the wrong type."""


def _word(dtype: str) -> str:
    if dtype == "BYTES":
        return "text"
    return "true or false" if dtype == "BOOL" else "an integer" if "INT" in dtype else "a number"


def _parser(dtype: str, kind: np.dtype[Any]) -> Callable[[Any], Any]:
    if dtype == "BYTES":
        return _to_bytes
    if dtype == "BOOL":
        return _to_bool
    if "INT" in dtype:
        limits = np.iinfo(kind)
        return lambda value: _to_int(value, int(limits.min), int(limits.max))
    return _to_float


def _to_bytes(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    # pandas' timestamps are datetimes; its NaT is one too, and like numpy's is not equal to itself.
    if isinstance(value, date | np.datetime64):
        if value != value:
            return b""
        return str(value).encode() if isinstance(value, np.datetime64) else value.isoformat().encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).encode()
    raise TypeError


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return _WORDS[value.strip().lower()] if isinstance(value, str) and value.strip().lower() in _WORDS else _fail()


def _to_int(value: Any, low: int, high: int) -> int:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise _ValueIsWrong("a missing value")
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, date | np.datetime64):
        raise _ValueIsWrong("give the time as the integer that the training data has")
    number = int(_plain(value))
    if not isinstance(value, str) and number != value:
        raise ValueError
    if not low <= number <= high:
        raise _ValueIsWrong(f"it must be from {low} to {high}")
    return number


def _to_float(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str) and not value.strip():
        return math.nan
    return float(_plain(value))


def _plain(value: Any) -> Any:
    # Python reads "1_000" as a number; data that holds it means something else.
    return _fail() if isinstance(value, str) and "_" in value else value


def _fail() -> bool:
    raise ValueError
