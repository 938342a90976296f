"""The request-time program: raw event columns in, padded model inputs out, in numpy alone.

`serving.compile` translates a fitted NVTabular workflow into this program: a JSON document of small steps, each over
the results of earlier ones, and a file of arrays. `RequestProgram` runs them for one request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing import feature_kernels, kernels
from serving.runtime.columns import Column, RequestError, check_lengths
from serving.runtime.steps import OPERATIONS, Tables, codes
from serving.runtime.vocabulary import Vocabulary, unpack_column

PROGRAM, ARRAYS = "program.json", "arrays.npz"
Array = NDArray[Any]


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
        self._tables = Tables(
            {name: unpack_column(name, arrays) for name in document["arrays"]},
            {name: Vocabulary.from_arrays(name, arrays) for name in document["vocabularies"]},
        )
        self._roles = {column.role: column.name for column in self.columns if column.role != "feature"}
        self._steps = [(OPERATIONS[step["op"]], step) for step in document["steps"]]

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
        return self._tables.vocabularies[self.document["steps"][self.document["features"]["item_id"]]["vocabulary"]]

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
            done.append(operation(step, self._tables, done, values))
        features = {name: done[index] for name, index in self.document["features"].items()}
        session, item = values[self._roles["session"]], values[self._roles["item"]]
        key, first = codes(session)
        grouped = self._group(key, item, values, features["item_id"])
        unknown = np.bincount(key[features["item_id"] == kernels.UNKNOWN], minlength=len(first)).astype(np.int64)
        padded = {name: _pad(column, grouped) for name, column in features.items()}
        return Sessions(session[first[grouped.keys]], unknown[grouped.keys], padded)

    def _group(
        self, key: NDArray[np.int64], item: Array, values: Mapping[str, Array], encoded: NDArray[np.int64]
    ) -> kernels.Grouped:
        time, order = values[self._roles["time"]], values[self._roles["order"]] if "order" in self._roles else None
        kept = None
        if self.document.get("drop_unknown"):
            # A session of unknown items alone keeps them: there is nothing else to answer from.
            kept = np.flatnonzero(~feature_kernels.left_out(key, encoded))
            key, item, time, order = key[kept], item[kept], time[kept], None if order is None else order[kept]
        grouped = kernels.group(
            key,
            codes(item)[0] if self.document["collapse_repeats"] else key,
            time,
            order,
            max_length=self.document["max_length"],
            gap=self.document["gap_ns"],
            collapse_repeats=self.document["collapse_repeats"],
            last_only=True,
        )
        return grouped if kept is None else grouped._replace(rows=kept[grouped.rows])


def _pad(values: Array, grouped: kernels.Grouped) -> Array:
    lengths = np.diff(grouped.offsets)
    padded = np.zeros((len(lengths), int(lengths.max())), dtype=values.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values[grouped.rows]
    return padded


__all__ = ["ARRAYS", "PROGRAM", "RequestError", "RequestProgram", "Sessions"]
