"""The steps of a request-time program: what each operator of the workflow does to one request, in numpy alone.

A step is a row of the program's JSON document: ``op`` names an entry of `OPERATIONS`, the other keys are the numbers
of earlier steps, names of arrays and vocabularies, and constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing import feature_kernels, kernels
from serving.runtime.vocabulary import Vocabulary

Array = NDArray[Any]
Step = Mapping[str, Any]


@dataclass(frozen=True)
class Tables:
    """What steps look things up in.

    Attributes
    ----------
    arrays : mapping of str to array
        Indexed by code.
    vocabularies : mapping of str to Vocabulary
        By name.
    """

    arrays: Mapping[str, Array]
    vocabularies: Mapping[str, Vocabulary]


# Beside the raw columns: the number of each event's session, int64 [N]. No column has an empty name.
SESSION_KEY = ""

# (step, tables, results of earlier steps, raw columns) -> the step's result [N].
Operation = Callable[[Step, Tables, list[Array], Mapping[str, Array]], Array]


def codes(values: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number values by first appearance: codes [N] and the position of each value's first appearance."""
    return _codes(values.tolist())


def codes_of_pairs(one: Array, other: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number pairs of values by first appearance, as `codes`."""
    return _codes(list(zip(one.tolist(), other.tolist(), strict=True)))


def _codes(values: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    numbers: dict[Any, int] = {}
    found: list[int] = []
    first: list[int] = []
    for position, value in enumerate(values):
        code = numbers.setdefault(value, len(numbers))
        if code == len(first):
            first.append(position)
        found.append(code)
    return np.array(found, dtype=np.int64), np.array(first, dtype=np.int64)


# The next four mirror what NVTabular's operators do to a pandas column, down to the precision they do it in.


def _normalize(values: Array, mean: float, std: float, dtype: str) -> Array:
    shifted = values - mean
    return (shifted / std if std > 0 else shifted).astype(dtype)


def _clip(values: Array, low: float | None, high: float | None) -> Array:
    values = values.copy()
    if low is not None:
        values[values < low] = low
    if high is not None:
        values[values > high] = high
    return values


def _log(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(np.log(values.astype(np.float32) + 1))


def _fill(values: Array, value: float) -> Array:
    return np.where(np.isnan(values), values.dtype.type(value), values) if values.dtype.kind == "f" else values


def _since_previous(step: Step, done: list[Array], key: Array) -> Array:
    return feature_kernels.since_previous(
        key,
        codes(done[step["item"]])[0] if step["collapse_repeats"] else key,
        done[step["time"]],
        None if step["order"] is None else done[step["order"]],
        step["gap_ns"],
        step["collapse_repeats"],
        None if step["encoded_item"] is None else feature_kernels.left_out(key, done[step["encoded_item"]]),
    )


OPERATIONS: dict[str, Operation] = {
    "column": lambda s, tables, done, raw: raw[s["name"]],
    "lookup": lambda s, tables, done, raw: tables.vocabularies[s["vocabulary"]].encode(done[s["of"]]),
    "hash": lambda s, tables, done, raw: feature_kernels.hash_codes(done[s["of"]], s["buckets"]),
    "take": lambda s, tables, done, raw: tables.arrays[s["array"]][done[s["of"]]],
    "normalize": lambda s, tables, done, raw: _normalize(done[s["of"]], s["mean"], s["std"], s["dtype"]),
    "clip": lambda s, tables, done, raw: _clip(done[s["of"]], s["min"], s["max"]),
    "log": lambda s, tables, done, raw: _log(done[s["of"]]),
    "fill": lambda s, tables, done, raw: _fill(done[s["of"]], s["value"]),
    "cyclic": lambda s, tables, done, raw: kernels.cyclic(done[s["of"]], s["period"], s["function"]),
    "age": lambda s, tables, done, raw: kernels.age_days(done[s["time"]], done[s["item"]], tables.arrays[s["array"]]),
    "since_previous": lambda s, tables, done, raw: _since_previous(s, done, raw[SESSION_KEY]),
    "relative": lambda s, tables, done, raw: feature_kernels.relative(
        done[s["of"]], done[s["code"]], tables.arrays[s["array"]], s["log"]
    ),
    "frequency": lambda s, tables, done, raw: feature_kernels.frequency(done[s["of"]], tables.arrays[s["array"]]),
}
