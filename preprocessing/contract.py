"""What the columns of a data set's events are, checked over all files before any work starts.

The names of the columns stay those of the files. Values are brought into the forms that the rest of the pipeline
knows: time as int64 nanoseconds, whole numbers as int64, numbers with gaps as float64, text as string.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.errors import UserError
from preprocessing.files import Chunk, FileFacts, inspect, is_csv
from preprocessing.settings import Dataset

_TYPES = {"INT64": pa.int64(), "FP64": pa.float64(), "BOOL": pa.bool_(), "BYTES": pa.string()}


@dataclass(frozen=True)
class Contract:
    """The form of the events, and where they are.

    Attributes
    ----------
    types : dict of str to pyarrow.DataType
        Of each column of `Dataset.columns`: int64, float64, bool or string; the time's is how it comes in: int64
        or, for timestamps, dates and text, string.
    chunks : list of Chunk
        All parts of all files, in order.
    """

    types: dict[str, pa.DataType]
    chunks: list[Chunk]

    @property
    def rows(self) -> int:
        """Events in the files."""
        return sum(chunk.rows for chunk in self.chunks)

    def wire(self) -> dict[str, str]:
        """How a client sends each column: ``"INT64"``, ``"FP64"``, ``"BOOL"`` or ``"BYTES"``."""
        return {name: wire for name, kind in self.types.items() for wire, known in _TYPES.items() if known == kind}


def number_columns(dataset: Dataset) -> set[str]:
    """Columns that must hold numbers."""
    events = dataset.events
    numbers = dataset.features.numbers() | ({events.order} if events.order else set())
    numbers |= {name for name, rule in events.where.items() if rule.min is not None or rule.max is not None}
    return numbers - {events.key, events.item}


def wanted_columns(dataset: Dataset) -> list[str]:
    """Columns that are read: those of requests, and those of the filters."""
    return list(dict.fromkeys([*dataset.columns(), *dataset.events.where]))


def agree(
    dataset: Dataset, paths: Sequence[Path], chunk_events: int, fixed: Mapping[str, str] | None = None
) -> Contract:
    """Inspect all files and decide on the form of each column.

    Parameters
    ----------
    dataset : Dataset
        The description.
    paths : sequence of Path
        The files.
    chunk_events : int
        Events a chunk, roughly.
    fixed : mapping of str to str, optional
        The wire types of an earlier run (``request.json``), which these files must fit; gaps in a column that had none
        are for `events.clean` to find.

    Raises
    ------
    UserError
        When a file is unreadable, a column is missing, of an unusable type, or of types that do not go together.
        Names the file and the column.
    """
    wanted, numbers = wanted_columns(dataset), number_columns(dataset)
    facts = [inspect(path, wanted, numbers, chunk_events) for path in paths]
    # A file without events says nothing, whatever the types of its columns.
    telling = [fact for fact in facts if fact.rows] or facts
    types = {name: _unify(dataset, telling, name, widen=fixed is None) for name in dataset.columns()}
    if fixed is not None:
        types = {name: _fit(types[name], _TYPES[fixed[name]], name, paths) for name in types}
    return Contract(types, [chunk for fact in facts for chunk in fact.chunks])


def _fit(found: pa.DataType, wire: pa.DataType, name: str, paths: Sequence[Path]) -> pa.DataType:
    number = pa.types.is_floating(wire) and (pa.types.is_integer(found) or pa.types.is_boolean(found))
    # In csv files, ids that all look like whole numbers may be the text that they were before.
    text = pa.types.is_string(wire) and pa.types.is_integer(found) and all(is_csv(path) for path in paths)
    if found != wire and not number and not text:
        raise UserError(
            f"{paths[0]}: column '{name}' is {found}, but the features were made from {wire}: give files like those, "
            "or make the features anew"
        )
    return wire


def _unify(dataset: Dataset, facts: Sequence[FileFacts], name: str, widen: bool) -> pa.DataType:
    kinds = [(_normal(dataset, fact, name), fact) for fact in facts]
    # Columns without a value go with any others.
    known = [(kind, fact) for kind, fact in kinds if not pa.types.is_null(kind)]
    if not known:
        return _of_nothing(dataset, facts[0], name)
    target, first = known[0]
    for kind, fact in known[1:]:
        if kind == target:
            continue
        if _is_number(kind) and _is_number(target):
            target = pa.float64()
        elif {kind, target} == {pa.int64(), pa.string()} and all(is_csv(fact.path) for fact in facts):
            target = pa.string()
        else:
            raise UserError(f"{fact.path}: column '{name}' is {kind} but {target} in {first.path}: make them the same")
    feature = name not in (dataset.events.key, dataset.events.item, dataset.events.time.column, dataset.events.order)
    whole = pa.types.is_integer(target) or pa.types.is_boolean(target)
    # A missing number travels as NaN, which whole numbers do not have.
    gaps = len(known) < len(kinds) or any(name in fact.gaps for fact in facts)
    return pa.float64() if widen and feature and whole and gaps else target


def _of_nothing(dataset: Dataset, facts: FileFacts, name: str) -> pa.DataType:
    """The type of a column without any value."""
    events = dataset.events
    if name in (events.key, events.item, events.time.column, events.order) and not is_csv(facts.path):
        raise UserError(f"{facts.path}: column '{name}' holds nothing but nulls: is it the right column?")
    if name == events.time.column and events.time.unit:
        return pa.int64()
    return pa.float64() if name in number_columns(dataset) else pa.string()


def _normal(dataset: Dataset, facts: FileFacts, name: str) -> pa.DataType:
    """The type that a column of one file is brought to."""
    events, kind, where = dataset.events, facts.types[name], f"{facts.path}: column '{name}'"
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    integer, fraction = pa.types.is_integer(kind), pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    dated = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if pa.types.is_null(kind):
        return kind
    if name == events.time.column:
        # Csv says of whole numbers that they are such unless one of them is broken.
        integer = integer or (is_csv(facts.path) and events.time.unit is not None)
        return _time(dataset, where, kind, integer, fraction, text or dated)
    if name in (events.key, events.item):
        if not (integer or text):
            role = "item" if name == events.item else "session"
            raise UserError(f"{where} is {kind}: {role} ids are whole numbers or text")
        return pa.int64() if integer else pa.string()
    if name == events.order and not (integer or fraction):
        raise UserError(f"{where} (events.order) must hold numbers without gaps, not {kind}")
    if name in number_columns(dataset) and not (integer or fraction):
        raise UserError(f"{where} is {kind}, but a continuous feature holds numbers")
    if integer:
        return pa.int64()
    if fraction:
        return pa.float64()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if not (text or dated):
        raise UserError(f"{where} is {kind}: features are numbers, booleans or text")
    return pa.string()


def _time(dataset: Dataset, where: str, kind: Any, integer: bool, fraction: bool, written: bool) -> pa.DataType:
    unit = dataset.events.time.unit
    if integer and unit is None:
        raise UserError(f"{where} holds numbers: say events.time.unit: s, ms, us or ns")
    if fraction:
        raise UserError(f"{where} holds fractions: give whole {unit or 'seconds'} since 1970, or timestamps")
    if not (integer or written):
        raise UserError(f"{where} is {kind}: times are timestamps, dates, ISO 8601 text or whole numbers")
    return pa.int64() if integer else pa.string()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
