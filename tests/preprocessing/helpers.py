"""What several tests of the preprocessing ask: what was read, what came out, whether every event is accounted for."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.contract import agree, wanted_columns
from preprocessing.events import clean
from preprocessing.files import blocks, expand
from preprocessing.preprocess import preprocess
from preprocessing.windows import WINDOWS

from .conftest import NAMES, table

KEYS = {"session": "visit", "item": "sku", "time": "at"}
HEADER = "visit,sku,at,brand,price\n"


def as_csv(rows, separator=","):
    """Rows of the tiny shop as the text of a csv file."""
    lines = [separator.join("" if value is None else str(value) for value in row) for row in rows]
    return "\n".join([separator.join(NAMES), *lines, ""])


def with_column(name, values):
    """The tiny shop with another column in the place of one of its own."""
    events = table()
    return events.set_column(events.column_names.index(name), name, values)


class Read(NamedTuple):
    """All events of a data set as the rest of the pipeline gets them."""

    table: pa.Table
    bad: pa.Table | None
    dropped: dict[str, int]
    read: int
    wire: dict[str, str]


def read(dataset, block_events=1_000_000, chunk_events=1_000_000):
    """Read and clean all files, without partitions or workers."""
    contract = agree(dataset, expand(dataset.data_root, dataset.events.files), chunk_events)
    cleaned = []
    for chunk in contract.chunks:
        first = chunk.first_row
        for block in blocks(chunk, wanted_columns(dataset), block_events, lambda line, text: None):
            cleaned.append(clean(block, dataset, contract, chunk.path, first))
            first += len(block)
        assert first == chunk.first_row + chunk.rows
    bad = [part.bad for part in cleaned if part.bad is not None]
    dropped = sum((part.dropped for part in cleaned), type(cleaned[0].dropped)())
    # Addition of counters leaves out zeros.
    dropped = {reason: dropped[reason] for part in cleaned for reason in part.dropped}
    return Read(
        pa.concat_tables([part.table for part in cleaned]),
        pa.concat_tables(bad) if bad else None,
        dropped,
        sum(part.read for part in cleaned),
        contract.wire(),
    )


def run(dataset, out, **how):
    """Preprocess, and check that no event is lost or made."""
    report = preprocess(dataset, out, **how)
    assert report["events_read"] == report["events"] + sum(report["events_dropped"].values()), report
    counted = {"sessions": 0, "events": 0}
    for window in WINDOWS:
        items = pq.read_table(out / window).column("item_id").to_pylist()
        assert report["windows"][window]["sessions"] == len(items)
        assert report["windows"][window]["events"] == sum(map(len, items))
        counted["sessions"] += len(items)
        counted["events"] += sum(map(len, items))
    assert counted == {name: report[name] for name in counted}
    quarantine = out / "quarantine.parquet"
    unusable = sum(n for reason, n in report["events_dropped"].items() if reason.startswith("unusable: "))
    assert unusable == (pq.read_table(quarantine).num_rows if quarantine.exists() else 0)
    return report


def sessions(folder, window, column):
    """One feature of one window: session -> values."""
    columns = pq.read_table(folder / window).to_pydict()
    return dict(zip(columns["session_id"], columns[column], strict=True))


def content(folder):
    """All windows: window -> sorted sessions, each its id and its features.

    The order of the sessions inside a window is nobody's promise, and with an inactivity gap one id has several.
    """
    return {window: sorted(pq.read_table(folder / window).to_pylist(), key=_place) for window in WINDOWS}


def _place(session):
    whole = {name: values for name, values in session.items() if not _fractions(values)}
    rounded = {name: np.round(values, 3).tolist() for name, values in session.items() if _fractions(values)}
    return repr(session["session_id"]), repr(sorted(whole.items())), repr(sorted(rounded.items()))


def _fractions(values):
    return isinstance(values, list) and any(isinstance(value, float) for value in values)


def assert_same(one, two):
    """Two answers of `content` are equal, sums of floating point within rounding."""
    assert one.keys() == two.keys()
    for window in one:
        assert [s["session_id"] for s in one[window]] == [s["session_id"] for s in two[window]], window
        for left, right in zip(one[window], two[window], strict=True):
            assert left.keys() == right.keys()
            for name in left:
                if _fractions(left[name]) or _fractions(right[name]):
                    np.testing.assert_allclose(left[name], right[name], rtol=1e-6, atol=1e-6, err_msg=name)
                else:
                    assert left[name] == right[name], (window, left["session_id"], name)
