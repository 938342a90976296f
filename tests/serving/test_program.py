"""The compiled program prepares a request exactly as the workflow prepares training data."""

import itertools
import json
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from common.settings import validate
from preprocessing import frames, operators
from preprocessing.contract import agree
from preprocessing.engine import MerlinDataset, nvtabular, ops
from preprocessing.events import clean
from preprocessing.preprocess import load_workflow, preprocess
from preprocessing.settings import Dataset
from serving.compile import compile_workflow, save_program
from serving.runtime.columns import check_sizes
from serving.runtime.program import RequestError

EVENTS = 4_000


def generate(seed, kind):
    """Events with everything that goes wrong in life: nulls, ties, extremes, rare and odd ids."""
    rng = np.random.default_rng(seed)
    begin = datetime(2024, 1, 1)
    times = [begin + timedelta(minutes=int(minute) * 15) for minute in rng.integers(0, 2_000, EVENTS)]  # many ties
    items = rng.zipf(1.3, EVENTS) % 400
    sessions = rng.integers(0, 900, EVENTS)
    extremes = np.array([0.0, -0.0, 1e-30, 1e30, -1e30, 1.7e308, np.inf, -np.inf, np.nan, 3.5])
    prices = np.where(rng.random(EVENTS) < 0.1, rng.choice(extremes, EVENTS), rng.lognormal(1, 1, EVENTS))
    stock = [None if rng.random() < 0.1 else int(n) for n in rng.integers(-5, 50, EVENTS)]
    words = np.array(["", None, "x", "Ünïcødé ☂", "a b/c", "very " * 9, "1", "nan"], dtype=object)
    columns = {
        "visit": sessions if kind == "integers" else [f"v-{n}" for n in sessions],
        "sku": items - 3 if kind == "integers" else [f"☂{n}" for n in items],
        "at": pa.array(times, pa.timestamp("us")) if kind != "epoch" else [int(t.timestamp() * 1000) for t in times],
        "position": rng.integers(0, 3, EVENTS),
        "word": rng.choice(words, EVENTS),
        "code": rng.integers(-3, 9, EVENTS),
        "stock": pa.array(stock, pa.int64()),
        "flag": rng.random(EVENTS) < 0.5,
        "price": prices,
        "quantity": rng.integers(-2, 1000, EVENTS),
        "constant": np.full(EVENTS, 2.5),
    }
    return pa.table(columns)


def describe(root, kind, **settings):
    time = {"column": "at", "unit": "ms"} if kind == "epoch" else "at"
    content = {
        "name": "odd",
        "data_root": str(root),
        "events": {"files": "events.parquet", "session": "visit", "item": "sku", "time": time, "order": "position"},
        "features": {
            "item": {"categorical": ["word", "code"], "continuous": [{"column": "price", "log": True}, "constant"]},
            "event": {"categorical": ["stock", "flag"], "continuous": [{"column": "quantity", "log": True}]},
            "time": ["hour", "weekday", "age"],
        },
        "split": {"valid": 0.2, "test": 0.2},
    }
    if settings.get("sessions", {}).get("gap"):
        content["events"]["user"] = content["events"].pop("session")
    return validate(content | settings, Dataset, "odd.yaml")


def prepare(root, kind, seed=0, **settings):
    """Preprocess, compile, and return the dataset, the workflow and the program."""
    pq.write_table(generate(seed, kind), root / "events.parquet")
    dataset = describe(root, kind, **settings)
    preprocess(dataset, root / "features")
    request = json.loads((root / "features" / "request.json").read_text())
    workflow = load_workflow(root / "features")
    return dataset, workflow, save_program(*compile_workflow(workflow, request), root / "program")


def as_sent(table, program):
    """Raw events in the form in which Triton hands them over."""
    raw = {}
    for column in program.columns:
        values = table.column(column.name)
        if column.role == "time" and column.type == "BYTES":
            texts = [moment.isoformat() for moment in values.to_pylist()]
            raw[column.name] = np.array([text.encode() for text in texts], dtype=object)
        elif column.type == "BYTES":
            raw[column.name] = np.array([(value or "").encode() for value in values.to_pylist()], dtype=object)
        elif column.type == "FP64":
            raw[column.name] = np.array([np.nan if v is None else v for v in values.to_pylist()], dtype=np.float64)
        else:
            raw[column.name] = values.to_numpy(zero_copy_only=False)
    return raw


def as_read(table, dataset, program, tmp_path):
    """Raw events as preprocessing reads them, ready for the workflow."""
    path = tmp_path / "again.parquet"
    pq.write_table(table, path)
    wire = {column.name: column.type for column in program.columns}
    contract = agree(dataset, [path], EVENTS, wire)
    return frames.from_table(clean(table, dataset, contract, path, 0).table)


CASES = [
    ("text", {}),
    ("integers", {"sessions": {"max_length": 3}}),
    ("epoch", {"sessions": {"collapse_repeats": True, "max_length": 5}}),
]


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_program_equals_workflow_on_odd_data(tmp_path, kind, settings):
    """Integers bit for bit, and floats too: both sides compute with the same precision in the same order."""
    dataset, workflow, program = prepare(tmp_path, kind, **settings)
    unseen = generate(1, kind)  # other events, some of whose items and words training never saw
    offline = workflow.transform(as_read(unseen, dataset, program, tmp_path))
    online = program.run(as_sent(unseen, program))
    ids = [value.decode() if isinstance(value, bytes) else value for value in online.session_id.tolist()]
    assert ids == offline["session_id"].tolist()
    assert len(ids) > 800
    unknown = 0
    for name, padded in online.features.items():
        for row, expected in zip(padded, offline[name], strict=True):
            expected = np.asarray(expected)
            np.testing.assert_array_equal(row[: len(expected)], expected, err_msg=name)
            assert not row[len(expected) :].any(), "padding is 0"
        assert np.isfinite(padded).all(), name
        assert padded.std() > 0 or name == "constant", f"{name} says nothing"
        unknown += int((padded == 2).sum()) if name == "item_id" else 0
    assert unknown > 0, "the case should hold unknown items"


def test_one_session_at_a_time_gives_the_same_as_all_at_once(tmp_path):
    _, _, program = prepare(tmp_path, "text")
    sent = as_sent(generate(2, "text"), program)
    together = program.run(sent)
    for position, session in enumerate(together.session_id[:300]):
        rows = np.flatnonzero(sent["visit"] == session)
        alone = program.run({name: values[rows] for name, values in sent.items()})
        assert alone.session_id.tolist() == [session]
        assert alone.unknown_events[0] == together.unknown_events[position]
        for name, values in alone.features.items():
            length = values.shape[1]
            np.testing.assert_array_equal(together.features[name][position, :length], values[0], err_msg=name)
            assert not together.features[name][position, length:].any()


def assert_together_as_alone(program, sent):
    """Cut into requests: their sessions have the same ids, so that whatever mixed requests would show."""
    rng = np.random.default_rng(0)
    cuts = [0, *np.sort(rng.choice(np.arange(1, len(sent["visit"])), 60, replace=False)), len(sent["visit"])]
    requests = [{name: values[a:b] for name, values in sent.items()} for a, b in itertools.pairwise(cuts)]
    together = program.run_together(requests)
    alone = [program.run(request) for request in requests]
    assert together.requests.tolist() == [len(one.session_id) for one in alone]
    assert together.session_id.tolist() == [session for one in alone for session in one.session_id]
    assert len(set(together.session_id)) < len(together.session_id), "some ids should come in several requests"
    assert together.unknown_events.tolist() == [count for one in alone for count in one.unknown_events]
    for name, values in together.features.items():
        rows = [row for one in alone for row in one.features[name]]
        for row, expected in zip(values, rows, strict=True):
            np.testing.assert_array_equal(row[: len(expected)], expected, err_msg=name)
            assert not row[len(expected) :].any()


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_requests_prepared_together_give_what_each_gives_alone(tmp_path, kind, settings):
    program = prepare(tmp_path, kind, **settings)[2]
    assert_together_as_alone(program, as_sent(generate(2, kind), program))


def test_user_and_gap_answers_the_latest_session(tmp_path):
    settings = {"sessions": {"gap": "2 h", "max_length": 4}}
    dataset, workflow, program = prepare(tmp_path, "text", **settings)
    unseen = generate(3, "text")
    offline = workflow.transform(as_read(unseen, dataset, program, tmp_path))
    latest = dict(zip(offline["session_id"], offline["item_id"], strict=True))  # later ones replace earlier ones
    online = program.run(as_sent(unseen, program))
    assert len(online.session_id) == len(latest) < len(offline)
    for session, row in zip(online.session_id.tolist(), online.features["item_id"], strict=True):
        np.testing.assert_array_equal(row[row != 0], np.asarray(latest[session.decode()]))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("program"), "text")[2]


def two_events(program, **changes):
    sent = {name: values[:2].copy() for name, values in as_sent(generate(0, "text"), program).items()}
    for name, value in changes.items():
        sent[name][1] = value
    return sent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visit": b""}, "'visit' is empty in event 1: every event needs its session id"),
        ({"sku": b"  "}, "'sku' is empty in event 1: every event needs its item id"),
        ({"at": b"yesterday"}, "'at' in event 1 is b'yesterday': send an ISO 8601 time"),
        ({"at": b"\xff\xfe"}, "'at' in event 1"),
        ({"at": b"9999-01-01"}, "'at' in event 1"),
    ],
)
def test_bad_values_name_column_and_event(program, changes, message):
    with pytest.raises(RequestError) as caught:
        program.run(two_events(program, **changes))
    assert message in str(caught.value)


def test_empty_uneven_and_enormous_requests(program):
    sent = two_events(program)
    check_sizes(program.columns, sent, 2, 20)
    for wrong, message in [
        ({name: values[:0] for name, values in sent.items()}, "holds no events: send one at least"),
        ({name: values for name, values in sent.items() if name not in ("at", "sku")}, "the request lacks"),
        (sent | {"sku": sent["sku"][:1]}, "'sku' has 1 values but other columns have 2: send one an event"),
        ({name: np.resize(values, 3) for name, values in sent.items()}, "holds 3 events: send at most 2 at a time"),
        (two_events(program, sku=b"x" * 21), "'sku' has 21 bytes in event 1: send at most 20"),
        (sent | {"sku": sent["sku"].reshape(2, 1)}, "'sku' has 2 dimensions: send a flat list"),
    ]:
        with pytest.raises(RequestError) as caught:
            check_sizes(program.columns, wrong, 2, 20)
        assert message in str(caught.value)


def test_times_with_offsets_mean_the_same_moment(program):
    there, here = (two_events(program) for _ in range(2))
    there["at"][:] = [b"2024-05-01T12:00:00+02:00", b"2024-05-01T12:30:00+02:00"]
    here["at"][:] = [b"2024-05-01 10:00", b"2024-05-01T10:30:00Z"]
    for name, values in program.run(there).features.items():
        np.testing.assert_array_equal(values, program.run(here).features[name])


def test_an_operator_without_counterpart_is_refused_by_name(tmp_path):
    _, workflow, _ = prepare(tmp_path, "text")
    request = json.loads((tmp_path / "features" / "request.json").read_text())
    node = next(n for n in _nodes(workflow.output_node) if isinstance(n.op, ops.Clip))
    node.op = ops.Bucketize({"price": [1, 2]})
    with pytest.raises(UserError, match="operator Bucketize cannot be exported"):
        compile_workflow(workflow, request)


def stock_graph(tmp_path, **options):
    """Sessions whose items are encoded by the stock operator, and the request that goes with them."""
    raw = pa.table({"visit": [1, 1, 2], "sku": ["tea", "mug", "tea"], "at": [1, 2, 3]}).to_pandas()
    item = ["sku"] >> ops.Categorify(out_path=str(tmp_path), **options) >> ops.Rename(name="item_id")
    names = {operators.SESSION: "visit", operators.ITEM: "sku", operators.TIME: "at"}
    for name, column in names.items():
        item = item + ([column] >> ops.Rename(name=name))
    workflow = nvtabular.Workflow(item >> operators.GroupSessions(9)).fit(MerlinDataset(raw))
    roles = {"visit": ("INT64", "session"), "sku": ("BYTES", "item"), "at": ("INT64", "time")}
    columns = [{"name": name, "type": kind, "role": role} for name, (kind, role) in roles.items()]
    return workflow, {"columns": columns, "time": {"unit": "ns", "format": None}}


def test_stock_categorify_is_translated_too(tmp_path):
    program = save_program(*compile_workflow(*stock_graph(tmp_path)), tmp_path / "program")
    sku = np.array([b"tea", b"mug", b"new"], dtype=object)
    found = program.run({"visit": np.array([7, 7, 7]), "sku": sku, "at": np.arange(3)})
    assert found.features["item_id"].tolist() == [[3, 4, 2]]
    assert found.unknown_events.tolist() == [1]


def test_stock_hash_buckets_are_refused_rather_than_served_wrongly(tmp_path):
    with pytest.raises(UserError, match="operator Categorify cannot be exported: only plain vocabularies"):
        compile_workflow(*stock_graph(tmp_path, num_buckets=5, freq_threshold=2))


def test_a_workflow_that_does_not_end_in_sessions_is_refused(tmp_path):
    _, workflow, _ = prepare(tmp_path, "text")
    workflow.output_node.op = ops.LogOp()
    with pytest.raises(UserError, match="the last operator must group events into sessions"):
        compile_workflow(workflow, {})
    assert operators.GroupSessions is not ops.LogOp


def _nodes(node):
    yield node
    for parent in node.parents_with_dependencies:
        yield from _nodes(parent)
