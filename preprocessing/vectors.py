"""Vectors of items that were made in advance: tables with a list of numbers an item, as matrices for the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.errors import UserError
from preprocessing.settings import Dataset
from preprocessing.tables import index_of, one_array, read_key, read_table

FOLDER, SUFFIX, MATRIX = "vectors", ".safetensors", "vectors"


def write_vectors(dataset: Dataset, values: pa.Array, reserved: int, folder: Path) -> dict[str, dict[str, int]]:
    """Write the vectors of items as matrices that are indexed by the item's code.

    ``vectors/<name>.safetensors`` holds one float32 matrix ``vectors`` [cardinality, width]; rows of reserved codes,
    and of items that the table does not have, are zero.

    Parameters
    ----------
    dataset : Dataset
        Its ``features.vectors`` name the tables. In csv files vectors are JSON, ``"[0.1, -2]"``, or empty where an item
        has none.
    values : pyarrow.Array
        The known items in the order of their codes.
    reserved : int
        The code of the first of them.
    folder : Path
        The features folder; nothing is made where there are no vectors.

    Returns
    -------
    dict of str to dict
        For each table ``width``, ``items`` (known items that have a vector) and ``missing`` (those that do not).

    Raises
    ------
    UserError
        When a table is missing or unusable, or has no vector of any known item.
    """
    from safetensors.numpy import save_file

    report = {}
    for entry in dataset.features.vectors:
        on = entry.on or dataset.events.item
        table, source = read_table(dataset.data_root, entry.files, [on, entry.column], [], "features.vectors.files")
        table = _from_text(table, entry.column, source)
        key = read_key(table.column(on), on, source)
        row = index_of(values, key, f"{source}: the key '{on}'")
        found = np.flatnonzero(row >= 0)
        if not len(found):
            raise UserError(f"{source}: no item of the events has a vector: is '{on}' the item's id?")
        if len(key.unique()) < len(key):
            raise UserError(f"{source}: the key '{on}' is there more than once for some items: keep one row of each")
        chosen = one_array(table.column(entry.column)).take(pa.array(row[found]))
        vectors = _matrix(chosen, f"{source}: column '{entry.column}'")
        if entry.unit_length:
            length = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(length > 0, length, 1)
        matrix = np.zeros((reserved + len(values), vectors.shape[1]), dtype=np.float32)
        matrix[reserved + found] = vectors
        (folder / FOLDER).mkdir(exist_ok=True)
        save_file({MATRIX: matrix}, folder / FOLDER / f"{entry.name}{SUFFIX}")
        report[entry.name] = {
            "width": matrix.shape[1],
            "items": len(found),
            "missing": len(values) - len(found),
        }
    return report


def _from_text(table: pa.Table, column: str, source: str) -> pa.Table:
    """A table of csv files with lists in place of their text, without the rows that have none."""
    text = table.column(column)
    if not (pa.types.is_string(text.type) or pa.types.is_large_string(text.type)):
        return table
    table = table.filter(pc.fill_null(pc.greater(pc.utf8_length(text), 0), False))
    place = table.column_names.index(column)
    lists = []
    for written in table.column(place).to_pylist():
        try:
            lists.append([float(number) for number in json.loads(written)])
        except (ValueError, TypeError, OverflowError):
            raise UserError(
                f"{source}: column '{column}' holds {written[:40]!r}: vectors are lists of numbers, such as [0.1, -2]"
            ) from None
    return table.set_column(place, column, pa.array(lists, pa.list_(pa.float64())))


def _matrix(vectors: pa.Array, where: str) -> np.ndarray:
    """Lists of one width as float32 [N, width]."""
    kind = vectors.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise UserError(f"{where} is {kind}: vectors are lists of numbers")
    if vectors.null_count:
        raise UserError(f"{where} has missing vectors: leave those rows out")
    widths = pc.list_value_length(vectors).unique().to_pylist()
    flat = vectors.flatten()
    if len(widths) > 1 or not widths[0]:
        raise UserError(f"{where} holds vectors of {' and '.join(map(str, sorted(widths)))} numbers: give one width")
    if not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
        raise UserError(f"{where} is {kind}: vectors are lists of numbers")
    with np.errstate(over="ignore"):
        numbers = flat.to_numpy(zero_copy_only=False).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UserError(f"{where} holds numbers that are missing or infinite: vectors must be whole")
    return numbers.reshape(-1, widths[0])
