"""Read the events of a request from a file or from standard input.

    columns = read_events("sessions.csv")           # {"session_id": ["7", …], "item_id": ["mug", …], …}

csv (also with semicolons, tabs or bars), json (a list of objects, one object, or an object of columns), jsonl and
parquet. A csv file gives text in every column, so that an id keeps its leading zeros: the client converts what
the model wants as numbers.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError

FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


def read_events(source: Path | str, form: str | None = None) -> dict[str, list[Any]]:
    """Read raw events into columns.

    Parameters
    ----------
    source : Path or str
        A file, or ``"-"`` for standard input.
    form : str, optional
        ``"csv"``, ``"json"``, ``"jsonl"`` or ``"parquet"``. By default the file's extension says it, and on standard
        input the first characters do.

    Returns
    -------
    dict of str to list
        Column name -> N values, N >= 1. Empty csv fields and absent JSON keys are None.

    Raises
    ------
    UserError
        When the source cannot be read or holds no events; it names the file and the line or row.
    """
    name = "standard input" if str(source) == "-" else str(source)
    content = _read(source, name)
    if not content.strip():
        raise UserError(f"{name} is empty: give at least one event")
    form = form or FORMATS.get(Path(source).suffix.lower()) or (_sniff(content) if str(source) == "-" else None)
    parsers: dict[str, Callable[[bytes, str], dict[str, list[Any]]]] = {
        "csv": _csv,
        "json": _json,
        "jsonl": _jsonl,
        "parquet": _parquet,
    }
    if form not in parsers:
        kinds = ", ".join(parsers)
        problem = f"format {form!r} is not known" if form else f"{name} has no extension that says its format"
        raise UserError(f"{problem}: use one of {kinds}")
    columns = parsers[form](content, name)
    if not columns or not len(next(iter(columns.values()))):
        raise UserError(f"{name} holds no events: give at least one")
    return columns


def _read(source: Path | str, name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(source) == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from error


def _sniff(content: bytes) -> str:
    start = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    if content.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"["):
        return "json"
    if not start.startswith(b"{"):
        return "csv"
    try:
        json.loads(start)
    except ValueError:
        return "jsonl"
    return "json"


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}, line {line}: is not UTF-8 text") from error


def _csv(content: bytes, name: str) -> dict[str, list[Any]]:
    text = _text(content, name)
    header = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(",;\t|", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    rows: list[list[str | None]] = []
    try:
        for fields in reader:
            if not fields:
                continue
            if not names:
                names = [field.strip() for field in fields]
                if len(set(names)) < len(names) or "" in names:
                    raise UserError(f"{name}, line {reader.line_num}: every column needs a name of its own")
                continue
            if len(fields) != len(names):
                expected = f"the header has {len(names)}"
                raise UserError(f"{name}, line {reader.line_num}: {len(fields)} fields, but {expected}")
            rows.append([field or None for field in fields])
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}") from error
    return {column: [row[position] for row in rows] for position, column in enumerate(names)}


def _json(content: bytes, name: str) -> dict[str, list[Any]]:
    try:
        value = json.loads(_text(content, name))
    except json.JSONDecodeError as error:
        raise UserError(f"{name}, line {error.lineno}: is not JSON ({error.msg})") from error
    if isinstance(value, list):
        return _rows(dict(enumerate(value, start=1)), name, "row")
    if not isinstance(value, dict):
        raise UserError(f"{name}: give a list of events or an object of columns")
    if not any(isinstance(column, list) for column in value.values()):
        return _rows({1: value}, name, "row")
    lengths = {}
    for column, values in value.items():
        if not isinstance(values, list):
            raise UserError(f"{name}, column {column}: is not a list like the other columns")
        lengths[column] = len(values)
        for row, entry in enumerate(values, start=1):
            _check_flat(entry, f"{name}, column {column}, row {row}")
    first = next(iter(lengths))
    for column, length in lengths.items():
        if length != lengths[first]:
            raise UserError(f"{name}: column {column} has {length} values, column {first} has {lengths[first]}")
    return value


def _jsonl(content: bytes, name: str) -> dict[str, list[Any]]:
    rows = {}
    for number, line in enumerate(_text(content, name).split("\n"), start=1):
        if line.strip():
            try:
                rows[number] = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{name}, line {number}: is not JSON ({error.msg})") from error
    return _rows(rows, name, "line")


def _rows(rows: Mapping[int, Any], name: str, noun: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, row in rows.items():
        if not isinstance(row, dict):
            raise UserError(f"{name}, {noun} {number}: is not an object of column names and values")
        for column, value in row.items():
            _check_flat(value, f"{name}, {noun} {number}, column {column}")
            columns.setdefault(column, [])
    return {column: [row.get(column) for row in rows.values()] for column in columns}


def _check_flat(value: Any, where: str) -> None:
    if isinstance(value, list | dict):
        raise UserError(f"{where}: holds a list or an object, but an event has one value a column")


def _parquet(content: bytes, name: str) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name} is not a readable parquet file ({str(error).splitlines()[0]:.120})") from error
    for field in table.schema:
        if pa.types.is_nested(field.type):
            raise UserError(f"{name}, column {field.name}: holds {field.type}, but an event has one value a column")
    return {column: table.column(column).to_pylist() for column in table.column_names}
