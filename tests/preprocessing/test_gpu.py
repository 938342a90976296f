"""The same work on a GPU, by cudf, gives what the CPU gives. Skipped where cudf or a GPU is missing."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing import frames
from preprocessing.engine import ColumnSelector, MerlinDataset, nvtabular, ops
from preprocessing.operators import ITEM, SESSION, TIME, Encode, Group, GroupSessions, HashBuckets
from preprocessing.settings import ITEM_ID

from .helpers import assert_same, content, run


def why_not():
    try:
        import cudf

        cudf.Series([1]).sum()
    except Exception as error:  # the driver's absence comes in many forms
        return f"no GPU with cudf here ({type(error).__name__}: {error})"
    return ""


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is one")]


def events(seed=0, n=500):
    """Text, numbers and lists, with gaps and ties."""
    rng = np.random.default_rng(seed)
    item = rng.zipf(1.4, n) % 60
    return pa.table(
        {
            "visit": pa.array([f"v{x}" for x in rng.integers(0, 60, n)]),
            "number": pa.array(rng.integers(0, 9, n)),
            "at": pa.array(rng.integers(0, 200, n) * 10**9),
            "item": pa.array([None if x == 3 else f"i{x}" for x in item]),
            "price": pa.array([None if x == 3 else x / 4 for x in item.tolist()]),
            "tags": pa.array([[f"t{x}", "t0"][: 1 + x % 2] for x in item]),
        }
    )


def plain(frame):
    """A data frame of either kind as Python objects, None where a value is missing."""
    columns = frames.to_table(frame).to_pydict()
    return {name: [_plain(value) for value in values] for name, values in columns.items()}


def _plain(value):
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def both(table):
    return frames.from_table(table), frames.from_table(table, gpu=True)


@pytest.mark.parametrize("how", [{}, {"min_count": 3}, {"max_size": 5, "buckets": 4}])
def test_encode(how):
    """Fitted on one, used on the other: vocabularies are the same."""
    names, table = ["item", "number", "price", "tags"], events()
    answers = []
    for frame in both(table):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            op = Encode(**how)
            workflow = nvtabular.Workflow(names >> op).fit(MerlinDataset(frame, npartitions=3))
        answers.append([plain(workflow.transform(other)[names]) for other in both(events(1))])
        answers.append([op.values[name].to_pylist() for name in names])
    assert answers[0] == answers[2]
    assert answers[1] == answers[3]


def test_hash_buckets():
    names = ColumnSelector(["item", "number", "tags"])
    on_cpu, on_gpu = (HashBuckets(7).transform(names, frame) for frame in both(events()))
    assert plain(on_cpu) == plain(on_gpu)


@pytest.mark.parametrize("how", [{}, {"max_length": 3}, {"max_length": 3, "ascending": False}])
def test_group(how):
    # No ties: the stock operators, which group on a GPU, do not keep the order of the rows.
    table = events().append_column("row", pa.array(np.random.default_rng(2).permutation(500)))
    names = ColumnSelector(["visit", "row", "number", "item"])
    aggs = {"number": ["list", "sum", "min", "max", "mean", "count"], "item": ["list", "first", "last"]}
    answers = [
        Group(groupby_cols="visit", sort_cols="row", aggs=aggs, **how).transform(names, frame) for frame in both(table)
    ]
    on_cpu, on_gpu = (pd.DataFrame(plain(answer)).sort_values("visit").reset_index(drop=True) for answer in answers)
    pd.testing.assert_frame_equal(on_cpu, on_gpu[on_cpu.columns], check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("key", ["visit", "number"])
def test_group_sessions(key):
    table = events()
    code = pa.array(np.random.default_rng(3).integers(2, 6, 500))
    columns = {SESSION: table.column(key), TIME: table.column("at"), ITEM: table.column("number"), ITEM_ID: code}
    columns |= {"price": table.column("price"), "code": code}
    op = GroupSessions(4, gap=9 * 10**9, collapse_repeats=True, drop_unknown=True, min_length=2)
    names = ColumnSelector(list(columns))
    answers = [plain(op.transform(names, frame)) for frame in both(pa.table(columns))]
    rows = [sorted(zip(*answer.values(), strict=True), key=repr) for answer in answers]
    assert list(answers[0]) == list(answers[1])
    assert rows[0] == rows[1]


def test_a_graph_of_stock_operators_and_ours():
    names = ["item", "price"]
    graph = (["item"] >> Encode() >> ops.Rename(name="code")) + (["price"] >> ops.Normalize() >> ops.FillMissing())
    answers = []
    for frame in both(events()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            workflow = nvtabular.Workflow(graph).fit(MerlinDataset(frame[names], npartitions=2))
        answers.append(plain(workflow.transform(frame[names])))
    assert answers[0]["code"] == answers[1]["code"]
    np.testing.assert_allclose(answers[0]["price"], answers[1]["price"], rtol=1e-6, atol=1e-6)


def test_the_whole_stage(make, tmp_path):
    table = events(n=2000)
    pq.write_table(table.drop_columns(["tags"]), tmp_path / "events.parquet", row_group_size=300)
    dataset = make(
        table.drop_columns(["tags"]),
        events={"files": "events.parquet", "session": "visit", "item": "item", "time": {"column": "at", "unit": "ns"}}
        | {"max_bad_share": 0.5},
        features={
            "item": {"categorical": ["number"], "continuous": ["price"]},
            "time": ["hour", "age", "since_previous"],
            "frequency": ["item"],
            "relative": [{"column": "price", "to": "number"}],
        },
        sessions={"max_length": 5, "unknown_items": "drop", "min_item_count": 2},
        split={"valid": 0.2, "test": 0.2},
    )
    answers = []
    for cluster in ("threads[1]", "cuda"):
        out = tmp_path / cluster
        report = run(dataset, out, partition_events=500, cluster=cluster)
        answers.append([report[name] for name in ("events_read", "events_dropped", "sessions", "items", "windows")])
        answers.append((out / "schema.pbtxt").read_text())
    assert answers[:2] == answers[2:]
    assert_same(content(tmp_path / "threads[1]"), content(tmp_path / "cuda"))
