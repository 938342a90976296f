"""Events come in many files of many kinds, and mean the same however they were written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from preprocessing import files
from preprocessing.files import expand, inspect, load

from .conftest import NAMES, ROWS, table
from .helpers import HEADER, KEYS, as_csv, assert_same, content, read, run, sessions, with_column

# How files are found and cut.


def test_patterns_match_each_file_once_in_order(tmp_path):
    for name in ("b.parquet", "a.parquet", "deep/c.parquet", "deep/er/d.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = expand(tmp_path, ["b.parquet", "*.parquet", "**/*.parquet"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "b.parquet",
        "a.parquet",
        "deep/c.parquet",
        "deep/er/d.parquet",
    ]


@pytest.mark.parametrize(("rows", "group", "chunk"), [(10, 3, 4), (10, 3, 1), (10, 3, 100), (7, 7, 2), (0, 5, 5)])
def test_chunks_are_whole_row_groups_and_lose_nothing(tmp_path, rows, group, chunk):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": pa.array(range(rows), pa.int64())}), path, row_group_size=group)
    facts = inspect(path, ["n"], [], chunk)
    assert facts.rows == rows
    seen = []
    for part in facts.chunks:
        assert part.first_row == len(seen)
        for block in files.blocks(part, ["n"], 2, print):
            assert len(block) <= 2
            seen += block.column("n").to_pylist()
        assert len(seen) == part.first_row + part.rows
        # A chunk ends with the row group that fills it.
        assert part.rows < chunk + group
    assert seen == list(range(rows))


# Gaps, with and without the statistics that tell of them.


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("kind", [pa.int32(), pa.bool_()])
def test_gaps_are_found_with_and_without_statistics(make, tmp_path, statistics, kind):
    values = pa.array([1, 0] * 6).cast(kind)
    late = pa.array([1, 0] * 5 + [1, None]).cast(kind)
    dataset = make(features={"event": {"categorical": ["n"]}}, events=KEYS | {"files": "*.parquet"})
    for column, wire in ((values, "BOOL" if kind == pa.bool_() else "INT64"), (late, "FP64")):
        events = table().append_column("n", column)
        pq.write_table(events, tmp_path / "events.parquet", row_group_size=5, write_statistics=statistics)
        found = read(dataset)
        assert found.wire["n"] == wire
        assert found.table.column("n").to_pylist() == column.to_pylist()


def test_a_gap_in_one_file_is_a_gap_in_all(make, tmp_path):
    dataset = make(
        table().append_column("n", pa.array([7] * 12)),
        features={"event": {"categorical": ["n"]}},
        events=KEYS | {"files": "*.parquet"},
    )
    assert read(dataset).wire["n"] == "INT64"
    pq.write_table(table().append_column("n", pa.array([None] * 12, pa.int64())), tmp_path / "more.parquet")
    found = read(dataset)
    assert found.wire["n"] == "FP64"
    assert found.table.column("n").to_pylist() == [7.0] * 12 + [None] * 12


@pytest.mark.parametrize("empty", [pa.null(), pa.int64(), pa.float64()])
def test_a_file_without_a_single_value_goes_with_the_others(make, tmp_path, empty):
    """As pandas writes a column of None; and the number keeps its kind, but for the gaps."""
    events = table().append_column("n", pa.array([7] * 12))
    dataset = make(
        events, name="b.parquet", features={"event": {"categorical": ["n"]}}, events=KEYS | {"files": "*.parquet"}
    )
    pq.write_table(table().append_column("n", pa.array([None] * 12, empty)), tmp_path / "a.parquet")
    assert read(dataset).table.column("n").to_pylist() == [None] * 12 + [7.0] * 12


def test_no_value_in_any_file(make):
    nothing = with_column("brand", pa.nulls(12)).set_column(4, "price", pa.nulls(12))
    found = read(make(nothing))
    assert (found.wire["brand"], found.wire["price"]) == ("BYTES", "FP64")
    assert found.table.column("price").null_count == found.table.column("brand").null_count == 12


def test_csv_column_without_a_value_in_one_file(make, tmp_path):
    """Whether the empty column is in a file of its own changes nothing."""
    rows = [(*row[:3], "7", row[4]) for row in ROWS[:6]] + [(*row[:3], None, row[4]) for row in ROWS[6:]]
    dataset = make(as_csv(rows).encode(), name="all.csv", events=KEYS | {"files": "all.csv"})
    one = read(dataset)
    for number, part in enumerate((rows[:6], rows[6:])):
        (tmp_path / f"part-{number}.csv").write_text(as_csv(part))
    two = read(make(b"", name="unread.csv", events=KEYS | {"files": "part-*.csv"}))
    assert one.wire == two.wire
    assert one.wire["brand"] == "FP64"
    assert one.table.equals(two.table)


# Files that are empty, small or many.


def test_empty_files_among_others(make, tmp_path):
    dataset = make(name="b.parquet", events=KEYS | {"files": "*.parquet"})
    expected = read(dataset)
    pq.write_table(table().slice(0, 0), tmp_path / "a.parquet")
    # What pandas writes of an empty data frame: columns without a type.
    pq.write_table(pa.table({name: pa.nulls(0) for name in NAMES}), tmp_path / "c.parquet")
    with pq.ParquetWriter(tmp_path / "d.parquet", table().schema):
        pass
    assert pq.read_metadata(tmp_path / "d.parquet").num_row_groups == 0
    found = read(dataset)
    assert found.table.equals(expected.table)
    assert found.wire == expected.wire
    report = run(dataset, tmp_path / "features")
    assert report["events_read"] == 12


def test_empty_files_only(make, tmp_path):
    dataset = make(table().slice(0, 0), events=KEYS | {"files": "*.parquet"})
    with pytest.raises(UserError, match="no event is left of 0"):
        run(dataset, tmp_path / "features")
    with pq.ParquetWriter(tmp_path / "events.parquet", table().schema):
        pass
    with pytest.raises(UserError, match="no event is left of 0"):
        run(dataset, tmp_path / "features")


def test_csv_header_without_rows(make, tmp_path):
    dataset = make(as_csv(ROWS).encode(), name="a.csv", events=KEYS | {"files": "*.csv"})
    expected = read(dataset)
    (tmp_path / "b.csv").write_text(HEADER)
    assert read(dataset).table.equals(expected.table)
    assert run(dataset, tmp_path / "features")["events_read"] == 12


def test_many_small_files_make_the_same_sessions(make, tmp_path):
    """Every event in a file of its own: sessions cross files, chunks and partitions."""
    run(make(), tmp_path / "one")
    for number, row in enumerate(ROWS):
        pq.write_table(table([row]), tmp_path / f"event-{number:02d}.parquet")
    dataset = make(events=KEYS | {"files": "event-*.parquet"})
    report = run(dataset, tmp_path / "many", partition_events=2, cluster="threads[2]")
    assert report["events_read"] == 12
    assert_same(content(tmp_path / "one"), content(tmp_path / "many"))


def test_a_file_with_many_row_groups(make, tmp_path):
    run(make(), tmp_path / "one")
    pq.write_table(table(), tmp_path / "events.parquet", row_group_size=1)
    run(make(events=KEYS | {"files": "groups.parquet"}, name="groups.parquet"), tmp_path / "same")
    pq.write_table(table(), tmp_path / "groups.parquet", row_group_size=1)
    dataset = make(name="unread.parquet", events=KEYS | {"files": "groups.parquet"})
    run(dataset, tmp_path / "groups", partition_events=3)
    assert_same(content(tmp_path / "one"), content(tmp_path / "groups"))


@pytest.mark.parametrize("size", [10**6, 3])
def test_equal_times_keep_the_order_of_files_and_rows(make, tmp_path, size):
    rows = [(f"s{n % 4}", f"i{n // 4}", f"2024-01-0{1 + n % 4}", "x", float(n)) for n in range(80)]
    for number in range(10):
        pq.write_table(table(rows[number * 8 : number * 8 + 8]), tmp_path / f"{number}.parquet", row_group_size=3)
    dataset = make(events=KEYS | {"files": ["?.parquet"]}, split={"valid": 0.25, "test": 0.25})
    run(dataset, tmp_path / "features", partition_events=size, cluster="threads[2]")
    for window, names in (("train", ["s0", "s1"]), ("valid", ["s2"]), ("test", ["s3"])):
        for name, prices in sessions(tmp_path / "features", window, "price").items():
            assert name in names
            assert len(prices) == 20
            assert prices == sorted(prices)


def test_the_order_of_the_patterns_is_the_order_of_the_files(make, tmp_path):
    for name, item in (("a", "tea"), ("b", "mug")):
        rows = [(f"s{day}", item, f"2024-01-0{day}", "x", 1.0) for day in (1, 2, 3)]
        pq.write_table(table(rows), tmp_path / f"{name}.parquet")
    for first, second in (("a", "b"), ("b", "a")):
        dataset = make(
            events=KEYS | {"files": [f"{first}.parquet", f"{second}.parquet"]}, split={"valid": 0.3, "test": 0.3}
        )
        run(dataset, tmp_path / "features")
        # Of equal counts the smaller text comes first: mug is 3, tea is 4.
        assert sessions(tmp_path / "features", "train", "item_id") == {"s1": [4, 3] if first == "a" else [3, 4]}


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.int8(), pa.decimal128(5, 1)])
def test_events_order_breaks_ties(make, tmp_path, kind):
    rows = [(f"s{day}", f"i{n}", f"2024-01-0{day}", "x", float(n)) for day in range(1, 6) for n in (2, 0, 1)]
    place = pa.array([row[4] for row in rows]).cast(kind)
    dataset = make(
        table(rows).append_column("place", place),
        events=KEYS | {"files": "events.parquet", "order": "place"},
        split={"valid": 0.2, "test": 0.2},
    )
    run(dataset, tmp_path / "features", partition_events=4)
    # i0, i1 and i2 are equally frequent, so their codes are 3, 4, 5.
    assert set(map(tuple, sessions(tmp_path / "features", "train", "item_id").values())) == {(3, 4, 5)}


def test_events_order_must_be_numbers(make, tmp_path):
    events = KEYS | {"files": "events.parquet", "order": "place"}
    with pytest.raises(UserError, match=r"column 'place' \(events.order\) must hold numbers without gaps, not string"):
        read(make(table().append_column("place", pa.array(["x"] * 12)), events=events))
    places = pa.array([1, None, *range(10)])
    bad = read(make(table().append_column("place", places), events=events)).bad
    assert bad.column("_row").to_pylist() == [1]
    assert bad.column("_reason").to_pylist() == ["column 'place' (events.order) holds no number"]


# Csv, compressed csv and tsv.


def test_csv_gz_and_tsv_read_like_csv(make, tmp_path):
    expected = read(make(as_csv(ROWS).encode(), name="a.csv", events=KEYS | {"files": "a.csv"}))
    with pa.output_stream(str(tmp_path / "b.csv.gz")) as stream:
        stream.write(as_csv(ROWS).encode())
    (tmp_path / "c.tsv").write_text(as_csv(ROWS, "\t"))
    for name in ("b.csv.gz", "c.tsv"):
        found = read(make(as_csv(ROWS).encode(), name="a.csv", events=KEYS | {"files": name}))
        assert found.table.equals(expected.table)
        assert found.wire == expected.wire
    together = make(as_csv(ROWS).encode(), name="a.csv", events=KEYS | {"files": ["a.csv", "b.csv.gz", "c.tsv"]})
    assert read(together).table.num_rows == 36
    assert run(together, tmp_path / "features", cluster="threads[2]")["events_read"] == 36


def test_csv_and_parquet_together(make, tmp_path):
    rows = [(*row[:4], row[4] or 0.5) for row in ROWS]
    pq.write_table(table(rows[:6]), tmp_path / "a.parquet")
    dataset = make(as_csv(rows[6:]).encode(), name="b.csv", events=KEYS | {"files": ["a.parquet", "b.csv"]})
    assert read(dataset).table.column("sku").to_pylist() == [row[1] for row in rows]


def test_csv_in_blocks_is_csv_in_one_piece(make, tmp_path, monkeypatch):
    """What is in a later block changes nothing: the types of columns, and what is not asked for."""
    rows = [(n // 4, "7" if n < 300 else "00123", f"2024-01-{1 + n // 40:02d}", n % 5, n / 4) for n in range(400)]
    text = as_csv(rows).splitlines()
    noted = "\n".join(
        [text[0] + ",note", *(f"{line},{n if n < 300 else 'word'}" for n, line in enumerate(text[1:])), ""]
    )
    dataset = make(noted.encode(), name="events.csv", events=KEYS | {"files": "events.csv"})
    whole = read(dataset)
    monkeypatch.setattr(files, "_CSV_BLOCK", 512)
    parts = read(dataset)
    assert parts.table.equals(whole.table)
    assert parts.wire == whole.wire
    assert whole.wire == {"visit": "INT64", "sku": "BYTES", "at": "BYTES", "brand": "INT64", "price": "FP64"}


def test_csv_with_a_byte_order_mark_quotes_and_empty_lines(make):
    text = '\ufeffvisit,sku,"at",brand,price\r\n"1","a,b",2024-01-01,"say ""hi""",1\r\n\r\n'
    text += '1,"two\nlines",2024-01-02,ä,2\r\n'
    found = read(make(text.encode(), name="events.csv", events=KEYS | {"files": "events.csv"})).table
    assert found.column("visit").to_pylist() == [1, 1]
    assert found.column("sku").to_pylist() == ["a,b", "two\nlines"]
    assert found.column("brand").to_pylist() == ['say "hi"', "ä"]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_csv_ids_with_zeros_in_another_file(make, tmp_path, order):
    """Of 00123 and 7 in one column, neither is a number."""
    (tmp_path / "a.csv").write_text(f"{HEADER}1,00123,2024-01-01,x,1\n")
    (tmp_path / "b.csv").write_text(f"{HEADER}1,7,2024-01-02,x,1.5\n")
    dataset = make(b"", name="unread.csv", events=KEYS | {"files": [f"{name}.csv" for name in order]})
    found = read(dataset)
    assert sorted(found.table.column("sku").to_pylist()) == ["00123", "7"]
    assert found.wire["sku"] == "BYTES"
    assert found.table.column("price").to_pylist() == ([1.0, 1.5] if order[0] == "a" else [1.5, 1.0])


def test_large_whole_numbers_in_csv_stay_exact(make):
    """Beyond 2 ** 53 floating point would merge neighbours."""
    big = [2**53 + 1, 2**53 + 2, -(2**63), 2**63 - 1]
    rows = [(big[n], big[n], "2024-01-01", big[n], 1) for n in range(4)]
    found = read(make(as_csv(rows).encode(), name="events.csv", events=KEYS | {"files": "events.csv"}))
    for name in ("visit", "sku", "brand"):
        assert found.table.column(name).to_pylist() == big
        assert found.wire[name] == "INT64"


# Tables beside the events.


def test_load_reads_a_whole_table(tmp_path):
    (tmp_path / "items.csv").write_text("sku,weight,kind,none\n00123,1,a,\n7,2.5,,\n")
    found = load(tmp_path / "items.csv", ["weight", "sku", "none", "kind"], ["weight"])
    assert found.to_pydict() == {
        "weight": [1.0, 2.5],
        "sku": ["00123", "7"],
        "none": [None, None],
        "kind": ["a", None],
    }
    pq.write_table(found, tmp_path / "items.parquet", row_group_size=1)
    assert load(tmp_path / "items.parquet", found.column_names).equals(found)
    (tmp_path / "empty.csv").write_text("sku,weight\n")
    assert load(tmp_path / "empty.csv", ["sku", "weight"], ["weight"]).schema.types == [pa.string(), pa.float64()]


def test_load_refuses_what_is_no_number_or_no_row(tmp_path):
    (tmp_path / "items.csv").write_text("sku,weight\na,1\nb,heavy\n")
    with pytest.raises(UserError, match=r"items.csv: column 'weight' should hold numbers, but row 1 does not"):
        load(tmp_path / "items.csv", ["sku", "weight"], ["weight"])
    (tmp_path / "items.csv").write_text("sku,weight\na,1\nb\n")
    with pytest.raises(UserError, match=r"items.csv, line 3: 'b' has another number of fields than the header"):
        load(tmp_path / "items.csv", ["sku", "weight"], ["weight"])
