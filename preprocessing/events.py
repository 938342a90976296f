"""Read raw event files into one Arrow table with checked columns.

The names of the columns stay those of the files. Values are brought into the forms that the rest of the
pipeline knows: time as int64 nanoseconds, whole numbers as int64, numbers with gaps as float64, text as string.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import UserError
from common.progress import step
from preprocessing.files import concatenate, expand, load
from preprocessing.kernels import LARGEST, UNITS
from preprocessing.settings import Dataset, Filter


@dataclass
class RawEvents:
    """Events as they came in.

    Attributes
    ----------
    table : pyarrow.Table
        One row an event, in file order, with the columns of `Dataset.columns`.
    wire : dict of str to str
        How a client sends each column: ``"INT64"``, ``"FP64"``, ``"BOOL"``, ``"BYTES"``.
    time_is_text : bool
        Whether the time travels as text (ISO 8601, or the format of the settings).
    read, dropped : int, dict of str to int
        Rows read, and rows dropped by reason.
    """

    table: pa.Table
    wire: dict[str, str]
    time_is_text: bool
    read: int
    dropped: dict[str, int] = field(default_factory=dict)


def read_events(dataset: Dataset) -> RawEvents:
    """Read, check and filter the events of a data set.

    Parameters
    ----------
    dataset : Dataset
        With ``data_root`` resolved.

    Raises
    ------
    UserError
        When a file is missing or unreadable, a column is missing or of an unusable type, an id is null or
        empty, a time cannot be parsed, or no event is left. Names the file, the column and the row.
    """
    paths = expand(dataset.data_root, dataset.events.files)
    tables = []
    with step(f"Reading {len(paths)} file{'s' if len(paths) > 1 else ''} of events", total=len(paths)) as bar:
        for path in paths:
            tables.append(_Reader(dataset, path).read())
            bar.advance()
        table = concatenate([read.table for read in tables], paths)
        bar.say(f"{sum(read.read for read in tables):,} events")
    wire = {name: _wire(table.schema.field(name).type) for name in dataset.columns()}
    events = RawEvents(table, wire, tables[0].time_is_text, sum(read.read for read in tables))
    for read in tables:
        for reason, count in read.dropped.items():
            events.dropped[reason] = events.dropped.get(reason, 0) + count
    if not len(table):
        raise UserError(f"{paths[0]}: no event is left of {events.read} after events.where: loosen the filters")
    return events


def _wire(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "BOOL"
    if pa.types.is_integer(kind):
        return "INT64"
    return "FP64" if pa.types.is_floating(kind) else "BYTES"


class _Reader:
    """One file: every complaint names it."""

    def __init__(self, dataset: Dataset, path: Path) -> None:
        self.dataset, self.path = dataset, path
        self.time_is_text = False
        features = dataset.features
        self._continuous = {entry.column for part in (features.item, features.event) for entry in part.continuous}

    def read(self) -> RawEvents:
        dataset = self.dataset
        wanted = list(dict.fromkeys([*dataset.columns(), *dataset.events.where]))
        numbers = {*self._continuous, *([dataset.events.order] if dataset.events.order else [])}
        numbers |= {name for name, rule in dataset.events.where.items() if rule.min is not None or rule.max is not None}
        table = load(self.path, wanted, numbers - {dataset.events.key, dataset.events.item})
        rows = np.arange(len(table), dtype=np.int64)
        keep, dropped = np.ones(len(table), dtype=bool), {}
        for name, rule in dataset.events.where.items():
            passed = self._passes(table.column(name), name, rule)
            dropped[f"where {name}"] = int((keep & ~passed).sum())
            keep &= passed
        read = len(table)
        table = table.filter(pa.array(keep)).select(dataset.columns())
        rows = rows[keep]
        columns = [self._column(table.column(name), name, rows) for name in table.column_names]
        table = pa.table(dict(zip(table.column_names, columns, strict=True)))
        return RawEvents(table, {}, self.time_is_text, read, dropped)

    def _passes(self, values: pa.ChunkedArray, name: str, rule: Filter) -> np.ndarray:
        passed = pc.is_valid(values)
        try:
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
            raise UserError(f"{self.path}: events.where.{name} does not fit {values.type} values: {error}") from error
        return pc.fill_null(passed, False).to_numpy(zero_copy_only=False)

    def _column(self, values: pa.ChunkedArray, name: str, rows: np.ndarray) -> pa.ChunkedArray | pa.Array:
        events = self.dataset.events
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if name == events.time.column:
            return self._time(values, rows)
        kind = values.type
        if name in (events.key, events.item):
            return self._id(values, name, rows)
        if name == events.order:
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)) or values.null_count:
                raise UserError(
                    f"{self.path}: column '{name}' (events.order) must hold numbers without gaps, not {kind}"
                )
            return values.cast(pa.int64() if pa.types.is_integer(kind) else pa.float64())
        if pa.types.is_decimal(kind):
            values, kind = values.cast(pa.float64()), pa.float64()
        if name in self._continuous and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise UserError(f"{self.path}: column '{name}' is {kind}, but a continuous feature holds numbers")
        if pa.types.is_integer(kind):
            # A missing number travels as NaN, which integers do not have.
            return self._whole(values, name).cast(pa.float64()) if values.null_count else self._whole(values, name)
        if pa.types.is_floating(kind):
            values = values.cast(pa.float64())
            usable = pc.less_equal(pc.abs(values), LARGEST)
            return pc.if_else(pc.fill_null(usable, False), values, pa.scalar(None, pa.float64()))
        if pa.types.is_boolean(kind) and not values.null_count:
            return values
        if pa.types.is_boolean(kind):
            return values.cast(pa.int8()).cast(pa.float64())
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind):
            values = values.cast(pa.string())
        elif not _is_text(kind):
            raise UserError(f"{self.path}: column '{name}' is {kind}: features are numbers, booleans or text")
        values = values.cast(pa.string())
        return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)

    def _whole(self, values: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise UserError(f"{self.path}: column '{name}' holds numbers beyond 64 bits: {error}") from error

    def _id(self, values: pa.ChunkedArray, name: str, rows: np.ndarray) -> pa.ChunkedArray:
        role = "item" if name == self.dataset.events.item else "session"
        if not (pa.types.is_integer(values.type) or _is_text(values.type)):
            raise UserError(f"{self.path}: column '{name}' is {values.type}: {role} ids are whole numbers or text")
        bad = pc.is_null(values)
        if _is_text(values.type):
            values = values.cast(pa.string())
            bad = pc.or_kleene(bad, pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True))
        if pc.any(bad).as_py():
            row = int(rows[int(np.flatnonzero(bad.to_numpy(zero_copy_only=False))[0])])
            count = pc.sum(bad).as_py()
            raise UserError(
                f"{self.path}: column '{name}' has no {role} id in row {row} ({count} such rows): "
                f"fill them in, or drop them with events.where"
            )
        return values if _is_text(values.type) else self._whole(values, name)

    def _time(self, values: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
        time, kind = self.dataset.events.time, values.type
        where = f"{self.path}: column '{time.column}'"
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            if time.unit is None:
                raise UserError(f"{where} holds numbers: say events.time.unit: s, ms, us or ns")
            if pa.types.is_floating(kind):
                raise UserError(f"{where} holds fractions: give whole {time.unit} since 1970, or timestamps")
            numbers = values.cast(pa.int64()).to_numpy() if not values.null_count else None
            if numbers is None or (np.abs(numbers) > np.iinfo(np.int64).max // UNITS[time.unit]).any():
                raise UserError(f"{where} has missing times or times out of range for unit '{time.unit}'")
            return pa.array(numbers * UNITS[time.unit])
        self.time_is_text = True
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            parsed = pd.to_datetime(values.to_pandas(), errors="coerce", utc=True)
        elif _is_text(kind):
            parsed = pd.to_datetime(values.to_pandas(), format=time.format or "ISO8601", errors="coerce", utc=True)
        else:
            raise UserError(f"{where} is {kind}: times are timestamps, dates, ISO 8601 text or whole numbers")
        missing = np.flatnonzero(parsed.isna().to_numpy())
        if len(missing):
            shown, expected = values[int(missing[0])].as_py(), time.format or "ISO 8601"
            raise UserError(
                f"{where} has no readable time in row {rows[missing[0]]}: {shown!r} is not {expected} "
                f"({len(missing)} such rows): correct them or set events.time.format"
            )
        return pa.array(parsed.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
