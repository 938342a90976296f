"""The request-time program: raw event columns in, padded model inputs out, in numpy alone.

`serving.compile` translates a fitted NVTabular workflow into this program: a JSON document of small steps, each over
the results of earlier ones, and a file of arrays. `RequestProgram` runs them for one request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing import feature_kernels, kernels
from serving.runtime.columns import Column, RequestError
from serving.runtime.steps import OPERATIONS, SESSION_KEY, Tables, codes, codes_of_pairs
from serving.runtime.vocabulary import Vocabulary, unpack_column

PROGRAM, ARRAYS = "program.json", "arrays.npz"
Array = NDArray[Any]


@dataclass
class Sessions:
    """One request, or several, ready for the model.

    Attributes
    ----------
    session_id : array [S]
        Original session ids in order of first appearance; int64, or bytes as objects.
    unknown_events : int64 [S]
        Events of each session whose item training did not know.
    features : dict of str to array [S, L]
        Encoded features, padded with 0 on the right to the longest session; int64 or float32.
    requests : int64 [R]
        How many sessions each request has, where several were prepared together.
    """

    session_id: Array
    unknown_events: NDArray[np.int64]
    features: dict[str, Array]
    requests: NDArray[np.int64]


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
    def session(self) -> str:
        """The column that tells sessions apart."""
        return self._roles["session"]

    @property
    def items(self) -> Vocabulary:
        """The vocabulary of the item, which turns the model's answer into original ids."""
        return self._tables.vocabularies[self.document["steps"][self.document["features"]["item_id"]]["vocabulary"]]

    def example(self) -> dict[str, Array]:
        """A request of one event, of an item that training may not have known."""
        return {column.name: column.example() for column in self.columns}

    def run(self, raw: Mapping[str, Array]) -> Sessions:
        """Prepare one request: see `run_together`."""
        return self.run_together([raw])

    def run_together(self, requests: Sequence[Mapping[str, Array]]) -> Sessions:
        """Prepare several requests in one go; sessions of the same id in different requests stay apart.

        Parameters
        ----------
        requests : sequence of mapping of str to array [N]
            The columns as Triton delivers them: int64, float64, bool, or bytes as objects; of each request as many
            values in every column, at least one.

        Returns
        -------
        Sessions
            Those of the first request, then those of the second, and so on.

        Raises
        ------
        RequestError
            When a value cannot be used: names the column and the row among all events.
        """
        raw = requests[0]
        if len(requests) > 1:
            raw = {c.name: np.concatenate([one[c.name] for one in requests]) for c in self.columns}
        values = {column.name: column.decode(raw[column.name]) for column in self.columns}
        session, item = values[self._roles["session"]], values[self._roles["item"]]
        request = np.repeat(np.arange(len(requests)), [len(one[self._roles["session"]]) for one in requests])
        key, first = codes(session) if len(requests) == 1 else codes_of_pairs(request, session)
        values[SESSION_KEY] = key
        done: list[Array] = []
        for operation, step in self._steps:
            done.append(operation(step, self._tables, done, values))
        features = {name: done[index] for name, index in self.document["features"].items()}
        grouped = self._group(key, item, values, features["item_id"])
        unknown = np.bincount(key[features["item_id"] == kernels.UNKNOWN], minlength=len(first)).astype(np.int64)
        begins = first[grouped.keys]
        return Sessions(
            session_id=session[begins],
            unknown_events=unknown[grouped.keys],
            features=_padded(features, grouped),
            requests=np.bincount(request[begins], minlength=len(requests)),
        )

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


def _padded(features: Mapping[str, Array], grouped: kernels.Grouped) -> dict[str, Array]:
    lengths = np.diff(grouped.offsets)
    shape = (len(lengths), int(lengths.max()))
    # One session, or several of one length, need no padding.
    full = len(grouped.rows) == shape[0] * shape[1]
    where = None if full else np.arange(shape[1]) < lengths[:, None]
    padded = {}
    for name, values in features.items():
        if where is None:
            padded[name] = values[grouped.rows].reshape(shape)
        else:
            padded[name] = np.zeros(shape, dtype=values.dtype)
            padded[name][where] = values[grouped.rows]
    return padded


__all__ = ["ARRAYS", "PROGRAM", "RequestError", "RequestProgram", "Sessions"]
