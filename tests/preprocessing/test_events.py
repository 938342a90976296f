"""Bad files get one line that names file and column, bad rows a reason; good events come in as they are."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from preprocessing.preprocess import preprocess

from .conftest import ROWS, table
from .helpers import read

KEYS = {"files": "events.parquet", "session": "visit", "item": "sku", "time": "at"}


def changed(row, column, value):
    rows = [list(entry) for entry in ROWS]
    rows[row][("visit", "sku", "at", "brand", "price").index(column)] = value
    return table(rows)


def complaint(dataset):
    """What is wrong with the files, found before any event is read."""
    with pytest.raises(UserError) as caught:
        read(dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def failure(dataset, out):
    """What the whole stage says when it cannot go on."""
    with pytest.raises(UserError) as caught:
        preprocess(dataset, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def only_bad(dataset):
    """The one row that is set apart: row, reason."""
    bad = read(dataset).bad.to_pylist()
    assert len(bad) == 1
    assert bad[0]["_file"].endswith("events.parquet") or bad[0]["_file"].endswith("events.csv")
    return bad[0]["_row"], bad[0]["_reason"]


def test_missing_column(make, tmp_path):
    dataset = make(table().drop_columns("brand"))
    expected = "events.parquet has no column 'brand'; it has: visit, sku, at, price"
    assert expected in complaint(dataset)
    assert expected in failure(dataset, tmp_path / "features")


def test_missing_column_of_csv(make):
    text = b"visit,sku,at,price,note\na,b,2024-01-01,1,x\n"
    assert "events.csv has no column 'brand'; it has: visit, sku, at, price, note" in complaint(
        make(text, name="events.csv")
    )


def test_a_column_that_is_there_twice(make):
    twice = table().rename_columns(["visit", "sku", "at", "brand", "price"]).append_column("sku", pa.array(["x"] * 12))
    assert "events.parquet" in complaint(make(twice))
    assert "sku" in complaint(make(twice))
    text = b"visit,sku,at,brand,price,sku\na,b,2024-01-01,x,1,c\n"
    assert "sku" in complaint(make(text, name="events.csv"))


def test_not_parquet_and_not_csv(make, tmp_path):
    assert "cannot be read as parquet" in complaint(make(b"hello, world"))
    assert "cannot be read as CSV" in complaint(make(b"visit,sku,at,brand,price", name="header.csv"))
    assert "cannot be read as CSV" in complaint(make(b"", name="empty.csv"))
    # A last line that breaks off is a bad row of a file that can be read.
    assert "line 2 has another number of fields" in failure(
        make(b'visit,sku,at,brand,price\n"1', name="b.csv"), tmp_path / "out"
    )
    assert "cannot be read as CSV" in failure(make(b"\x1f\x8b broken", name="broken.csv.gz"), tmp_path / "features")


def test_text_that_is_not_utf8(make):
    text = "visit,sku,at,brand,price\na,caf\xe9,2024-01-01,x,1\n".encode("latin-1")
    assert "events.csv cannot be read as CSV" in complaint(make(text, name="events.csv"))


def test_truncated_parquet(make, tmp_path):
    make()
    content = (tmp_path / "events.parquet").read_bytes()
    assert "cannot be read as parquet" in complaint(make(content[: len(content) // 2]))


def test_parquet_damaged_in_the_middle(make, tmp_path):
    """The footer is whole, so the damage shows only when the events are read."""
    pq.write_table(table(ROWS * 50), tmp_path / "events.parquet", compression="zstd", use_dictionary=False)
    content = bytearray((tmp_path / "events.parquet").read_bytes())
    content[40:400] = b"\x00" * 360
    message = failure(make(bytes(content)), tmp_path / "features")
    assert "events.parquet" in message
    assert "write the file anew" in message


def test_no_file_matches(make):
    dataset = make(events=KEYS | {"files": "clicks/*.csv"})
    assert "no file matches 'clicks/*.csv'" in complaint(dataset)


def test_only_folders_match(make, tmp_path):
    (tmp_path / "clicks").mkdir()
    assert "matches only folders" in complaint(make(events=KEYS | {"files": "click*"}))


@pytest.mark.parametrize(
    ("column", "value", "role"), [("sku", None, "item"), ("sku", " ", "item"), ("visit", "", "session")]
)
def test_null_and_empty_ids_name_the_row(make, column, value, role):
    assert only_bad(make(changed(4, column, value))) == (4, f"column '{column}' has no {role} id")


def test_a_whole_number_id_is_missing(make):
    ids = pa.array([1, 2, None] + [3] * (len(ROWS) - 3))
    row, reason = only_bad(make(table().set_column(1, "sku", ids)))
    assert row == 2
    assert reason.startswith("column 'sku' has no item id")


def test_the_stage_names_file_row_reason_and_share(make, tmp_path):
    dataset = make(changed(4, "sku", None), events=KEYS | {"max_bad_share": 0})
    message = failure(dataset, tmp_path / "features")
    assert f"{tmp_path}/events.parquet: column 'sku' has no item id in row 4 (None); 1 of 12 rows (8.33%)" in message
    assert "events.max_bad_share 0.00%" in message


def test_row_numbers_are_those_of_the_file_even_after_filters(make):
    events = KEYS | {"where": {"price": {"max": 4}}}
    assert only_bad(make(changed(9, "sku", ""), events=events))[0] == 9


@pytest.mark.parametrize("block", [1, 5, 100])
def test_row_numbers_do_not_depend_on_blocks_and_row_groups(make, tmp_path, block):
    dataset = make()
    pq.write_table(changed(9, "sku", ""), tmp_path / "events.parquet", row_group_size=4)
    assert read(dataset, block_events=block, chunk_events=3).bad.column("_row").to_pylist() == [9]


def test_unparsable_time_names_row_and_value(make, tmp_path):
    row, reason = only_bad(make(changed(2, "at", "noon")))
    assert (row, reason) == (2, "column 'at' has no readable time (ISO 8601; set events.time.format)")
    assert only_bad(make(changed(0, "at", None)))[0] == 0
    message = failure(make(changed(2, "at", "noon")), tmp_path / "features")
    assert "in row 2 ('noon')" in message


def test_time_format(make):
    written = [row[2].replace("T", " at ") for row in ROWS]
    events = KEYS | {"time": {"column": "at", "format": "%Y-%m-%d at %H:%M"}}
    found = read(make(table().set_column(2, "at", pa.array(written)), events=events))
    assert found.table.equals(read(make()).table)
    assert found.bad is None
    row, reason = only_bad(
        make(table().set_column(2, "at", pa.array([*written[:-1], "2024-01-04T10:01"])), events=events)
    )
    assert (row, reason) == (11, "column 'at' has no readable time (%Y-%m-%d at %H:%M; set events.time.format)")


def test_integer_time_needs_its_unit(make):
    seconds = pa.array(range(1_700_000_000, 1_700_000_000 + len(ROWS)))
    events = table().set_column(2, "at", seconds)
    assert "say events.time.unit" in complaint(make(events))
    found = read(make(events, events=KEYS | {"time": {"column": "at", "unit": "s"}}))
    assert found.table.column("at")[0].as_py() == 1_700_000_000 * 10**9
    assert found.wire["at"] == "INT64"


def test_fractions_are_no_times(make):
    events = table().set_column(2, "at", pa.array([1.5] * len(ROWS)))
    assert "column 'at' holds fractions" in complaint(make(events))


@pytest.mark.parametrize(("unit", "scale"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
def test_whole_number_times_at_the_ends_of_their_range(make, unit, scale):
    limit = (2**63 - 1) // scale
    values = [limit, -limit, None, -(2**63), *range(8)]
    found = read(
        make(table().set_column(2, "at", pa.array(values)), events=KEYS | {"time": {"column": "at", "unit": unit}})
    )
    assert found.table.column("at").to_pylist()[:2] == [limit * scale, -limit * scale]
    expected = [2, 3] if scale > 1 else [2]  # -2**63 fits nanoseconds
    assert found.bad.column("_row").to_pylist() == expected


def test_continuous_feature_must_be_a_number(make, tmp_path):
    dataset = make(features={"item": {"continuous": ["brand"]}})
    assert "column 'brand' is string, but a continuous feature holds numbers" in complaint(dataset)
    assert "column 'brand' is string" in failure(dataset, tmp_path / "features")


@pytest.mark.parametrize("kind", [pa.float64(), pa.date32(), pa.bool_()])
def test_ids_are_whole_numbers_or_text(make, kind):
    values = {pa.float64(): [0.5], pa.date32(): [0], pa.bool_(): [True]}[kind] * len(ROWS)
    assert f"column 'sku' is {kind}: item ids are whole numbers or text" in complaint(
        make(table().set_column(1, "sku", pa.array(values, kind)))
    )


@pytest.mark.parametrize("column", ["visit", "sku", "at"])
def test_ids_and_times_are_not_all_missing(make, column):
    nothing = table().set_column(("visit", "sku", "at").index(column), column, pa.nulls(len(ROWS)))
    assert f"events.parquet: column '{column}' holds nothing but nulls" in complaint(make(nothing))


def test_features_are_no_lists(make):
    brands = pa.array([["x"]] * len(ROWS))
    assert "features are numbers, booleans or text" in complaint(make(table().set_column(3, "brand", brands)))


def test_files_that_disagree_on_a_type(make, tmp_path):
    dataset = make(events=KEYS | {"files": "*.parquet"})
    pq.write_table(table().set_column(1, "sku", pa.array(range(len(ROWS)))), tmp_path / "more.parquet")
    expected = "more.parquet: column 'sku' is int64 but string in"
    assert expected in complaint(dataset)
    assert expected in failure(dataset, tmp_path / "features")


def test_everything_filtered_away(make, tmp_path):
    dataset = make(events=KEYS | {"where": {"price": {"min": 99}}})
    assert "no event is left of 12 after events.where" in failure(dataset, tmp_path / "features")


def test_filters_drop_and_count_with_nulls_failing(make):
    where = {"price": {"min": 2}, "visit": {"not_matches": "^c"}, "sku": {"one_of": ["mug", "new", "cup"]}}
    found = read(make(events=KEYS | {"where": where}))
    assert found.table.column("visit").to_pylist() == ["b", "a", "d", "e", "e"]
    assert found.dropped == {"where price": 6, "where visit": 1, "where sku": 0}
    assert found.read == 12


def test_filters_on_columns_that_are_no_feature(make):
    events = (
        table().append_column("kind", pa.array(["view"] * 11 + ["cart"])).append_column("ok", pa.array([True] * 12))
    )
    where = {"kind": {"one_of": ["cart"]}, "ok": {"one_of": [True]}}
    found = read(make(events, events=KEYS | {"where": where}))
    assert found.table.num_rows == 1
    assert "kind" not in found.table.column_names


def test_filters_on_dictionaries(make):
    brands = pa.array([row[3] for row in ROWS]).dictionary_encode()
    where = {"brand": {"one_of": ["x"], "matches": "x"}}
    found = read(make(table().set_column(3, "brand", brands), events=KEYS | {"where": where}))
    assert found.table.column("brand").to_pylist() == ["x"] * 5


@pytest.mark.parametrize("rule", [{"one_of": ["x"]}, {"one_of": [1, "x"]}])
def test_a_filter_that_does_not_fit_its_column(make, rule):
    assert "events.where.price does not fit" in complaint(make(events=KEYS | {"where": {"price": rule}}))


def test_csv_and_parquet_read_the_same(make):
    lines = [",".join("" if value is None else str(value) for value in row) for row in ROWS]
    text = "\n".join(["visit,sku,at,brand,price", *lines]).encode()
    from_csv, from_parquet = read(make(text, name="events.csv")), read(make())
    assert from_csv.table.equals(from_parquet.table)
    text = dict.fromkeys(("visit", "sku", "at", "brand"), "BYTES")
    assert from_csv.wire == from_parquet.wire == text | {"price": "FP64"}
    assert from_csv.table.column("brand").null_count == 2  # the null and the empty text


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us", "Europe/Rome"), pa.date32()]
)
def test_timestamps_of_any_kind_become_utc_nanoseconds(make, kind):
    moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    times = pa.array([moment] * len(ROWS), pa.timestamp("us", "UTC")).cast(kind)
    found = read(make(table().set_column(2, "at", times)))
    assert found.wire["at"] == "BYTES"
    assert found.table.column("at")[0].as_py() == 1_704_067_200 * 10**9


def test_whole_numbers_with_gaps_and_infinities_become_missing(make):
    stock = pa.array([1, None] + [2] * (len(ROWS) - 2))
    rate = pa.array([float("inf"), float("nan")] + [0.5] * (len(ROWS) - 2))
    events = table().append_column("stock", stock).append_column("rate", rate)
    found = read(make(events, features={"event": {"continuous": ["stock", "rate"]}}))
    assert found.wire["stock"] == "FP64"
    assert found.table.column("stock").to_pylist()[:3] == [1.0, None, 2.0]
    assert found.table.column("rate").to_pylist()[:3] == [None, None, 0.5]


@pytest.mark.parametrize("values", [[True, False], [True, None]])
def test_booleans(make, values):
    found = read(make(table().append_column("new", pa.array(values * 6)), features={"event": {"categorical": ["new"]}}))
    assert found.wire["new"] == ("BOOL" if None not in values else "FP64")
    assert found.table.column("new").to_pylist()[:2] == values  # True is 1.0


def test_whole_numbers_beyond_64_bits(make):
    """As a feature missing, as an id unusable."""
    stock = pa.array([2**64 - 1] + [7] * (len(ROWS) - 1), pa.uint64())
    dataset = make(table().append_column("stock", stock), features={"event": {"categorical": ["stock"]}})
    assert only_bad(dataset)[0] == 0
    assert only_bad(make(table().set_column(1, "sku", stock)))[0] == 0


CSV = """visit,sku,at,brand,price,note
1,00123,2024-01-01T10:00,NA,1.5,"two
lines"
1,7,2024-01-01T10:01,2024-01-01,NA,x
2,8,2024-01-01T10:02,,3,y
"""


def test_csv_text_stays_as_written(make):
    """An id keeps its zeros, NA is a country, a date in a category stays text; numbers are still numbers."""
    events = read(make(CSV.encode(), name="events.csv")).table
    assert events.column("visit").to_pylist() == [1, 1, 2]
    assert events.column("sku").to_pylist() == ["00123", "7", "8"]
    assert events.column("brand").to_pylist() == ["NA", "2024-01-01", None]
    assert events.column("price").to_pylist() == [1.5, None, 3.0]


def test_csv_files_that_look_different_are_one_column(make, tmp_path):
    (tmp_path / "b.csv").write_text("visit,sku,at,brand,price\n9,42,2024-01-02,x,1\n")
    found = read(make(CSV.encode(), name="a.csv", events=KEYS | {"files": ["a.csv", "b.csv"]}))
    assert found.table.column("sku").to_pylist() == ["00123", "7", "8", "42"]
    assert (found.wire["sku"], found.wire["visit"]) == ("BYTES", "INT64")


def test_csv_number_that_is_none(make, tmp_path):
    dataset = make(CSV.replace("1.5", "cheap").encode(), name="events.csv")
    assert only_bad(dataset) == (0, "column 'price' holds what is no number")
    assert read(dataset).table.column("price").to_pylist() == [None, 3.0]
    assert "events.csv: column 'price' holds what is no number in row 0 ('cheap')" in failure(dataset, tmp_path / "out")


@pytest.mark.parametrize("other", ["3", "cheap"])
def test_a_bad_number_changes_no_other(make, other):
    """How a number may be written does not depend on its neighbours."""
    written = ["+5", " 5 ", "5.", ".5", "1e2", "inf", "-Infinity", "NaN", "NA", "null", "0x10", "1,5", other]
    rows = "".join(f'1,a,2024-01-01,x,"{number}"\n' for number in written)
    found = read(make(f"visit,sku,at,brand,price\n{rows}".encode(), name="events.csv"))
    good = [5.0, 5.0, 5.0, 0.5, 100.0, None, None, None, None, None]
    assert found.table.column("price").to_pylist() == good + ([3.0] if other == "3" else [])
    assert found.bad.column("price").to_pylist() == ["0x10", "1,5"] + (["cheap"] if other == "cheap" else [])


@pytest.mark.parametrize("last", ["1700000002", "soon", ""])
def test_csv_epoch_times_with_a_bad_one(make, last):
    text = f"visit,sku,at,brand,price\n1,a,1700000000,x,1\n1,b,1700000001,x,2\n1,c,{last},x,3\n"
    found = read(
        make(
            text.encode(),
            name="events.csv",
            events=KEYS | {"files": "events.csv", "time": {"column": "at", "unit": "s"}},
        )
    )
    assert found.table.column("at").to_pylist()[:2] == [1_700_000_000 * 10**9, 1_700_000_001 * 10**9]
    assert found.wire["at"] == "INT64"
    assert (found.bad is None) == (last == "1700000002")


@pytest.mark.parametrize("written", ["2023-11-14T22:13:20", "1700000000"])
def test_text_times_of_parquet_with_a_unit(make, written):
    """The unit speaks of numbers; text may be either."""
    events = KEYS | {"time": {"column": "at", "unit": "s"}}
    found = read(make(table().set_column(2, "at", pa.array([written] * len(ROWS))), events=events))
    assert found.table.column("at")[0].as_py() == 1_700_000_000 * 10**9
    assert found.bad is None


def test_csv_epoch_times_and_filters_on_text(make):
    text = "visit,sku,at,kind,brand,price\n1,a,1700000000,view,x,1\n1,b,1700000001,cart,x,2\n1,c,1700000002,view,x,3\n"
    where = {"kind": {"one_of": ["view"]}, "price": {"min": 2}}
    events = KEYS | {"files": "events.csv", "time": {"column": "at", "unit": "s"}, "where": where}
    found = read(make(text.encode(), name="events.csv", events=events))
    assert found.table.column("sku").to_pylist() == ["c"]
    assert found.table.column("at").to_pylist() == [1_700_000_002 * 10**9]


def test_csv_filters_on_numbers_and_truths(make):
    text = b"visit,sku,at,brand,price,n,sold\n"
    text += b"1,a,2024-01-01,x,1,1,true\n1,b,2024-01-01,x,2,2.0,false\n1,c,2024-01-01,x,,3,true\n"
    events = KEYS | {"files": "events.csv", "where": {"n": {"one_of": [1, 2]}}}
    assert read(make(text, name="events.csv", events=events)).table.column("sku").to_pylist() == ["a", "b"]
    events = KEYS | {"files": "events.csv", "where": {"sold": {"one_of": [True]}}}
    assert read(make(text, name="events.csv", events=events)).table.column("sku").to_pylist() == ["a", "c"]
