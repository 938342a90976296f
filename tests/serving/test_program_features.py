"""Every further kind of feature: the compiled program computes what the workflow does, bit for bit."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.preprocess import load_workflow, preprocess
from serving.compile import compile_workflow, save_program

from .test_program import as_read, as_sent, assert_together_as_alone, describe, generate

FEATURES = {
    "item": {
        "categorical": [
            {"column": "word", "min_count": 300, "buckets": 7},
            {"column": "code", "hash": 5},
            "aisle",
            {"column": "maker", "min_count": 20},
        ],
        "continuous": [{"column": "price", "log": True}, "weight"],
    },
    "event": {
        "categorical": [{"column": "stock", "min_count": 60, "buckets": 3}, {"column": "flag", "hash": 2}, "region"],
        "continuous": [{"column": "quantity", "log": True}],
    },
    "time": ["since_previous", "age"],
    "relative": [
        {"column": "price", "to": "word"},
        {"column": "quantity", "to": "maker", "log": False},
        {"column": "weight", "to": "stock"},
    ],
    "frequency": ["sku", "word", "aisle", "position"],
    "joins": [
        {"files": "products.parquet", "on": "sku", "columns": ["aisle", "maker", "weight", "unused"]},
        {"files": "codes.csv", "on": "code", "columns": ["region"]},
    ],
}


def write_tables(root, kind):
    """Tables with gaps, and without some of the keys that the events have."""
    rng = np.random.default_rng(5)
    keys = np.arange(0, 400, 2) if kind != "integers" else np.arange(0, 400, 2) - 3
    table = {
        "sku": keys if kind == "integers" else [f"☂{key}" for key in keys],
        "aisle": rng.choice(np.array(["a", "é", "", None, "c"], dtype=object), len(keys)),
        "maker": pa.array(rng.integers(0, 40, len(keys)), pa.int32(), mask=rng.random(len(keys)) < 0.2),
        "weight": np.where(rng.random(len(keys)) < 0.2, np.nan, rng.normal(0, 3, len(keys))),
        "unused": [[1]] * len(keys),
    }
    pq.write_table(pa.table(table), root / "products.parquet")
    (root / "codes.csv").write_text("code,region\n-3,north\n0,south\n1,\n5,north\n")


def prepare(root, kind, **settings):
    pq.write_table(generate(0, kind), root / "events.parquet")
    write_tables(root, kind)
    dataset = describe(root, kind, features=FEATURES, **settings)
    preprocess(dataset, root / "features", partition_events=1500)
    request = json.loads((root / "features" / "request.json").read_text())
    workflow = load_workflow(root / "features")
    return dataset, workflow, save_program(*compile_workflow(workflow, request), root / "program")


def offline_and_online(root, kind, seed=1, **settings):
    dataset, workflow, program = prepare(root, kind, **settings)
    unseen = generate(seed, kind)
    # What is too short to learn from is answered all the same.
    workflow.output_node.op.min_length = 1
    return workflow.transform(as_read(unseen, dataset, program, root)), program.run(as_sent(unseen, program)), program


def rows_by_session(offline):
    """Session id -> the row of its latest session."""
    return {key: row for row, key in enumerate(offline["session_id"])}


CASES = [
    ("text", {}),
    ("integers", {"sessions": {"max_length": 3}}),
    ("epoch", {"sessions": {"collapse_repeats": True, "max_length": 5}}),
    ("text", {"sessions": {"gap": "2 h", "max_length": 4, "collapse_repeats": True}}),
    ("integers", {"sessions": {"min_item_count": 12, "unknown_items": "drop"}}),
    ("text", {"sessions": {"min_item_count": 20, "unknown_items": "drop", "gap": "90 h", "collapse_repeats": True}}),
]


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_program_equals_workflow(tmp_path, kind, settings):
    offline, online, program = offline_and_online(tmp_path, kind, **settings)
    expected = rows_by_session(offline)
    names = {column.name for column in program.columns}
    assert {"sku", "code", "position", "stock"} <= names, "keys of tables, and what is only counted, are sent"
    assert not {"aisle", "maker", "weight", "region", "unused"} & names, "what a table has is looked up"
    made = {
        "since_previous", "price_relative_to_word", "quantity_relative_to_maker", "weight_relative_to_stock",
        "sku_frequency", "word_frequency", "aisle_frequency", "position_frequency",
    }  # fmt: skip
    assert made < set(online.features)
    compared = 0
    for place, session in enumerate(online.session_id.tolist()):
        row = expected.get(session.decode() if isinstance(session, bytes) else session)
        if row is None:  # left out offline: no known item
            assert (online.features["item_id"][place] < 3).all()
            continue
        compared += 1
        for name, padded in online.features.items():
            values = np.asarray(offline[name][row])
            np.testing.assert_array_equal(padded[place, : len(values)], values, err_msg=name)
            assert not padded[place, len(values) :].any(), "padding is 0"
    assert compared > 250
    if "unknown_items" not in settings.get("sessions", {}):
        assert compared == len(online.session_id) > 700
    for name, padded in online.features.items():
        assert np.isfinite(padded).all(), name
        assert padded.std() > 0, f"{name} says nothing"


def test_one_session_at_a_time_gives_the_same_as_all_at_once(tmp_path):
    drop = {"sessions": {"min_item_count": 12, "unknown_items": "drop", "max_length": 4}}
    _, _, program = prepare(tmp_path, "text", **drop)
    sent = as_sent(generate(2, "text"), program)
    together = program.run(sent)
    single = 0
    for position, session in enumerate(together.session_id[:200]):
        rows = np.flatnonzero(sent["visit"] == session)
        alone = program.run({name: values[rows] for name, values in sent.items()})
        single += len(rows) == 1
        assert alone.unknown_events[0] == together.unknown_events[position]
        for name, values in alone.features.items():
            length = values.shape[1]
            np.testing.assert_array_equal(together.features[name][position, :length], values[0], err_msg=name)
            assert not together.features[name][position, length:].any()
    assert single > 0, "the case should hold sessions of one event"
    assert_together_as_alone(program, sent)


def test_events_of_unknown_items_are_left_out_unless_there_is_nothing_else(tmp_path):
    settings = {"sessions": {"min_item_count": 12, "unknown_items": "drop"}}
    _, _, program = prepare(tmp_path, "text", **settings)
    template = {name: values[:1] for name, values in as_sent(generate(0, "text"), program).items()}
    known = program.items.decode(np.array([3, 4]))
    sent = {name: np.repeat(values, 6) for name, values in template.items()}
    sent["visit"] = np.array([b"mixed"] * 4 + [b"strange"] * 2, dtype=object)
    sent["sku"] = np.array([known[0], b"never", known[1], b"new", b"new", b"never"], dtype=object)
    minutes = (0, 1, 5, 6, 0, 2)
    sent["at"] = np.array([f"2024-01-05T10:{minute:02}".encode() for minute in minutes], dtype=object)
    found = program.run(sent)
    assert found.session_id.tolist() == [b"mixed", b"strange"]
    assert found.features["item_id"].tolist() == [[3, 4], [2, 2]]
    assert found.unknown_events.tolist() == [2, 2], "they are counted all the same"
    # The time since the event before counts from the one that is shown: five minutes, and two.
    first, later = found.features["since_previous"][:, 0], found.features["since_previous"][:, 1]
    assert first.tolist() == [0, 0]
    steps = {step["op"]: step for step in program.document["steps"]}
    assert steps["since_previous"]["encoded_item"] is not None
    assert later[0] > later[1]


def test_a_file_of_text_columns_survives(tmp_path):
    """What is written is what was compiled: no pickle, and missing keys stay missing."""
    _, workflow, program = prepare(tmp_path, "text")
    request = json.loads((tmp_path / "features" / "request.json").read_text())
    document, arrays = compile_workflow(workflow, request)
    assert document == program.document
    with np.load(tmp_path / "program" / "arrays.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(arrays)
        assert all(array.dtype != object for array in stored.values())
