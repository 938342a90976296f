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
