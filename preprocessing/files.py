"""Event files: find them, say what is in them, and read them block by block.

Parquet says what type a column has; csv does not. There, text stays text unless writing its values as whole numbers
and back changes nothing: the item "00123" keeps its zeros, "NA" is a country, a date in a category stays as written.
"""

from __future__ import annotations

import csv
import glob
import gzip
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from common.errors import UserError

_CSV = (".csv", ".csv.gz", ".tsv")
_CSV_BLOCK = 32 * 2**20
# What people write into a column of numbers where there is none.
_NO_NUMBER = ("", "NA", "N/A", "NULL", "null", "None", "nan", "NaN")
_NUMBER = r"(?i)^\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity|nan)\s*$"
# Whole numbers as `whole_numbers` takes them; with a digit more, they may or may not fit 64 bits.
_WHOLE, _LONG_WHOLE = r"^(0|-?[1-9]\d{0,17})$", r"^-?[1-9]\d{18}$"


@dataclass(frozen=True)
class Chunk:
    """A part of an event file that is read in one go: some row groups of a parquet file, or a whole csv file.

    Attributes
    ----------
    path : Path
        The file.
    first_row, rows : int
        Position of its first event in the file, and how many there are.
    row_groups : tuple of int, optional
        Of a parquet file.
    """

    path: Path
    first_row: int
    rows: int
    row_groups: tuple[int, ...] | None = None


@dataclass
class FileFacts:
    """What a file holds, found without keeping it in memory.

    Attributes
    ----------
    path : Path
        The file.
    types : dict of str to pyarrow.DataType
        Of the columns that were asked for; null where a csv file has no value.
    gaps : set of str
        Columns with missing values.
    chunks : list of Chunk
        Its parts.
    """

    path: Path
    types: dict[str, pa.DataType]
    gaps: set[str] = field(default_factory=set)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Events in the file."""
        return sum(chunk.rows for chunk in self.chunks)


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


def is_csv(path: Path) -> bool:
    """Whether a file is read as text; everything else is parquet."""
    return path.name.lower().endswith(_CSV)


def inspect(path: Path, wanted: Sequence[str], numbers: Collection[str], chunk_events: int) -> FileFacts:
    """Find out the types, the gaps and the size of a file.

    A parquet file's own metadata says it; a csv file is read once, block by block.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.csv.gz`` and ``.tsv`` are read as text, everything else as parquet.
    wanted : sequence of str
        The columns.
    numbers : collection of str
        Those that hold numbers, fractions among them.
    chunk_events : int
        Events a chunk of a parquet file, roughly.

    Raises
    ------
    UserError
        When the file cannot be read, or a column is missing.
    """
    if is_csv(path):
        return _inspect_csv(path, wanted, numbers)
    try:
        with pa.parquet.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            _check_columns(path, wanted, schema.names)
            facts = FileFacts(path, {name: schema.field(name).type for name in wanted})
            facts.chunks = _chunks(path, metadata, chunk_events)
            facts.gaps = _gaps(file, wanted)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as parquet ({error}): give csv or parquet files") from error
    return facts


def _chunks(path: Path, metadata: Any, chunk_events: int) -> list[Chunk]:
    chunks, first, rows, groups = [], 0, 0, []
    for number in range(metadata.num_row_groups):
        rows += metadata.row_group(number).num_rows
        groups.append(number)
        if rows >= chunk_events or number == metadata.num_row_groups - 1:
            chunks.append(Chunk(path, first, rows, tuple(groups)))
            first, rows, groups = first + rows, 0, []
    return chunks


def _gaps(file: Any, wanted: Sequence[str]) -> set[str]:
    """Columns of whole numbers or booleans with nulls, by the statistics; where these are silent, by a look."""
    gaps, metadata = set(), file.metadata
    places = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    for name in wanted:
        kind = file.schema_arrow.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)) or not file.schema_arrow.field(name).nullable:
            continue
        stats = [metadata.row_group(i).column(places[name]).statistics for i in range(metadata.num_row_groups)]
        known = all(stat is not None and stat.has_null_count for stat in stats)
        counts = [stat.null_count for stat in stats] if known else []
        if any(counts) or (not known and any(b.column(0).null_count for b in file.iter_batches(columns=[name]))):
            gaps.add(name)
    return gaps


def _inspect_csv(path: Path, wanted: Sequence[str], numbers: Collection[str]) -> FileFacts:
    whole, seen, gaps, rows = set(wanted), set(), set(), 0
    for block in _csv_blocks(path, wanted, None):
        rows += len(block)
        for name in wanted:
            values = block.column(name)
            if values.null_count:
                gaps.add(name)
            if values.null_count < len(values):
                seen.add(name)
            if name in whole and whole_numbers(values) is None:
                whole.discard(name)
    types = {}
    for name in wanted:
        plain = pa.float64() if name in numbers else pa.string()
        types[name] = pa.null() if name not in seen else pa.int64() if name in whole else plain
    return FileFacts(path, types, gaps & whole & seen, [Chunk(path, 0, rows)])


def blocks(
    chunk: Chunk,
    wanted: Sequence[str],
    block_events: int,
    on_bad: Callable[[int, str], None],
    repeated: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """Read a chunk in blocks: of parquet with the file's types, of csv as text.

    Parameters
    ----------
    chunk : Chunk
        What to read.
    wanted : sequence of str
        The columns.
    block_events : int
        Events a block of a parquet file, at most.
    on_bad : callable
        Told the line number and the text of each csv line whose number of fields is not the header's.
    repeated : sequence of str
        Columns of text that parquet files may give as dictionaries, which is how most of them hold it.

    Raises
    ------
    UserError
        When the file cannot be read or is damaged.
    """
    if is_csv(chunk.path):
        yield from _csv_blocks(chunk.path, wanted, on_bad)
        return
    try:
        with pa.parquet.ParquetFile(chunk.path, read_dictionary=list(repeated)) as file:
            groups = list(chunk.row_groups or range(file.num_row_groups))
            for batch in file.iter_batches(block_events, row_groups=groups, columns=list(wanted)):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{chunk.path} is damaged ({error}): write the file anew") from error


def _csv_blocks(path: Path, wanted: Sequence[str], on_bad: Callable[[int, str], None] | None) -> Iterator[pa.Table]:
    def skip(row: Any) -> str:
        if on_bad is not None:
            on_bad(row.number or 0, row.text)
        return "skip"

    parse = pa.csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True, invalid_row_handler=skip)
    # Of a column that is not named here Arrow would guess the type by the first block, and fail in a later one.
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(wanted, pa.string()),
        include_columns=list(wanted),
        null_values=[""],
        strings_can_be_null=True,
    )
    # Threads would not know the numbers of lines.
    read = pa.csv.ReadOptions(block_size=_CSV_BLOCK, use_threads=False)
    try:
        if header := _header(path):
            _check_columns(path, wanted, header)
        with pa.csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): give csv or parquet files") from error


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _header(path: Path) -> list[str]:
    """Names of the columns of a csv file; none where it is empty."""
    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        return next((row for row in csv.reader(stream, delimiter=_delimiter(path)) if row), [])


def _check_columns(path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
    for name in wanted:
        if present.count(name) > 1:
            raise UserError(f"{path} has the column '{name}' {present.count(name)} times: rename all but one")
        if name not in present:
            raise UserError(f"{path} has no column '{name}'; it has: {', '.join(present)}")


def whole_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Text as int64, if that loses nothing; None where it would."""
    try:
        numbers = values.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return None if pc.all(pc.equal(numbers.cast(pa.string()), values)).as_py() is False else numbers


def each_whole_number(values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Text as int64, with null for each value that is no whole number of 64 bits."""
    numbers = whole_numbers(values)
    if numbers is not None:
        return numbers
    plain = pc.if_else(pc.match_substring_regex(values, _WHOLE), values, pa.scalar(None, pa.string())).cast(pa.int64())
    long = pc.fill_null(pc.match_substring_regex(values, _LONG_WHOLE), False)
    if not pc.any(long).as_py():
        return plain
    read = [int(text) for text in values.filter(long).to_pylist()]
    fits = pa.array([number if -(2**63) <= number < 2**63 else None for number in read], pa.int64())
    return pc.replace_with_mask(plain.combine_chunks(), long.combine_chunks(), fits)


def fractions(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Text as float64, with null for what is no number; and which values are wrong, if any are.

    What counts as a number does not depend on the other values.
    """
    values = pc.if_else(pc.is_in(values, pa.array(_NO_NUMBER)), pa.scalar(None, pa.string()), values)
    try:
        return values.cast(pa.float64()), None
    except pa.ArrowInvalid:
        right = pc.match_substring_regex(values, _NUMBER)
        wrong = pc.invert(pc.fill_null(right, True))
        kept = pc.if_else(pc.fill_null(right, False), pc.utf8_trim_whitespace(values), pa.scalar(None, pa.string()))
        return kept.cast(pa.float64()), wrong


def load(path: Path, wanted: Sequence[str], numbers: Collection[str] = ()) -> pa.Table:
    """Read some columns of a whole file: a table of items or users.

    Raises
    ------
    UserError
        When the file cannot be read, or a column is missing or should hold numbers and does not.
    """
    facts = inspect(path, wanted, numbers, 2**62)

    lines: list[str] = []

    def refuse(line: int, text: str) -> None:
        lines.append(f"line {line}: {text[:60]!r}")

    read = [block for chunk in facts.chunks for block in blocks(chunk, wanted, 2**20, refuse)]
    if lines:
        raise UserError(f"{path}, {lines[0]} has another number of fields than the header: correct it")
    types = facts.types
    if is_csv(path):
        empty = {name: pa.float64() if name in numbers else pa.string() for name in wanted}
        types = {name: empty[name] if pa.types.is_null(kind) else kind for name, kind in types.items()}
    table = pa.concat_tables(read) if read else pa.table({name: pa.array([], types[name]) for name in wanted})
    for position, name in enumerate(wanted):
        values = table.column(name)
        if values.type == types[name]:
            continue
        if pa.types.is_floating(types[name]):
            values, wrong = fractions(values)
            if wrong is not None:
                row = pc.index(wrong, True).as_py()
                raise UserError(f"{path}: column '{name}' should hold numbers, but row {row} does not")
        table = table.set_column(position, name, values.cast(types[name]))
    return table
