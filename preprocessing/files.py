"""Event files: find them, read them, and put the tables of several into one.

Parquet says what type a column has; csv does not. There, text stays text unless writing its values as whole numbers
and back changes nothing: the item "00123" keeps its zeros, "NA" is a country, a date in a category stays as written.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from common.errors import UserError

_CSV = (".csv", ".csv.gz", ".tsv")
# What people write into a column of numbers where there is none.
_NO_NUMBER = ("", "NA", "N/A", "NULL", "null", "None", "nan", "NaN")


def expand(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Files that match the patterns under a folder, each once, sorted within a pattern.

    Raises
    ------
    UserError
        When a pattern matches nothing.
    """
    paths: list[Path] = []
    for pattern in patterns:
        found = sorted(glob.glob(str(root / pattern), recursive=True))
        if not found:
            raise UserError(f"no file matches '{pattern}' under {root}: correct events.files or give --data-root")
        paths += [Path(path) for path in found if Path(path).is_file()]
    if not paths:
        raise UserError(f"events.files matches only folders under {root}: add a pattern such as '*.parquet'")
    return list(dict.fromkeys(paths))


def load(path: Path, wanted: Sequence[str], numbers: Collection[str]) -> pa.Table:
    """Read some columns of a csv or parquet file.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.csv.gz`` and ``.tsv`` are read as text, everything else as parquet.
    wanted : sequence of str
        The columns.
    numbers : collection of str
        Those that hold numbers, fractions among them.

    Raises
    ------
    UserError
        When the file cannot be read, or a column is missing.
    """
    return _load_csv(path, wanted, numbers) if path.name.lower().endswith(_CSV) else _load_parquet(path, wanted)


def _load_parquet(path: Path, wanted: Sequence[str]) -> pa.Table:
    try:
        present = pa.parquet.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as parquet ({error}): give csv or parquet files") from error
    _check_columns(path, wanted, present)
    try:
        return pa.parquet.read_table(path, columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): write the file anew") from error


def _load_csv(path: Path, wanted: Sequence[str], numbers: Collection[str]) -> pa.Table:
    parse = pa.csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True)
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()), null_values=[""], strings_can_be_null=True
    )
    try:
        table = pa.csv.read_csv(path, parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): give csv or parquet files") from error
    _check_columns(path, wanted, table.column_names)
    columns = {}
    for name in wanted:
        whole = _whole_numbers(table.column(name))
        columns[name] = _fractions(whole, path, name) if name in numbers else whole
    return pa.table(columns)


def _check_columns(path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
    for name in wanted:
        if name not in present:
            raise UserError(f"{path} has no column '{name}'; it has: {', '.join(present)}")


def _whole_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as int64, if that loses nothing."""
    try:
        numbers = values.cast(pa.int64())
    except pa.ArrowInvalid:
        return values
    same = pc.all(pc.equal(numbers.cast(pa.string()), values)).as_py()
    return numbers if same is not False and values.null_count < len(values) else values


def _fractions(values: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    if not pa.types.is_string(values.type):
        return values
    missing = pc.is_in(values, pa.array(_NO_NUMBER))
    try:
        return pc.if_else(missing, pa.scalar(None, pa.string()), values).cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: column '{name}' should hold numbers: {error}") from error


def concatenate(tables: Sequence[pa.Table], paths: Sequence[Path]) -> pa.Table:
    """One table of several.

    Whole numbers in one csv file and text in another become text; whole numbers and fractions become fractions.

    Raises
    ------
    UserError
        When a column has types that do not go together: names the file.
    """
    unified = []
    for name in tables[0].column_names:
        kinds = [table.schema.field(name).type for table in tables]
        target = kinds[0]
        for kind, path in zip(kinds[1:], paths[1:], strict=True):
            if kind == target:
                continue
            if _is_number(kind) and _is_number(target):
                target = pa.float64()
            elif {kind, target} == {pa.int64(), pa.string()} and all(p.name.lower().endswith(_CSV) for p in paths):
                target = pa.string()
            else:
                raise UserError(f"{path}: column '{name}' is {kind} but {target} in {paths[0]}: make them the same")
        unified.append(pa.chunked_array([c for t in tables for c in t.column(name).cast(target).chunks], target))
    return pa.table(dict(zip(tables[0].column_names, unified, strict=True))).combine_chunks()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
