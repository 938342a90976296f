"""Numbers, ids and times come in many types, and are brought to one form."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from preprocessing.contract import agree

from .conftest import NAMES, ROWS, table
from .helpers import KEYS, as_csv, read, run, sessions, with_column


def test_int_and_float_files_together(make, tmp_path):
    stock = pa.array(range(12))
    dataset = make(
        table().append_column("stock", stock),
        features={"event": {"continuous": ["stock"]}},
        events=KEYS | {"files": "*.parquet"},
    )
    pq.write_table(table().append_column("stock", pa.array([0.5] * 12)), tmp_path / "more.parquet")
    found = read(dataset)
    assert found.wire["stock"] == "FP64"
    assert found.table.column("stock").to_pylist() == [*map(float, range(12)), *[0.5] * 12]


@pytest.mark.parametrize(
    ("one", "other"),
    [(pa.string(), pa.int64()), (pa.bool_(), pa.int64()), (pa.string(), pa.float64()), (pa.bool_(), pa.string())],
)
def test_files_that_disagree(make, tmp_path, one, other):
    values = {pa.string(): "x", pa.int64(): 1, pa.float64(): 1.5, pa.bool_(): True}
    dataset = make(with_column("brand", pa.array([values[one]] * 12, one)), events=KEYS | {"files": "*.parquet"})
    pq.write_table(with_column("brand", pa.array([values[other]] * 12, other)), tmp_path / "more.parquet")
    with pytest.raises(UserError) as caught:
        read(dataset)
    message = (
        f"{tmp_path}/more.parquet: column 'brand' is {other} but {one} in {tmp_path}/events.parquet: make them the same"
    )
    assert str(caught.value) == message


def test_time_is_a_number_in_one_file_and_text_in_another(make, tmp_path):
    events = KEYS | {"files": "*.parquet", "time": {"column": "at", "unit": "s"}}
    dataset = make(events=events)
    pq.write_table(with_column("at", pa.array(range(12))), tmp_path / "more.parquet")
    with pytest.raises(UserError, match="column 'at' is int64 but string in"):
        read(dataset)


def test_dictionaries_and_large_text_are_text(make, tmp_path):
    dataset = make(events=KEYS | {"files": "*.parquet"})
    events = table()
    for name in ("visit", "sku", "brand"):
        position = events.column_names.index(name)
        events = events.set_column(position, name, events.column(name).dictionary_encode())
    pq.write_table(events, tmp_path / "dictionary.parquet")
    large = pa.table({name: table().column(name).cast(pa.large_string()) for name in ("visit", "sku", "at", "brand")})
    pq.write_table(large.append_column("price", table().column("price")), tmp_path / "large.parquet")
    found = read(dataset).table
    assert [found.slice(start, 12).combine_chunks() for start in (0, 12, 24)] == [
        read(make()).table.combine_chunks()
    ] * 3


BIG = [2**53 + 1, 2**53 + 2, -1, -(2**62), 0, 2**63 - 1, -(2**63)]


def test_big_ids_are_told_apart(make, tmp_path):
    """Neighbours beyond 2 ** 53, negative ids, and the ends of what 64 bits hold, as sessions and as items."""
    rows = [(BIG[n % 7], BIG[(n * n) % 7], f"2024-01-{1 + n % 7:02d}T10:{n // 7:02d}", "x", 1.0) for n in range(70)]
    columns = {name: [row[position] for row in rows] for position, name in enumerate(NAMES)}
    dataset = make(pa.table(columns), split={"valid": 0.2, "test": 0.2})
    run(dataset, tmp_path / "features", partition_events=20)
    counts = {}
    for row in rows:
        if row[0] in BIG[:5]:  # the training sessions
            counts[row[1]] = counts.get(row[1], 0) + 1
    known = sorted(counts, key=lambda item: (-counts[item], item))
    code = {item: 3 + place for place, item in enumerate(known)}
    for window, ids in (("train", BIG[:5]), ("valid", BIG[5:6]), ("test", BIG[6:])):
        expected = {visit: [code.get(row[1], 2) for row in rows if row[0] == visit] for visit in ids}
        assert sessions(tmp_path / "features", window, "item_id") == expected


def test_unsigned_ids_beyond_64_bits_are_set_apart(make, tmp_path):
    ids = pa.array([2**64 - 1, 2**63, *range(10)], pa.uint64())
    dataset = make(with_column("sku", ids), events=KEYS | {"files": "events.parquet", "max_bad_share": 1})
    found = read(dataset)
    assert found.bad.column("_row").to_pylist() == [0, 1]
    assert found.bad.column("sku").to_pylist() == [str(2**64 - 1), str(2**63)]
    assert found.table.column("sku").to_pylist() == list(range(10))
    assert found.wire["sku"] == "INT64"


# Times.

MOMENT = datetime.datetime(2024, 2, 29, 23, 59, 59, tzinfo=datetime.UTC)
NANOSECONDS = int(MOMENT.timestamp()) * 10**9


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata", "America/New_York"])
def test_timestamps(make, unit, zone):
    at = pa.array([MOMENT.replace(tzinfo=None)] * 12, pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    found = read(make(with_column("at", at)))
    assert found.table.column("at").unique().to_pylist() == [NANOSECONDS]
    assert found.wire["at"] == "BYTES"


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("2024-02-29T23:59:59", NANOSECONDS),
        ("2024-02-29 23:59:59Z", NANOSECONDS),
        ("2024-03-01T05:29:59+05:30", NANOSECONDS),
        ("2024-02-29T18:59:59.5-05:00", NANOSECONDS + 500_000_000),
        ("2024-02-29", NANOSECONDS - 86_399 * 10**9),
        ("1969-12-31T23:59:59.999999999", -1),
        ("9999-12-31", None),
        ("0001-01-01", None),
        ("2023-02-29", None),
        ("29.02.2024", None),
        ("", None),
    ],
)
def test_text_times(make, written, nanoseconds):
    found = read(make(with_column("at", pa.array([written] + ["2024-01-01"] * 11))))
    if nanoseconds is None:
        assert found.bad.column("_row").to_pylist() == [0]
        assert found.bad.column("at").to_pylist() == [written]
    else:
        assert found.bad is None
        assert found.table.column("at")[0].as_py() == nanoseconds


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (pa.timestamp("s"), 253_402_300_799),  # the year 9999
        (pa.timestamp("ms"), -62_135_596_800_000),  # the year 1
        (pa.timestamp("us", "UTC"), 253_402_300_799_000_000),
        (pa.timestamp("us"), 2**62),
        (pa.date32(), 2_932_896),
        (pa.date64(), 253_402_214_400_000),
        (pa.timestamp("ns"), None),
        (pa.date32(), None),
    ],
)
def test_times_that_nanoseconds_cannot_hold_are_set_apart(make, kind, bad):
    day = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400 * 10**9}
    unit = 1 if kind == pa.date32() else day["ms"] if kind == pa.date64() else day[kind.unit]
    plain = pa.int32() if kind == pa.date32() else pa.int64()
    at = pa.array([19_000 * unit, bad, *[19_001 * unit] * 10], plain).cast(kind)
    found = read(make(with_column("at", at)))
    assert found.bad.column("_row").to_pylist() == [1]
    assert found.table.column("at").to_pylist() == [19_000 * day["ns"], *[19_001 * day["ns"]] * 10]


def test_sessions_are_in_the_order_of_absolute_time(make, tmp_path):
    """Offsets differ from event to event."""
    rows = [(f"s{day}", sku, f"2024-01-0{day}T{at}", "x", 1.0) for day in range(1, 6) for sku, at in
            (("i1", "10:00+00:00"), ("i0", "10:30+02:00"), ("i2", "09:00-04:00"))]  # fmt: skip
    run(make(table(rows), split={"valid": 0.2, "test": 0.2}), tmp_path / "features")
    assert set(map(tuple, sessions(tmp_path / "features", "train", "item_id").values())) == {(3, 4, 5)}


def test_wire_types_of_an_earlier_run(make, tmp_path):
    """New files must fit what was written down; csv that looks like numbers may still be the text that it was."""
    dataset = make(as_csv(ROWS).encode(), name="a.csv", events=KEYS | {"files": "a.csv"})
    paths = [tmp_path / "a.csv"]
    fixed = agree(dataset, paths, 10).wire()
    assert fixed == {"visit": "BYTES", "sku": "BYTES", "at": "BYTES", "brand": "BYTES", "price": "FP64"}
    rows = [(1, 2, row[2], 3, 4) for row in ROWS]
    (tmp_path / "a.csv").write_text(as_csv(rows))
    assert agree(dataset, paths, 10, fixed).wire() == fixed
    pq.write_table(table(rows), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column 'visit' is int64, but the features were made from string"):
        agree(dataset, [tmp_path / "a.parquet"], 10, fixed)
