"""Rows that cannot be used are set apart with the reason, and every event is accounted for."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.artefacts import identity, read_manifest
from common.errors import UserError
from preprocessing.append import append
from preprocessing.preprocess import preprocess
from preprocessing.windows import WINDOWS

from .conftest import NAMES, ROWS, table
from .helpers import KEYS, as_csv, run, sessions

LENIENT = KEYS | {"files": "events.parquet", "max_bad_share": 1}


def quarantine(folder):
    return pq.read_table(folder / "quarantine.parquet").to_pylist()


def test_bad_rows_with_file_row_reason_and_raw_values(make, tmp_path):
    rows = [
        *ROWS,
        (None, "tea", "2024-01-01", "x", 1.0),
        ("a", "  ", "2024-01-01", "x", 2.0),
        ("a", "tea", "half past nine", None, 3.0),
        ("", None, None, "x", None),
    ]
    out = tmp_path / "features"
    report = run(make(table(rows), events=LENIENT), out)
    time = "column 'at' has no readable time (ISO 8601; set events.time.format)"
    assert [(row["_row"], row["_reason"]) for row in quarantine(out)] == [
        (12, "column 'visit' has no session id"),
        (13, "column 'sku' has no item id"),
        (14, time),
        (15, "column 'visit' has no session id"),  # of several reasons the first
    ]
    assert {row["_file"] for row in quarantine(out)} == {str(tmp_path / "events.parquet")}
    assert {name: quarantine(out)[2][name] for name in NAMES} == {
        "visit": "a",
        "sku": "tea",
        "at": "half past nine",
        "brand": None,
        "price": "3",
    }
    reasons = {"column 'visit' has no session id": 2, "column 'sku' has no item id": 1, time: 1}
    assert report["quarantined"] == {"rows": 4, "reasons": reasons, "share": 4 / 16}
    assert {k: v for k, v in report["events_dropped"].items() if v} == {
        "in sessions shorter than 2 events": 1,
        **{f"unusable: {reason}": count for reason, count in reasons.items()},
    }
    assert report["events_read"] == 16
    # What is left is what was there without them.
    preprocess(make(), tmp_path / "clean")
    for window in ("train", "valid", "test"):
        assert pq.read_table(out / window).equals(pq.read_table(tmp_path / "clean" / window))
    assert "quarantine.parquet" in read_manifest(out, "features", "nextitem preprocess")["files"]


def test_no_bad_rows_no_quarantine(make, tmp_path):
    report = run(make(), tmp_path / "features")
    assert not (tmp_path / "features" / "quarantine.parquet").exists()
    assert "quarantined" not in report


def test_csv_lines_and_numbers_that_are_none(make, tmp_path):
    lines = as_csv(ROWS).splitlines()
    broken = [lines[0], "a,tea", *lines[1:6], "b,mug,2024-01-01,y,cheap", *lines[6:], "a,b,c,d,e,f,g", ""]
    dataset = make(
        "\n".join(broken).encode(), name="events.csv", events=KEYS | {"files": "events.csv", "max_bad_share": 0.5}
    )
    out = tmp_path / "features"
    report = run(dataset, out)
    found = {row["_reason"]: row for row in quarantine(out)}
    assert set(found) == {
        "line 2 has another number of fields than the header: a,tea",
        "column 'price' holds what is no number",
        "line 16 has another number of fields than the header: a,b,c,d,e,f,g",
    }
    assert found["column 'price' holds what is no number"]["price"] == "cheap"
    assert report["events_dropped"]["unusable: csv line of another width"] == 2
    assert report["events_dropped"]["unusable: column 'price' holds what is no number"] == 1
    assert report["events_read"] == 15
    assert sessions(out, "train", "item_id") == {"a": [3, 4], "b": [4, 3, 3], "c": [3, 5]}


def test_a_file_of_bad_rows_only(make, tmp_path):
    pq.write_table(table([(None, *row[1:]) for row in ROWS]), tmp_path / "bad.parquet")
    dataset = make(events=KEYS | {"files": ["bad.parquet", "events.parquet"], "max_bad_share": 0.5})
    report = run(dataset, tmp_path / "features")
    assert report["quarantined"]["rows"] == 12


@pytest.mark.parametrize(("limit", "passes"), [(0.0, False), (0.07, False), (1 / 13, True), (0.1, True)])
def test_the_share_that_is_too_much(make, tmp_path, limit, passes):
    dataset = make(table([*ROWS, ("a", None, "2024-01-01", "x", 1.0)]), events=LENIENT | {"max_bad_share": limit})
    if passes:
        run(dataset, tmp_path / "features")
        return
    with pytest.raises(UserError) as caught:
        preprocess(dataset, tmp_path / "features")
    assert str(caught.value) == (
        f"{tmp_path}/events.parquet: column 'sku' has no item id in row 12 (None); "
        f"1 of 13 rows (7.69%) cannot be used, more than events.max_bad_share {limit:.2%}: correct them, or raise it "
        f"({tmp_path}/features.quarantine.parquet lists them with reasons)"
    )


def test_too_many_bad_rows_leave_the_previous_output(make, tmp_path):
    out = tmp_path / "features"
    preprocess(make(), out)
    before = identity(out)
    rows = [(*row[:2], "never", *row[3:]) if row[0] in ("c", "lonely") else row for row in ROWS]
    with pytest.raises(UserError, match="3 of 12 rows"):
        preprocess(make(table(rows)), out)
    assert identity(out) == before
    read_manifest(out, "features", "nextitem preprocess")
    apart = pq.read_table(tmp_path / "features.quarantine.parquet")
    assert apart.column("at").to_pylist() == ["never"] * 3
    assert apart.column("_row").to_pylist() == [5, 6, 7]
    # Nothing else is left beside it.
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == ["events.parquet", "features", "features.quarantine.parquet"]


def test_bad_rows_of_several_files_and_chunks(make, tmp_path):
    for number in range(4):
        rows = [(None if n % 3 == number % 3 else row[0], *row[1:]) for n, row in enumerate(ROWS)]
        pq.write_table(table(rows), tmp_path / f"part-{number}.parquet", row_group_size=5)
    dataset = make(events=LENIENT | {"files": "part-*.parquet"})
    run(dataset, tmp_path / "features", partition_events=4, cluster="threads[2]")
    found = {(row["_file"][-14:], row["_row"]) for row in quarantine(tmp_path / "features")}
    expected = {(f"part-{number}.parquet", n) for number in range(4) for n in range(12) if n % 3 == number % 3}
    assert found == expected


def test_a_column_with_a_quote_in_its_name(make, tmp_path):
    names = ["visit", "it's", "at", "brand", "price"]
    events = table([*ROWS, ("a", None, "2024-01-01", "x", 1.0)], names)
    dataset = make(events, events={"files": "events.parquet", "session": "visit", "item": "it's", "time": "at"})
    with pytest.raises(UserError, match=r"column 'it's' has no item id in row 12 \(None\)"):
        preprocess(dataset, tmp_path / "features")


def test_every_loss_at_once(make, tmp_path):
    """Filters, bad rows, short sessions, unknown items, repeats and truncation together."""
    rng = np.random.default_rng(5)
    moments = np.datetime64("2024-01-01") + np.sort(rng.integers(0, 40 * 1440, 900)).astype("timedelta64[m]")
    rows = [
        (
            f"s{rng.integers(60)}" if rng.random() > 0.02 else None,
            f"i{rng.zipf(1.5) % 30}" + ("new" if n > 700 and rng.random() < 0.3 else ""),
            str(moment) if rng.random() > 0.02 else "?",
            str(rng.choice(["x", "y", "z"])),
            float(rng.integers(0, 9)),
        )
        for n, moment in enumerate(moments)
    ]
    rows += [(f"late{n}", "i1", "2024-03-01", "x", 5.0) for n in range(20)]
    good = [row for row in rows if row[4] >= 1]
    usable = [row for row in good if row[0] and row[2] != "?"]
    for drop in ("keep", "drop"):
        out = tmp_path / drop
        dataset = make(
            table(rows),
            events=LENIENT | {"where": {"price": {"min": 1}}},
            sessions={"max_length": 4, "collapse_repeats": True, "unknown_items": drop, "min_item_count": 2},
            split={"valid": 0.2, "test": 0.2},
        )
        report = run(dataset, out, partition_events=100)
        dropped = report["events_dropped"]
        assert dropped["where price"] == len(rows) - len(good)
        assert report["quarantined"]["rows"] == len(good) - len(usable)
        assert report["events_read"] == len(rows)
        assert dropped["in sessions shorter than 2 events"] >= 20
        assert all(len(items) <= 4 for items in sessions(out, "train", "item_id").values())
        codes = [items for window in WINDOWS for items in sessions(out, window, "item_id").values()]
        assert any(2 in items for items in codes) == (drop == "keep")
        if drop == "keep":
            by_session = {}
            for row in sorted(usable, key=lambda row: row[2]):
                items = by_session.setdefault(row[0], [])
                if not items or items[-1] != row[1]:
                    items.append(row[1])
            assert report["events"] == sum(min(len(items), 4) for items in by_session.values() if len(items) > 1)
            assert report["sessions"] == sum(len(items) > 1 for items in by_session.values())


def test_the_quarantine_of_numbers_beyond_64_bits(make, tmp_path):
    ids = pa.array([2**64 - 1, *range(11)], pa.uint64())
    events = table().set_column(1, "sku", ids).append_column("n", ids)
    dataset = make(events, events=LENIENT, features={"event": {"categorical": ["n"]}})
    run(dataset, tmp_path / "features")
    assert [row["n"] for row in quarantine(tmp_path / "features")] == [str(2**64 - 1)]


def test_a_gap_that_training_never_had(make, tmp_path):
    """A later day with an empty whole number keeps its other events; the row is set apart."""
    dataset = make(
        table().append_column("stock", pa.array(range(len(ROWS)))),
        events=LENIENT,
        features={"event": {"continuous": ["stock"]}},
    )
    preprocess(dataset, tmp_path / "features")
    rows = [("f", sku, f"2024-01-05T10:0{minute}", "x", 1.0) for minute, sku in enumerate(("tea", "mug", "cup"))]
    pq.write_table(table(rows).append_column("stock", pa.array([5, None, 7])), tmp_path / "later.parquet")
    report = append(dataset, tmp_path / "features", [tmp_path / "later.parquet"])
    day = tmp_path / "features" / "days" / "2024-01-05"
    (bad,) = pq.read_table(next((day / "quarantine").iterdir())).to_pylist()
    assert (bad["_row"], bad["_reason"]) == (1, "column 'stock' is empty, as it never was when the features were made")
    (items,) = pq.read_table(next(day.glob("part-*.parquet"))).column("item_id").to_pylist()
    assert items == [3, 5]
    assert report["days"]["2024-01-05"]["events"] == 2
