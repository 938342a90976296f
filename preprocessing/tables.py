"""Tables beside the events, whose columns `features.joins` adds to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from common.errors import UserError
from preprocessing.feature_settings import Join
from preprocessing.files import expand, is_csv, load
from preprocessing.kernels import LARGEST
from preprocessing.settings import Dataset

# Whole numbers beyond it are not exact as float64, which is how joined numbers travel.
_EXACT = 2**53


@dataclass(frozen=True)
class JoinedTable:
    """One table to join.

    Attributes
    ----------
    on : str
        The key.
    table : pyarrow.Table
        The key (int64 or string, each value once) and the columns (float64 or string, null where there is nothing).
    source : str
        The files, for messages.
    """

    on: str
    table: pa.Table
    source: str


def read_joins(dataset: Dataset) -> list[JoinedTable]:
    """Read the tables whose columns the features of a data set use.

    Raises
    ------
    UserError
        When a file or column is missing or unusable, a key is there twice, or the events have a joined column too.
    """
    wanted: dict[int, tuple[Join, list[str]]] = {}
    for column, join in dataset.features.joined().items():
        wanted.setdefault(id(join), (join, []))[1].append(column)
    return [_read_join(dataset, join, columns) for join, columns in wanted.values()]


def _read_join(dataset: Dataset, join: Join, columns: list[str]) -> JoinedTable:
    numbers = dataset.features.numbers() & set(columns)
    table, source = read_table(dataset.data_root, join.files, [join.on, *columns], numbers, "features.joins.files")
    _check_events(dataset, columns, source)
    key = read_key(table.column(join.on), join.on, source)
    twice = pc.value_counts(key)
    twice = twice.filter(pc.greater(twice.field("counts"), 1))
    if len(twice):
        raise UserError(
            f"{source}: the key '{join.on}' must be there once a value, but {twice.field('values')[0].as_py()!r} is "
            f"there {twice.field('counts')[0].as_py()} times ({len(twice)} such keys): keep one row of each"
        )
    made = {name: _plain(table.column(name), name, source, name in numbers) for name in columns}
    return JoinedTable(join.on, pa.table({join.on: key, **made}), source)


def read_table(
    root: Path, patterns: Sequence[str], columns: Sequence[str], numbers: Collection[str], setting: str
) -> tuple[pa.Table, str]:
    """Read some columns of all files of a table.

    Parameters
    ----------
    root, patterns : Path, sequence of str
        Where the files are.
    columns : sequence of str
        The columns.
    numbers : collection of str
        Those that hold numbers, fractions among them.
    setting : str
        The setting that names the files, for messages.

    Returns
    -------
    pyarrow.Table
        At least one row.
    str
        What to call the files in messages.

    Raises
    ------
    UserError
        When a file or column is missing or unreadable, or there is no row.
    """
    try:
        paths = expand(root, patterns)
    except UserError as error:
        raise UserError(str(error).replace("events.files", setting)) from error
    tables = [load(path, columns, numbers) for path in paths]
    source = str(paths[0]) if len(paths) == 1 else f"{setting} ({paths[0]} and {len(paths) - 1} more)"
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{source}: the files differ in the type of a column ({error}): make them the same") from error
    if not len(table):
        raise UserError(f"{source}: there is no row in this table")
    return table, source


def _check_events(dataset: Dataset, columns: Sequence[str], source: str) -> None:
    """Refuse a column that the events and the table have: nobody says which one is meant."""
    path = expand(dataset.data_root, dataset.events.files)[0]
    both = [column for column in columns if column in _header(path)]
    if both:
        raise UserError(
            f"{source}: the events have a column '{both[0]}' too ({path}): take it out of features.joins, or rename it "
            f"in the table"
        )


def _header(path: Path) -> list[str]:
    """Names of the columns of a file, without reading it."""
    if not is_csv(path):
        return list(pa.parquet.read_schema(path).names)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with pa.csv.open_csv(path, parse_options=pa.csv.ParseOptions(delimiter=delimiter)) as reader:
        return list(reader.schema.names)


def read_key(values: pa.ChunkedArray, name: str, source: str) -> pa.Array:
    """The key of a table as one int64 or string array.

    Raises
    ------
    UserError
        When a key is missing, or they are neither whole numbers nor text.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        return read_key(values.cast(kind.value_type), name, source)
    if pa.types.is_integer(kind):
        key = values.cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        key = values.cast(pa.string())
        key = pc.if_else(pc.equal(key, ""), pa.scalar(None, pa.string()), key)
    else:
        raise UserError(f"{source}: the key '{name}' is {kind}: keys are whole numbers or text")
    if key.null_count:
        raise UserError(f"{source}: the key '{name}' is missing in {key.null_count} rows: leave those rows out")
    return one_array(key)


def _plain(values: pa.ChunkedArray, name: str, source: str, number: bool) -> pa.Array:
    """Values as float64 or text, null where there is nothing: the forms that do not change where a key is missing."""
    kind, where = values.type, f"{source}: column '{name}'"
    if pa.types.is_dictionary(kind):
        return _plain(values.cast(kind.value_type), name, source, number)
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    if pa.types.is_integer(kind) and pc.any(pc.greater(pc.abs(values.cast(pa.int64())), _EXACT)).as_py():
        raise UserError(f"{where} holds whole numbers beyond 2^53, which joined columns cannot: write them as text")
    if pa.types.is_decimal(kind) or pa.types.is_floating(kind) or pa.types.is_integer(values.type):
        numbers = values.cast(pa.float64())
        usable = pc.fill_null(pc.less_equal(pc.abs(numbers), LARGEST), False)
        return one_array(pc.if_else(usable, numbers, pa.scalar(None, pa.float64())))
    if number:
        raise UserError(f"{where} is {kind}, but the features want numbers of it")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind):
        values = values.cast(pa.string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{where} is {kind}: features are numbers, booleans or text")
    text = values.cast(pa.string())
    return one_array(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text))


def one_array(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One array without chunks."""
    if isinstance(values, pa.Array):
        return values
    joined = values.combine_chunks()
    return pa.concat_arrays(joined.chunks) if isinstance(joined, pa.ChunkedArray) else joined


def index_of(values: pa.Array, keys: pa.Array, where: str) -> np.ndarray:
    """The row of each value in a table.

    Parameters
    ----------
    values : pyarrow.Array [N]
        Whole numbers (or float64, where some are missing) or text.
    keys : pyarrow.Array [K]
        int64 or text, each once.
    where : str
        What the keys are, for messages.

    Returns
    -------
    int64 [N]
        -1 for what the table does not have, and for what is missing.

    Raises
    ------
    UserError
        When one side is text and the other numbers, so that no value can be found.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if not pa.types.is_null(values.type) and text != pa.types.is_string(keys.type):
        kinds = ("text", "numbers") if text else ("numbers", "text")
        raise UserError(f"{where} holds {kinds[1]} where the events hold {kinds[0]}: write both the same way")
    common = pa.float64() if pa.types.is_floating(values.type) else keys.type
    row = pc.index_in(values.cast(common), keys.cast(common, safe=False), skip_nulls=True)
    return pc.fill_null(row, -1).to_numpy(zero_copy_only=False).astype(np.int64)
