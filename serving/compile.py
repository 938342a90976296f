"""Translate a fitted NVTabular workflow into the request-time program that Triton runs.

Each operator of the graph becomes a step over the results of earlier steps. An operator that has no translation is
refused by name, so a repository that would prepare requests differently from training is never written.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from common.errors import UserError
from preprocessing import operators
from preprocessing.engine import ColumnSelector, Node, dag_ops, nvtabular, ops
from serving.runtime.program import ARRAYS, PROGRAM, RequestProgram
from serving.runtime.vocabulary import Vocabulary, pack_column

Columns = dict[str, int]  # column name -> the step that makes it


def compile_workflow(workflow: nvtabular.Workflow, request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compile a fitted workflow.

    Parameters
    ----------
    workflow : nvtabular.Workflow
        As fitted by `preprocessing.preprocess.preprocess`; its last operator is `GroupSessions`.
    request : mapping
        The content of ``features/request.json``: the columns a client sends.

    Returns
    -------
    document, arrays : dict, dict
        For `serving.runtime.program.RequestProgram`.

    Raises
    ------
    UserError
        When the graph holds an operator that has no request-time counterpart.
    """
    return _Compiler(workflow, request).compile()


def save_program(document: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path) -> RequestProgram:
    """Write a program into a folder and read it back as the server will."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRAM).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    np.savez(folder / ARRAYS, **arrays)
    return RequestProgram.load(folder)


class _Compiler:
    def __init__(self, workflow: nvtabular.Workflow, request: Mapping[str, Any]) -> None:
        self.workflow, self.request = workflow, request
        self.arrays: dict[str, Any] = {}
        self.plain_arrays: list[str] = []
        self.vocabularies: list[str] = []
        self.done: dict[int, Columns] = {}
        self.steps: list[dict[str, Any]] = []
        self.rules: dict[type, Callable[[Any, list[str], Columns], Columns]] = {
            dag_ops.selection.SelectionOp: self._pass,
            dag_ops.concat_columns.ConcatColumns: self._pass,
            dag_ops.subset_columns.SubsetColumns: self._pass,
            ops.AddMetadata: self._pass,
            ops.Rename: lambda op, names, of: {new: of[old[0]] for new, old in _mapping(op, names).items()},
            ops.Categorify: self._categorify,
            operators.Encode: self._encode,
            operators.HashBuckets: lambda op, names, of: {
                name: self._step(op="hash", of=of[name], buckets=op.buckets) for name in names
            },
            operators.JoinTable: self._join,
            ops.Normalize: self._normalize,
            operators.Normalize: self._normalize,
            ops.Clip: lambda op, names, of: {
                name: self._step(op="clip", of=of[name], min=op.min_value, max=op.max_value) for name in names
            },
            ops.LogOp: lambda op, names, of: {name: self._step(op="log", of=of[name]) for name in names},
            ops.FillMissing: self._fill,
            operators.CyclicTime: lambda op, names, of: {
                name: self._step(op="cyclic", of=of[names[0]], period=op.period, function=function)
                for name, function in op.outputs().items()
            },
            operators.ItemAge: self._age,
            operators.SincePrevious: self._since_previous,
            operators.Relative: self._relative,
            operators.Frequency: self._frequency,
        }

    def compile(self) -> tuple[dict[str, Any], dict[str, Any]]:
        last = self.workflow.output_node
        if type(last.op) is not operators.GroupSessions:
            raise _refuse(last.op, "the last operator must group events into sessions")
        inputs = self._inputs(last)
        time = self.request["time"]
        columns = [c | time if c["role"] == "time" else c for c in self.request["columns"]]
        document = {
            "columns": columns,
            "steps": self.steps,
            "features": {name: inputs[name] for name in last.input_columns.names if name not in operators.KEYS},
            "vocabularies": self.vocabularies,
            "arrays": self.plain_arrays,
            "max_length": last.op.max_length,
            "gap_ns": last.op.gap,
            "collapse_repeats": last.op.collapse_repeats,
            "drop_unknown": last.op.drop_unknown,
        }
        return document, self.arrays

    def _step(self, **step: Any) -> int:
        """Number of a step; one that exists already (the item and its age share a look-up) is not repeated."""
        if step not in self.steps:
            self.steps.append(step)
        return self.steps.index(step)

    def _inputs(self, node: Node) -> Columns:
        found: Columns = {}
        for parent in node.parents_with_dependencies:
            found |= self._outputs(parent)
        return found

    def _outputs(self, node: Node) -> Columns:
        if id(node) not in self.done:
            inputs = self._inputs(node)
            names = list(node.input_columns.names)
            for name in names:
                # A selection at the root of the graph has no parents: its columns come from the request.
                if name not in inputs:
                    inputs[name] = self._step(op="column", name=name)
            rule = self.rules.get(type(node.op))
            if rule is None:
                raise _refuse(node.op, "it has no request-time counterpart")
            self.done[id(node)] = rule(node.op, names, inputs)
        return self.done[id(node)]

    def _pass(self, _op: Any, names: list[str], of: Columns) -> Columns:
        return {name: of[name] for name in names}

    def _categorify(self, op: ops.Categorify, names: list[str], of: Columns) -> Columns:
        if op.num_buckets or op.freq_threshold or op.max_size or op.encode_type != "joint" or op.storage_name:
            raise _refuse(op, "only plain vocabularies (no buckets, thresholds, sizes or groups) can be served")
        result: Columns = {}
        for name in names:
            table = pa.parquet.read_table(op.categories[name], columns=[name])
            result[name] = self._lookup(name, Vocabulary(_known(table.column(name))), of[name])
        return result

    def _encode(self, op: operators.Encode, names: list[str], of: Columns) -> Columns:
        return {name: self._lookup(name, Vocabulary(_known(op.values[name]), op.buckets), of[name]) for name in names}

    def _lookup(self, name: str, vocabulary: Vocabulary, of: int) -> int:
        name = self._unique(name, self.vocabularies)
        self.arrays |= vocabulary.to_arrays(name)
        self.vocabularies.append(name)
        return self._step(op="lookup", of=of, vocabulary=name)

    def _unique(self, name: str, taken: list[str]) -> str:
        """The name, numbered where a column is encoded in several ways."""
        numbered = (name if number == 1 else f"{name}/{number}" for number in itertools.count(1))
        return next(candidate for candidate in numbered if candidate not in taken)

    def _array(self, name: str, values: np.ndarray) -> str:
        name = self._unique(name, self.plain_arrays)
        self.arrays[name] = values
        self.plain_arrays.append(name)
        return name

    def _join(self, op: operators.JoinTable, names: list[str], of: Columns) -> Columns:
        row = self._lookup(f"{op.on}/key", Vocabulary(_known(op.keys)), of[names[0]])
        result: Columns = {}
        for column in op.columns:
            name = f"{column}/joined"
            self.arrays |= pack_column(name, _known(op.table.column(column)))
            self.plain_arrays.append(name)
            result[column] = self._step(op="take", of=row, array=name)
        return result

    def _normalize(self, op: ops.Normalize, names: list[str], of: Columns) -> Columns:
        dtype = np.dtype(op.output_dtype).name
        return {
            name: self._step(op="normalize", of=of[name], mean=op.means[name], std=op.stds[name], dtype=dtype)
            for name in names
        }

    def _fill(self, op: ops.FillMissing, names: list[str], of: Columns) -> Columns:
        if op.add_binary_cols:
            raise _refuse(op, "add_binary_cols cannot be served")
        return {name: self._step(op="fill", of=of[name], value=op.fill_val) for name in names}

    def _age(self, op: operators.ItemAge, names: list[str], of: Columns) -> Columns:
        assert op.first_seen is not None, "fit the workflow first"
        array = self._array("first_seen", op.first_seen)
        return {"age": self._step(op="age", item=of[names[0]], time=of[names[1]], array=array)}

    def _since_previous(self, op: operators.SincePrevious, names: list[str], of: Columns) -> Columns:
        step = self._step(
            op="since_previous",
            session=of[op.session],
            item=of[op.item],
            time=of[op.time],
            order=of[op.order] if op.order else None,
            encoded_item=of[op.encoded_item] if op.encoded_item else None,
            gap_ns=op.gap,
            collapse_repeats=op.collapse_repeats,
        )
        return {"since_previous": step}

    def _relative(self, op: operators.Relative, names: list[str], of: Columns) -> Columns:
        assert op.means is not None, "fit the workflow first"
        array = self._array(f"{op.name}/means", op.means)
        return {op.name: self._step(op="relative", of=of[names[0]], code=of[names[1]], array=array, log=op.log)}

    def _frequency(self, op: operators.Frequency, names: list[str], of: Columns) -> Columns:
        result: Columns = {}
        for output, (name,) in _mapping(op, names).items():
            array = self._array(f"{name}/counts", op.counts[name])
            result[output] = self._step(op="frequency", of=of[name], array=array)
        return result


def _known(values: Any) -> list[Any]:
    """Arrow values as a vocabulary holds them: numbers with NaN, or text as bytes, empty where it is missing."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return [(value or "").encode() for value in values.to_pylist()]
    return [math.nan if value is None else value for value in values.to_pylist()]


def _mapping(op: Any, names: list[str]) -> dict[str, list[str]]:
    mapping: dict[str, list[str]] = op.column_mapping(ColumnSelector(names))
    return mapping


def _refuse(op: Any, why: str) -> UserError:
    return UserError(f"the workflow's operator {type(op).__name__} cannot be exported: {why}")
