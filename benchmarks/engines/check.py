"""Whether two engines did the same work.

    python -m benchmarks.engines.check ENGINE FOLDER ENGINE FOLDER

Sessions may stand in any order. The same windows must hold the same sessions with the same events in the same order.
Codes are compared as the values behind them, which must have been seen equally often and be coded by falling count: so
everything is exact except the order of values that occur equally often, and that difference is told. Numbers may
differ by what single precision loses on the way.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.engines import CODED, FEATURES, FIRST, WINDOWS

EQUAL, BUT_FOR_TIES = "equal", "equal but for ties"
# Of a price in standard deviations. NVTabular takes logarithms in single precision and sums their squares in it, from
# which it then takes the square of their mean: on a million events that moves the scale by 3e-6, and a price by 2e-5.
TOLERANCE = 1e-4


class Difference(Exception):
    """What differs, in one line."""


def vocabulary(engine: str, out: Path) -> dict[str, pa.Table]:
    """Value and count in the order of the codes, for each coded column of an engine's output."""
    if (out / "vocabulary").is_dir():
        return {name: pq.read_table(out / "vocabulary" / f"{name}.parquet") for name in CODED}
    return importlib.import_module(f"benchmarks.engines.{engine}").vocabulary(out)


def compare(reference: Path, other: Path, expected: dict[str, pa.Table], found: dict[str, pa.Table]) -> str:
    """Compare the outputs of two engines.

    Parameters
    ----------
    reference, other : Path
        Folders with ``train``, ``valid`` and ``test``.
    expected, found : dict of str to pyarrow.Table
        The vocabularies that belong to them, see `vocabulary`.

    Returns
    -------
    str
        `EQUAL`, or `BUT_FOR_TIES` when values that occur equally often are coded in another order.

    Raises
    ------
    Difference
        When the work differs: names the window and the column.
    """
    recode = {name: _recoding(name, expected[name], found[name]) for name in CODED}
    for window in WINDOWS:
        (sessions, offsets, one), (others, other_offsets, two) = _sessions(reference, window), _sessions(other, window)
        if not np.array_equal(sessions, others):
            raise Difference(f"{window}: other sessions ({len(others):,} instead of {len(sessions):,}, or other ids)")
        if not np.array_equal(offsets, other_offsets):
            raise Difference(f"{window}: sessions of other lengths")
        for name in FEATURES:
            if name in CODED:
                if two[name].max(initial=0) >= len(recode[name]) or two[name].min(initial=0) < 0:
                    raise Difference(f"{window}: codes of {name} that stand for no value")
                wrong = one[name] != recode[name][two[name]]
            else:
                wrong = ~(np.abs(one[name] - two[name]) <= TOLERANCE)
            if wrong.any():
                raise Difference(f"{window}: {int(wrong.sum()):,} of {len(wrong):,} values of {name} differ")
    same = all(np.array_equal(codes, np.arange(len(codes))) for codes in recode.values())
    return EQUAL if same else BUT_FOR_TIES


def _recoding(name: str, expected: pa.Table, found: pa.Table) -> np.ndarray:
    """The expected code of every code of the other engine."""
    counts = found.column("count").to_numpy()
    if (counts[1:] > counts[:-1]).any():
        raise Difference(f"the codes of {name} do not go by falling count")
    values, others = (table.column("value").combine_chunks() for table in (expected, found))
    if len(values) != len(others) or pc.count_distinct(others).as_py() != len(others):
        raise Difference(f"{len(others):,} values of {name} are known instead of {len(values):,}")
    place = pc.index_in(others.cast(values.type), values)
    if place.null_count:
        raise Difference(f"{place.null_count:,} known values of {name} should not be")
    place = place.to_numpy()
    if not np.array_equal(expected.column("count").to_numpy()[place], counts):
        raise Difference(f"values of {name} were counted differently in training")
    return np.concatenate([np.arange(FIRST), place + FIRST])


def _sessions(out: Path, window: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Session ids in ascending order, offsets of their events, and every feature's values."""
    table = pq.read_table(out / window, columns=["session_id", *FEATURES]).combine_chunks()
    ids = table.column("session_id").to_numpy()
    order = np.argsort(ids, kind="stable")
    begins, flat = {}, {}
    for name in FEATURES:
        lists = table.column(name).combine_chunks()
        wanted = pa.int64() if name in CODED else pa.float32()
        if lists.type.value_type != wanted or lists.null_count or lists.flatten().null_count:
            raise Difference(f"{window}: {name} is {lists.type}, or has gaps, instead of lists of {wanted}")
        begins[name], flat[name] = lists.offsets.to_numpy(), lists.values.to_numpy()
    offsets = begins[FEATURES[0]]
    lengths = np.diff(offsets)[order]
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[:-1][order] - (ends - lengths), lengths)
    for name in FEATURES[1:]:
        if not np.array_equal(np.diff(begins[name]), np.diff(offsets)):
            raise Difference(f"{window}: lists of {name} and {FEATURES[0]} have other lengths")
    values = {name: flat[name][rows - offsets[0] + begins[name][0]] for name in FEATURES}
    return ids[order], np.concatenate([[0], ends]), values


def main(engines: tuple[str, str], folders: tuple[Path, Path]) -> None:
    """Print the verdict; the exit code is 1 when the work differs."""
    try:
        expected, found = (vocabulary(engine, out) for engine, out in zip(engines, folders, strict=True))
        print(compare(*folders, expected, found))
    except Difference as difference:
        print(f"differs from {engines[0]}: {difference}")
        sys.exit(1)


if __name__ == "__main__":
    main((sys.argv[1], sys.argv[3]), (Path(sys.argv[2]), Path(sys.argv[4])))
