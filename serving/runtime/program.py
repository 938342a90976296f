"""The request-time program: raw event columns in, padded model inputs out, in numpy alone.

`serving.compile` translates a fitted NVTabular workflow into this program: a JSON document of small steps, each over
the results of earlier ones, and a file of arrays. `RequestProgram` runs them for one request. The arithmetic of time
and sessions is `preprocessing.kernels`, the same as offline.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing import kernels
from serving.runtime.columns import Column, RequestError, check_lengths
from serving.runtime.vocabulary import Vocabulary

PROGRAM, ARRAYS = "program.json", "arrays.npz"
Array = NDArray[Any]
Step = Mapping[str, Any]


@dataclass
class Sessions:
    """One request, ready for the model.

    Attributes
    ----------
    session_id : array [S]
        Original session ids in order of first appearance; int64, or bytes as objects.
    unknown_events : int64 [S]
        Events of each session whose item training did not know.
    features : dict of str to array [S, L]
        Encoded features, padded with 0 on the right to the longest session; int64 or float32.
    """

    session_id: Array
    unknown_events: NDArray[np.int64]
    features: dict[str, Array]


class RequestProgram:
    """A compiled workflow.

    Parameters
    ----------
    document : mapping
        The JSON document that `serving.compile.compile_workflow` makes.
    arrays : mapping
        The arrays that it refers to.
    """

    def __init__(self, document: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        self.document = document
        self.columns = [Column(**column) for column in document["columns"]]
        self._arrays = {name: arrays[name] for name in document["arrays"]}
        self._vocabularies = {name: Vocabulary.from_arrays(name, arrays) for name in document["vocabularies"]}
        self._roles = {column.role: column.name for column in self.columns if column.role != "feature"}
        self._steps = [(self._operation(step), step) for step in document["steps"]]

    def _operation(self, step: Step) -> Callable[[Step, list[Array], Mapping[str, Array]], Array]:
        operations: dict[str, Callable[[Step, list[Array], Mapping[str, Array]], Array]] = {
            "column": lambda s, done, raw: raw[s["name"]],
            "lookup": lambda s, done, raw: self._vocabularies[s["vocabulary"]].encode(done[s["of"]]),
            "normalize": lambda s, done, raw: _normalize(done[s["of"]], s["mean"], s["std"], s["dtype"]),
            "clip": lambda s, done, raw: _clip(done[s["of"]], s["min"], s["max"]),
            "log": lambda s, done, raw: _log(done[s["of"]]),
            "fill": lambda s, done, raw: _fill(done[s["of"]], s["value"]),
            "cyclic": lambda s, done, raw: kernels.cyclic(done[s["of"]], s["period"], s["function"]),
            "age": lambda s, done, raw: kernels.age_days(done[s["time"]], done[s["item"]], self._arrays[s["array"]]),
        }
        return operations[step["op"]]

    @classmethod
    def load(cls, folder: Path | str) -> RequestProgram:
        """Read a program from the two files that `save` wrote; nothing in them is executed."""
        folder = Path(folder)
        document = json.loads((folder / PROGRAM).read_text(encoding="utf-8"))
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            return cls(document, dict(arrays))

    @property
    def items(self) -> Vocabulary:
        """The vocabulary of the item, which turns the model's answer into original ids."""
        return self._vocabularies[self.document["steps"][self.document["features"]["item_id"]]["vocabulary"]]

    def run(self, raw: Mapping[str, Array]) -> Sessions:
        """Prepare one request.

        Parameters
        ----------
        raw : mapping of str to array [N]
            The columns as Triton delivers them: int64, float64, bool, or bytes as objects.

        Returns
        -------
        Sessions

        Raises
        ------
        RequestError
            When the request is empty, or a value cannot be used: names the column and the row.
        """
        check_lengths(self.columns, raw)
        values = {column.name: column.decode(raw[column.name]) for column in self.columns}
        done: list[Array] = []
        for operation, step in self._steps:
            done.append(operation(step, done, values))
        features = {name: done[index] for name, index in self.document["features"].items()}
        session, item = values[self._roles["session"]], values[self._roles["item"]]
        key, first = _codes(session)
        grouped = kernels.group(
            key,
            _codes(item)[0] if self.document["collapse_repeats"] else key,
            values[self._roles["time"]],
            values[self._roles["order"]] if "order" in self._roles else None,
            max_length=self.document["max_length"],
            gap=self.document["gap_ns"],
            collapse_repeats=self.document["collapse_repeats"],
            last_only=True,
        )
        unknown = np.bincount(key[features["item_id"] == kernels.UNKNOWN], minlength=len(first)).astype(np.int64)
        padded = {name: _pad(column, grouped) for name, column in features.items()}
        return Sessions(session[first[grouped.keys]], unknown[grouped.keys], padded)


def _codes(values: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number values by first appearance: codes [N] and the position of each value's first appearance."""
    numbers: dict[Any, int] = {}
    codes = np.empty(len(values), dtype=np.int64)
    first: list[int] = []
    for position, value in enumerate(values.tolist()):
        code = numbers.setdefault(value, len(numbers))
        if code == len(first):
            first.append(position)
        codes[position] = code
    return codes, np.asarray(first, dtype=np.int64)


def _pad(values: Array, grouped: kernels.Grouped) -> Array:
    lengths = np.diff(grouped.offsets)
    padded = np.zeros((len(lengths), int(lengths.max())), dtype=values.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values[grouped.rows]
    return padded


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


__all__ = ["ARRAYS", "PROGRAM", "RequestError", "RequestProgram", "Sessions"]
