"""Clean a block of raw events: filters, the forms of the contract, and bad rows set apart with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import UserError
from preprocessing.contract import Contract
from preprocessing.files import each_whole_number, fractions, whole_numbers
from preprocessing.kernels import LARGEST, UNITS
from preprocessing.settings import Dataset, Filter

# The columns of the quarantine; the raw columns follow, as text.
FILE, ROW, REASON = "_file", "_row", "_reason"
_GAP = "is empty, as it never was when the features were made"
_LATEST = np.iinfo(np.int64).max


@dataclass
class Cleaned:
    """What became of a block.

    Attributes
    ----------
    table : pyarrow.Table
        The good events in the forms of the contract, time as int64 nanoseconds since 1970.
    bad : pyarrow.Table or None
        The rows that cannot be used: file, row, reason, and the raw columns as text.
    read : int
        Rows of the block.
    dropped : Counter
        Rows left out by the filters, by reason.
    """

    table: pa.Table
    bad: pa.Table | None = None
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def clean(block: pa.Table, dataset: Dataset, contract: Contract, path: Path, first_row: int) -> Cleaned:
    """Filter and convert a block.

    Parameters
    ----------
    block : pyarrow.Table
        As `files.blocks` gives it.
    dataset, contract
        What the columns mean and what form they take.
    path, first_row
        The file, and where in it the block begins; rows are counted from 0, without csv lines that are no rows.

    Raises
    ------
    UserError
        When a filter does not fit its column.
    """
    result = Cleaned(block, read=len(block))
    raw, rows = block, np.arange(first_row, first_row + len(block), dtype=np.int64)
    for name, rule in dataset.events.where.items():
        passed = _passes(raw.column(name), name, rule, path)
        lost = len(raw) - int(passed.sum())
        result.dropped[f"where {name}"] += lost
        if lost:
            raw, rows = raw.filter(pa.array(passed)), rows[passed]
    columns, reasons = {}, np.zeros(len(raw), dtype=object)
    for name, kind in contract.types.items():
        columns[name], wrong, reason = _convert(raw.column(name), name, kind, dataset)
        if wrong is not None:
            reasons[wrong & (reasons == 0)] = f"column '{name}' {reason}"
    table, wrong = pa.table(columns), reasons != 0
    if wrong.any():
        text = {name: _as_text(raw.column(name).filter(pa.array(wrong))) for name in contract.types}
        facts = {FILE: [str(path)] * int(wrong.sum()), ROW: rows[wrong], REASON: reasons[wrong].astype(str)}
        result.bad, table = pa.table(facts | text), table.filter(pa.array(~wrong))
    result.table = table
    return result


def malformed(path: Path, line: int, text: str, contract: Contract) -> pa.Table:
    """A csv line that is no row, for the quarantine."""
    reason = f"line {line} has another number of fields than the header: {text}"
    columns = {FILE: pa.array([str(path)]), ROW: pa.array([-1]), REASON: pa.array([reason])}
    return pa.table(columns | {name: pa.array([None], pa.string()) for name in contract.types})


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return values.cast(pa.string())
    except pa.ArrowException:
        return pa.chunked_array([pa.array([str(value) for value in values.to_pylist()], pa.string())])


def _passes(values: pa.ChunkedArray, name: str, rule: Filter, path: Path) -> np.ndarray:
    try:
        values = _decoded(values)
        if pa.types.is_string(values.type):  # of csv
            values = _typed(values, rule)
        passed = pc.is_valid(values)
        if rule.min is not None:
            passed = pc.and_(passed, pc.greater_equal(values, rule.min))
        if rule.max is not None:
            passed = pc.and_(passed, pc.less_equal(values, rule.max))
        if rule.one_of is not None:
            passed = pc.and_(passed, pc.is_in(values, pa.array(rule.one_of).cast(values.type)))
        if rule.matches is not None:
            passed = pc.and_(passed, pc.match_substring_regex(values.cast(pa.string()), rule.matches))
        if rule.not_matches is not None:
            found = pc.match_substring_regex(values.cast(pa.string()), rule.not_matches)
            passed = pc.and_(passed, pc.invert(found))
    except pa.ArrowException as error:
        raise UserError(f"{path}: events.where.{name} does not fit {values.type} values: {error}") from error
    return np.asarray(pc.fill_null(passed, False).to_numpy(zero_copy_only=False))


def _typed(values: pa.ChunkedArray, rule: Filter) -> pa.ChunkedArray:
    """Text of a csv file as the numbers that a filter speaks of."""
    if rule.min is not None or rule.max is not None:
        return fractions(values)[0]
    numbers = rule.one_of and all(type(value) in (int, float) for value in rule.one_of)
    return (fractions(values)[0] if numbers else None) or values


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def repeated_text(dataset: Dataset, types: Mapping[str, pa.DataType]) -> list[str]:
    """Columns of text that may stay dictionaries: features that are neither ids nor filtered."""
    events = dataset.events
    special = {events.key, events.item, events.time.column, events.order, *events.where}
    return [name for name, kind in types.items() if pa.types.is_string(kind) and name not in special]


def _clean_text(values: pa.ChunkedArray) -> bool:
    """Whether a dictionary holds plain text, and none of it empty."""
    if values.type.value_type != pa.string():
        return False
    return not any(pc.any(pc.equal(chunk.dictionary, "")).as_py() for chunk in values.chunks)


def _convert(
    values: pa.ChunkedArray, name: str, kind: pa.DataType, dataset: Dataset
) -> tuple[pa.ChunkedArray | pa.Array, np.ndarray | None, str]:
    """A column in the form of the contract; which values are wrong, or None; and why."""
    events = dataset.events
    if pa.types.is_dictionary(values.type) and name in repeated_text(dataset, {name: kind}) and _clean_text(values):
        return values, None, ""
    values = _decoded(values)
    if name == events.time.column:
        return _time(values, kind, dataset)
    if name in (events.key, events.item):
        role = "item" if name == events.item else "session"
        return _id(values, kind, f"has no {role} id")
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    if pa.types.is_string(kind):
        values = values.cast(pa.string())
        return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values), None, ""
    wrong, reason = None, "holds what is no number"
    if pa.types.is_boolean(values.type) and not pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    if pa.types.is_integer(kind):
        values, wrong = _whole(values)
        reason = "holds what is no whole number of 64 bits"
        if wrong is None and values.null_count:
            wrong, reason = pc.is_null(values), _GAP
    elif pa.types.is_boolean(kind) and values.null_count:
        wrong, reason = pc.is_null(values), _GAP
    elif pa.types.is_floating(kind):
        if pa.types.is_string(values.type):
            values, wrong = fractions(values)
        values = values.cast(pa.float64(), safe=False)
        # Infinities and numbers that no model computes with count as missing.
        usable = pc.fill_null(pc.less_equal(pc.abs(values), LARGEST), False)
        if not pc.all(usable).as_py():
            values = pc.if_else(usable, values, pa.scalar(None, pa.float64()))
    if name == events.order and values.null_count:
        wrong, reason = pc.is_null(values), "(events.order) holds no number"
    return values, None if wrong is None else _mask(wrong), reason


def _id(values: pa.ChunkedArray, kind: pa.DataType, reason: str) -> tuple[pa.ChunkedArray, np.ndarray | None, str]:
    if pa.types.is_integer(kind):
        values, _ = _whole(values)
        return values, _mask(pc.is_null(values)) if values.null_count else None, f"{reason} (a whole number of 64 bits)"
    values = values.cast(pa.string())
    # Trimming costs more than asking for the first character: few ids begin with a space.
    wrong = pc.fill_null(pc.match_substring_regex(values, r"\S"), False)
    return values, None if pc.all(wrong).as_py() else ~_mask(wrong), reason


def _whole(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Numbers, or text of numbers, as int64, with null for what 64 bits cannot hold; and which those are, if any."""
    if pa.types.is_string(values.type):
        numbers = each_whole_number(values)
        return numbers, pc.and_(pc.is_null(numbers), pc.is_valid(values)) if numbers.null_count else None
    try:
        return values.cast(pa.int64()), None
    except pa.ArrowInvalid:
        wrong = pc.fill_null(pc.greater(values, pa.scalar(_LATEST, values.type)), False)
        return pc.if_else(wrong, pa.scalar(None, values.type), values).cast(pa.int64()), wrong


def _time(values: pa.ChunkedArray, agreed: pa.DataType, dataset: Dataset) -> tuple[pa.Array, np.ndarray | None, str]:
    time, kind = dataset.events.time, values.type
    if time.unit is not None and pa.types.is_string(kind) and pa.types.is_string(agreed):
        # Of parquet, whose text may be the digits of numbers as well as ISO 8601.
        numbers = whole_numbers(values)
        values, kind = (values, kind) if numbers is None else (numbers, pa.int64())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        unit = "s" if pa.types.is_date32(kind) else "ms" if pa.types.is_date64(kind) else kind.unit
        # Arrow keeps moments of any time zone as UTC.
        numbers, reason = values.cast(pa.timestamp(unit)).cast(pa.int64()), "has no time of the years 1678 to 2261"
    elif pa.types.is_integer(kind) or pa.types.is_integer(agreed):
        unit, (numbers, _) = time.unit or "ns", _whole(values)
        reason = f"has no time that fits the unit '{unit}'"
    else:
        parsed = pd.to_datetime(values.to_pandas(), format=time.format or "ISO8601", errors="coerce", utc=True)
        wrong = parsed.isna().to_numpy()
        plain = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
        reason = f"has no readable time ({time.format or 'ISO 8601'}; set events.time.format)"
        return pa.array(np.where(wrong, 0, plain)), wrong if wrong.any() else None, reason
    limit = _LATEST // UNITS[unit]
    plain = pc.fill_null(numbers, 0).to_numpy()
    wrong = (plain > limit) | (plain < (-limit if unit != "ns" else np.iinfo(np.int64).min))
    if numbers.null_count:
        wrong |= pc.is_null(numbers).to_numpy(zero_copy_only=False)
    if not wrong.any():
        return pa.array(plain * UNITS[unit]), None, reason
    return pa.array(np.where(wrong, 0, plain) * UNITS[unit]), wrong, reason


def _mask(values: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(values, True).to_numpy(zero_copy_only=False))
