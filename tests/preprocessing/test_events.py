"""Bad events get one line that names file, column and row; good ones come in as they are."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from preprocessing.events import read_events

from .conftest import ROWS, table


def changed(row, column, value):
    rows = [list(entry) for entry in ROWS]
    rows[row][("visit", "sku", "at", "brand", "price").index(column)] = value
    return table(rows)


def complaint(dataset):
    with pytest.raises(UserError) as caught:
        read_events(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_column(make):
    message = complaint(make(table().drop_columns("brand")))
    assert "events.parquet has no column 'brand'; it has: visit, sku, at, price" in message


def test_not_parquet_and_not_csv(make):
    assert "cannot be read as parquet" in complaint(make(b"hello, world"))
    assert "cannot be read as CSV" in complaint(make(b'a,b\n"1', name="broken.csv"))


def test_truncated_parquet(make, tmp_path):
    make()
    content = (tmp_path / "events.parquet").read_bytes()
    assert "cannot be read as parquet" in complaint(make(content[: len(content) // 2]))


def test_no_file_matches(make):
    dataset = make(events={"files": "clicks/*.csv", "session": "visit", "item": "sku", "time": "at"})
    assert "no file matches 'clicks/*.csv'" in complaint(dataset)


@pytest.mark.parametrize(
    ("column", "value", "role"), [("sku", None, "item"), ("sku", " ", "item"), ("visit", "", "session")]
)
def test_null_and_empty_ids_name_the_row(make, column, value, role):
    message = complaint(make(changed(4, column, value)))
    assert f"column '{column}' has no {role} id in row 4 (1 such rows)" in message


def test_row_numbers_are_those_of_the_file_even_after_filters(make):
    events = {
        "files": "events.parquet",
        "session": "visit",
        "item": "sku",
        "time": "at",
        "where": {"price": {"max": 4}},
    }
    assert "in row 9" in complaint(make(changed(9, "sku", ""), events=events))


def test_unparsable_time_names_row_and_value(make):
    assert "column 'at' has no readable time in row 2: 'noon' is not ISO 8601" in complaint(
        make(changed(2, "at", "noon"))
    )
    assert "in row 0: None" in complaint(make(changed(0, "at", None)))


def test_integer_time_needs_its_unit(make):
    seconds = pa.array(range(1_700_000_000, 1_700_000_000 + len(ROWS)))
    events = table().set_column(2, "at", seconds)
    assert "say events.time.unit" in complaint(make(events))
    keys = {"files": "events.parquet", "session": "visit", "item": "sku", "time": {"column": "at", "unit": "s"}}
    raw = read_events(make(events, events=keys))
    assert raw.table.column("at")[0].as_py() == 1_700_000_000 * 10**9
    assert (raw.wire["at"], raw.time_is_text) == ("INT64", False)


def test_continuous_feature_must_be_a_number(make):
    features = {"item": {"continuous": ["brand"]}}
    assert "column 'brand' is string, but a continuous feature holds numbers" in complaint(make(features=features))


def test_files_that_disagree_on_a_type(make, tmp_path):
    dataset = make(events={"files": "*.parquet", "session": "visit", "item": "sku", "time": "at"})
    pq.write_table(table().set_column(1, "sku", pa.array(range(len(ROWS)))), tmp_path / "more.parquet")
    assert "more.parquet: column 'sku' is int64 but string in" in complaint(dataset)


def test_everything_filtered_away(make):
    events = {
        "files": "events.parquet",
        "session": "visit",
        "item": "sku",
        "time": "at",
        "where": {"price": {"min": 99}},
    }
    assert "no event is left of 12 after events.where" in complaint(make(events=events))


def test_filters_drop_and_count_with_nulls_failing(make):
    events = {
        "files": "events.parquet",
        "session": "visit",
        "item": "sku",
        "time": "at",
        "where": {"price": {"min": 2}, "visit": {"not_matches": "^c"}, "sku": {"one_of": ["mug", "new", "cup"]}},
    }
    raw = read_events(make(events=events))
    assert raw.table.column("visit").to_pylist() == ["b", "a", "d", "e", "e"]
    assert raw.dropped == {"where price": 6, "where visit": 1, "where sku": 0}
    assert raw.read == 12


def test_csv_and_parquet_read_the_same(make):
    lines = [",".join("" if value is None else str(value) for value in row) for row in ROWS]
    text = "\n".join(["visit,sku,at,brand,price", *lines]).encode()
    from_csv, from_parquet = read_events(make(text, name="events.csv")), read_events(make())
    assert from_csv.table.equals(from_parquet.table)
    text = dict.fromkeys(("visit", "sku", "brand"), "BYTES")
    assert from_csv.wire == from_parquet.wire == text | {"at": "INT64", "price": "FP64"}
    assert from_csv.table.column("brand").null_count == 2  # the null and the empty text


@pytest.mark.parametrize("kind", [pa.timestamp("ms"), pa.timestamp("us", "Europe/Rome"), pa.date32()])
def test_timestamps_of_any_kind_become_utc_nanoseconds(make, kind):
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    times = pa.array([moment] * len(ROWS), pa.timestamp("us", "UTC")).cast(kind)
    raw = read_events(make(table().set_column(2, "at", times)))
    assert raw.time_is_text
    assert raw.table.column("at")[0].as_py() == 1_704_067_200 * 10**9


def test_whole_numbers_with_gaps_and_infinities_become_missing(make):
    stock = pa.array([1, None] + [2] * (len(ROWS) - 2))
    rate = pa.array([float("inf"), float("nan")] + [0.5] * (len(ROWS) - 2))
    events = table().append_column("stock", stock).append_column("rate", rate)
    raw = read_events(make(events, features={"event": {"continuous": ["stock", "rate"]}}))
    assert raw.wire["stock"] == "FP64"
    assert raw.table.column("rate").to_pylist()[:3] == [None, None, 0.5]


CSV = """visit,sku,at,brand,price,note
1,00123,2024-01-01T10:00,NA,1.5,"two
lines"
1,7,2024-01-01T10:01,2024-01-01,NA,x
2,8,2024-01-01T10:02,,3,y
"""


def test_csv_text_stays_as_written(make):
    """An id keeps its zeros, NA is a country, a date in a category stays text; numbers are still numbers."""
    table = read_events(make(CSV.encode(), name="events.csv")).table
    assert table.column("visit").to_pylist() == [1, 1, 2]
    assert table.column("sku").to_pylist() == ["00123", "7", "8"]
    assert table.column("brand").to_pylist() == ["NA", "2024-01-01", None]
    assert table.column("price").to_pylist() == [1.5, None, 3.0]


def test_csv_files_that_look_different_are_one_column(make, tmp_path):
    (tmp_path / "b.csv").write_text("visit,sku,at,brand,price\n9,42,2024-01-02,x,1\n")
    (tmp_path / "a.csv").write_text(CSV)
    keys = {"files": ["a.csv", "b.csv"], "session": "visit", "item": "sku", "time": "at"}
    raw = read_events(make(CSV.encode(), name="a.csv", events=keys))
    assert raw.table.column("sku").to_pylist() == ["00123", "7", "8", "42"]
    assert (raw.wire["sku"], raw.wire["visit"]) == ("BYTES", "INT64")


def test_csv_number_that_is_none(make):
    assert "events.csv: column 'price' should hold numbers" in complaint(
        make(CSV.replace("1.5", "cheap").encode(), name="events.csv")
    )


def test_csv_epoch_times_and_filters_on_text(make):
    text = "visit,sku,at,kind,brand,price\n1,a,1700000000,view,x,1\n1,b,1700000001,cart,x,2\n1,c,1700000002,view,x,3\n"
    keys = {
        "files": "events.csv",
        "session": "visit",
        "item": "sku",
        "time": {"column": "at", "unit": "s"},
        "where": {"kind": {"one_of": ["view"]}, "price": {"min": 2}},
    }
    raw = read_events(make(text.encode(), name="events.csv", events=keys))
    assert raw.table.column("sku").to_pylist() == ["c"]
    assert raw.table.column("at").to_pylist() == [1_700_000_002 * 10**9]
