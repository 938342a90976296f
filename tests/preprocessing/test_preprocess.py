"""The whole stage on a tiny shop, against answers worked out by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from merlin.schema import Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

from common.artefacts import identity, read_manifest
from common.errors import UserError
from preprocessing import preprocess as stage
from preprocessing.preprocess import load_workflow, preprocess

from .conftest import ROWS, table
from .helpers import assert_same, content, run, sessions


def test_hand_computed_features(make, tmp_path):
    out = tmp_path / "features"
    report = run(make(), out)
    # tea is seen four times in training, mug twice, cup once: codes 3, 4, 5.
    assert sessions(out, "train", "item_id") == {"a": [3, 4], "b": [4, 3, 3], "c": [3, 5]}
    # "new" appears after training: the one code for unknown items.
    assert sessions(out, "valid", "item_id") == {"d": [3, 2]}
    assert sessions(out, "test", "item_id") == {"e": [5, 4]}
    # x is seen three times, y twice; null and empty are code 1; z is unknown.
    assert sessions(out, "train", "brand") == {"a": [3, 4], "b": [4, 3, 3], "c": [1, 1]}
    assert sessions(out, "valid", "brand") == {"d": [3, 2]}
    # Prices in training: 1, 3, 3, 1, (null), 1, 5 -> mean 7/3, sample deviation sqrt(8/3); null is the mean.
    mean, deviation = 7 / 3, np.sqrt(8 / 3)
    prices = sessions(out, "train", "price")
    assert prices["b"] == pytest.approx([(3 - mean) / deviation, (1 - mean) / deviation, 0], abs=1e-6)
    assert prices["c"] == pytest.approx([(1 - mean) / deviation, (5 - mean) / deviation], abs=1e-6)
    assert report["events_read"] == 12
    assert report["events_dropped"] == {"in sessions shorter than 2 events": 1}
    assert report["windows"]["train"] == {"begins": "2024-01-01T10:00:00", "sessions": 3, "events": 7}
    assert (report["events"], report["sessions"], report["items"]) == (11, 5, 3)


def test_only_training_fits_the_workflow(make, tmp_path):
    """Other prices and brands in valid and test change nothing in training's features."""
    run(make(), tmp_path / "one")
    rows = [row if row[0] not in "de" else (*row[:3], "other", 1e6) for row in ROWS]
    run(make(table(rows)), tmp_path / "two")
    assert pq.read_table(tmp_path / "one" / "train").equals(pq.read_table(tmp_path / "two" / "train"))


def test_schema_is_the_contract(make, tmp_path):
    run(make(features={"item": {"categorical": ["brand"]}, "time": ["hour", "age"]}), tmp_path / "features")
    schema = TensorflowMetadata.from_proto_text_file(str(tmp_path / "features")).to_merlin_schema()
    item = schema["item_id"]
    assert {Tags.ITEM_ID.value, Tags.CATEGORICAL.value} <= {tag.value for tag in item.tags} | {"item_id"}
    assert (item.int_domain.min, item.int_domain.max) == (0, 5)
    assert item.properties["reserved_ids"] == 3
    assert item.properties["value_count"]["max"] == 20
    assert schema.select_by_tag(Tags.CONTINUOUS).column_names == ["hour_sin", "hour_cos", "age"]
    assert str(tmp_path) not in (tmp_path / "features" / "schema.pbtxt").read_text()


def test_a_session_survives_every_cut_into_partitions(make, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [
        (
            f"s{rng.integers(60)}",
            f"i{rng.integers(30)}",
            f"2024-01-0{rng.integers(1, 6)}T10:{rng.integers(10, 59)}",
            ("x", "y", None)[rng.integers(3)],
            rng.integers(1, 9) / 4,
        )
        for _ in range(600)
    ]
    found = {}
    for size, parts in ((10**6, 1), (13, 47)):
        out = tmp_path / str(size)
        # One partition in memory, many in files.
        monkeypatch.setattr(stage, "_IN_MEMORY", 10**9 if parts == 1 else 0)
        report = run(make(table(rows), split={"valid": 0.2, "test": 0.2}), out, partition_events=size)
        found[parts] = content(out)
        if parts > 1:
            assert len(list((out / "train").glob("*.parquet"))) > 10
    assert_same(found[1], found[47])
    # All events are there, in the order of their times; equal times as they came.
    times = {}
    for session, item, at, *_ in sorted(rows, key=lambda row: row[2]):
        times.setdefault(session, []).append((at, item))
    lengths = {session["session_id"]: len(session["item_id"]) for window in found[1].values() for session in window}
    assert lengths == {session: min(len(events), 20) for session, events in times.items() if len(events) > 1}
    assert report["events"] == sum(lengths.values())


def test_equal_times_keep_the_order_of_the_file(make, tmp_path, monkeypatch):
    """Every event at the same moment: the features tell the order of the rows."""
    rows = [(f"s{n % 40}", f"i{n // 40}", f"2024-01-{1 + n % 40 // 10:02d}T10:00", "x", n / 1.0) for n in range(400)]
    for size, cluster in ((10**6, "threads[1]"), (10, "threads[2]")):
        out = tmp_path / f"out-{size}"
        monkeypatch.setattr(stage, "_IN_MEMORY", size - 10)
        run(make(table(rows), split={"valid": 0.2, "test": 0.2}), out, partition_events=size, cluster=cluster)
        for window in ("train", "valid", "test"):
            for prices in sessions(out, window, "price").values():
                assert prices == sorted(prices)
                assert len(set(prices)) == 10


def test_max_length_keeps_the_most_recent_and_repeats_collapse(make, tmp_path):
    out = tmp_path / "features"
    run(make(sessions={"max_length": 2, "collapse_repeats": True}), out)
    assert sessions(out, "train", "item_id") == {"a": [3, 4], "b": [4, 3], "c": [3, 5]}


def test_sessions_from_user_and_gap(make, tmp_path):
    rows = [(user, sku, at, brand, price) for user, sku, at, brand, price in ROWS if user in "abc"]
    rows = [("u", *row[1:]) for row in rows]  # one user: 1 January 10:00-10:04, 2 January 10:00-10:01
    rows += [("u", "tea", f"2024-01-0{day}T12:0{minute}", "x", 1.0) for day in (3, 4) for minute in (0, 1)]
    dataset = make(
        table(rows),
        events={"files": "events.parquet", "user": "visit", "item": "sku", "time": "at"},
        sessions={"gap": "30 min"},
    )
    run(dataset, tmp_path / "features")
    train = pq.read_table(tmp_path / "features" / "train").to_pydict()
    assert sorted(len(items) for items in train["item_id"]) == [2, 5]
    assert train["session_id"] == ["u", "u"]


def test_split_by_share_takes_the_latest_sessions(make, tmp_path):
    rows = [(f"s{day}", sku, f"2024-01-{day:02d}T10:00", "x", 1.0) for day in range(1, 11) for sku in ("tea", "mug")]
    run(make(table(rows), split={"valid": 0.1, "test": 0.2}), tmp_path / "features")
    assert sorted(sessions(tmp_path / "features", "valid", "item_id")) == ["s8"]
    assert sorted(sessions(tmp_path / "features", "test", "item_id")) == ["s10", "s9"]


def test_empty_window_says_which_and_what_there_is(make, tmp_path):
    with pytest.raises(
        UserError, match=r"the test window \(2025-01-01.*holds no session; sessions start from 2024-01-01"
    ):
        preprocess(make(split={"valid_from": "2024-01-02", "test_from": "2025-01-01"}), tmp_path / "features")


def test_failure_leaves_the_previous_output(make, tmp_path):
    out = tmp_path / "features"
    run(make(), out)
    before = identity(out)
    with pytest.raises(UserError):
        preprocess(make(table([(*row[:2], "never", *row[3:]) for row in ROWS])), out)
    assert identity(out) == before
    read_manifest(out, "features", "nextitem preprocess")


def test_saved_workflow_gives_the_same_again(make, tmp_path):
    dataset = make(features={"item": {"categorical": ["brand"], "continuous": ["price"]}, "time": ["weekday", "age"]})
    run(dataset, tmp_path / "features")
    rows = [row for row in ROWS if row[0] in "abc"]
    raw = table(rows).to_pandas()
    raw["at"] = raw["at"].astype("datetime64[ns]").astype("int64")
    raw["brand"] = raw["brand"].replace("", None)
    again = load_workflow(tmp_path / "features").transform(raw)
    stored = pq.read_table(tmp_path / "features" / "train").to_pandas()
    for name in stored.columns:
        assert [list(np.atleast_1d(v)) for v in again[name]] == [list(np.atleast_1d(v)) for v in stored[name]], name


def test_sample_is_what_a_client_sends(make, tmp_path):
    run(make(), tmp_path / "features")
    sample = pq.read_table(tmp_path / "features" / "sample.parquet")
    assert sample.to_pylist() == [
        {"visit": "e", "sku": "cup", "at": "2024-01-04T10:00:00", "brand": "y", "price": 5.0},
        {"visit": "e", "sku": "mug", "at": "2024-01-04T10:01:00", "brand": "y", "price": 3.0},
    ]
    request = json.loads((tmp_path / "features" / "request.json").read_text())
    assert [(c["name"], c["type"], c["role"]) for c in request["columns"]] == [
        ("visit", "BYTES", "session"),
        ("sku", "BYTES", "item"),
        ("at", "BYTES", "time"),
        ("brand", "BYTES", "feature"),
        ("price", "FP64", "feature"),
    ]


def test_integer_ids_zero_and_negative_are_ordinary_items(make, tmp_path):
    rows = [(row[0], {"tea": 0, "mug": -5, "cup": 2, "new": 9}[row[1]], *row[2:]) for row in ROWS]
    run(make(table(rows).set_column(1, "sku", pa.array([row[1] for row in rows]))), tmp_path / "features")
    assert sessions(tmp_path / "features", "train", "item_id") == {"a": [3, 4], "b": [4, 3, 3], "c": [3, 5]}
