"""A real tritonserver answers what the model answers offline, and survives what clients send."""

import json
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
import pytest
import torch
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from common.errors import UserError
from modeling.evaluation import recommend
from preprocessing.preprocess import load_workflow
from preprocessing.workflow import item_encoder
from serving.client import PROTOCOLS


def take(columns, rows):
    return {name: [values[row] for row in rows] for name, values in columns.items()}


@pytest.fixture(scope="module")
def awkward(sample):
    """Some five hundred sessions: real ones, one-event ones, and some with items nobody has ever seen."""
    columns = {name: list(values) for name, values in sample.items()}
    columns["item_id"][::17] = ["never-seen"] * len(columns["item_id"][::17])
    for number in range(20):
        for name, value in take(sample, [number]).items():
            columns[name] += value if name != "session_id" else [-1 - number]
    return columns


def offline(shop, columns):
    """The workflow and the model in this process, without any of the serving code."""
    workflow = load_workflow(shop / "features")
    frame = pd.DataFrame(columns)
    frame["time"] = pd.to_datetime(frame["time"], format="ISO8601").astype("datetime64[ns]").astype("int64")
    sessions = workflow.transform(frame)
    longest = max(len(row) for row in sessions["item_id"])
    inputs = {}
    for name in sessions.columns.drop("session_id"):
        dtype = np.int64 if "int" in str(sessions[name].dtype) else np.float32
        inputs[name] = torch.zeros((len(sessions), longest), dtype=torch.from_numpy(np.zeros(1, dtype)).dtype)
        for row, values in enumerate(sessions[name]):
            inputs[name][row, : len(values)] = torch.from_numpy(np.asarray(values).astype(dtype))
    scores, codes = recommend(shop / "model", inputs, 20)
    known = item_encoder(workflow, "item_id").values["item_id"].to_pylist()
    items = [[known[code - 3] for code in row] for row in codes.tolist()]
    return sessions["session_id"].tolist(), items, scores.numpy(), inputs["item_id"].numpy()


def test_live_answers_equal_offline_answers(client, shop, awkward):
    session_id, items, scores, codes = offline(shop, awkward)
    assert len(session_id) > 300
    answer = client.recommend(awkward)
    assert answer.session_id == session_id, "a row a session, in the order in which sessions first appear"
    np.testing.assert_allclose(answer.score, scores, rtol=1e-4, atol=1e-5)
    same = [live == local for live, local in zip(answer.item_id, items, strict=True)]
    # Where two scores are equal to the last digits, their order may differ between batch shapes.
    for live, local, row, equal in zip(answer.item_id, items, scores, same, strict=True):
        if not equal:
            differing = [i for i, (a, b) in enumerate(zip(live, local, strict=True)) if a != b]
            assert np.ptp(row[differing]) < 1e-4
    assert sum(same) > 0.98 * len(same)
    counts = pd.Series(awkward["item_id"]).eq("never-seen").groupby(pd.Series(awkward["session_id"]), sort=False).sum()
    assert answer.unknown_events.tolist() == [int(counts[session]) for session in session_id]
    assert (codes == 2).any()


def test_every_session_alone_gets_the_answer_it_gets_in_company(client, awkward):
    together = client.recommend(awkward)
    sessions = np.array(awkward["session_id"])
    for position in range(0, len(together), 9):
        alone = client.recommend(take(awkward, np.flatnonzero(sessions == together.session_id[position]).tolist()))
        assert alone.session_id == [together.session_id[position]]
        np.testing.assert_allclose(alone.score[0], together.score[position], rtol=1e-4, atol=1e-5)


def test_answers_are_catalogue_items_without_doubles(client, sample, events):
    catalogue = set(events.column("item_id").to_pylist())
    for items in client.recommend(sample).item_id:
        assert len(set(items)) == 20
        assert set(items) <= catalogue


def test_one_event_is_enough_even_an_unknown_one(client, sample):
    one = take(sample, [0])
    answer = client.recommend(one)
    assert (len(answer), answer.unknown_events.tolist()) == (1, [0])
    answer = client.recommend(one | {"item_id": ["never-seen"], "category": ["?"]})
    assert (len(answer.item_id[0]), answer.unknown_events.tolist()) == (20, [1])


def test_order_of_events_in_the_request_does_not_matter_but_time_does(client, sample):
    rows = [row for row, session in enumerate(sample["session_id"]) if session == sample["session_id"][0]]
    forward, backward = take(sample, rows), take(sample, rows[::-1])
    assert client.recommend(forward).to_dict() == client.recommend(backward).to_dict()
    assert client.recommend(forward | {"time": forward["time"][::-1]}).item_id != client.recommend(forward).item_id


def tensor(protocol, name, values, kind, shape=None):
    module = grpc if protocol == "grpc" else http
    wanted = module.InferInput(name, shape or [len(values)], kind)
    wanted.set_data_from_numpy(values)
    return wanted


def raw_inputs(protocol, sample, without=(), **changes):
    """Tensors of two events, bypassing our client and its checks."""
    kinds = {"session_id": ("INT64", np.int64), "price": ("FP64", np.float64)}
    inputs = []
    for name in ("session_id", "item_id", "time", "category", "price", "event_type"):
        if name in without:
            continue
        kind, dtype = kinds.get(name, ("BYTES", object))
        values = changes.get(name, sample[name][:2])
        encoded = [v.encode() if isinstance(v, str) else v for v in values]
        inputs.append(tensor(protocol, name, np.array(encoded, dtype=dtype), kind))
    return inputs


BAD = {
    "missing column": ({"without": ("item_id",)}, "item_id"),
    "zero events": (
        {name: [] for name in ("session_id", "item_id", "time", "category", "price", "event_type")},
        "no events",
    ),
    "uneven columns": ({"item_id": ["sku-00001"]}, "'item_id' has 1 values but other columns have 2"),
    "unreadable time": ({"time": ["2025-03-03T10:00", "soon"]}, "'time' in event 1 is b'soon': send an ISO 8601 time"),
    "empty item": ({"item_id": ["", "sku-00001"]}, "'item_id' is empty in event 0"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", BAD)
def test_bad_requests_get_a_reason_and_the_server_goes_on(server, sample, protocol, case):
    changes, reason = BAD[case]
    module = grpc if protocol == "grpc" else http
    direct = module.InferenceServerClient(server.addresses[protocol])
    with pytest.raises(InferenceServerException) as caught:
        direct.infer("nextitem", raw_inputs(protocol, sample, **changes))
    assert reason in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert direct.infer("nextitem", raw_inputs(protocol, sample)).as_numpy("item_id").shape[1] == 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_wrong_type_is_refused_by_name(server, sample, protocol):
    module = grpc if protocol == "grpc" else http
    direct = module.InferenceServerClient(server.addresses[protocol])
    inputs = raw_inputs(protocol, sample, without=("price",))
    inputs.append(tensor(protocol, "price", np.array([1, 2], dtype=np.int64), "INT64"))
    with pytest.raises(InferenceServerException, match="price"):
        direct.infer("nextitem", inputs)


def test_the_client_refuses_before_it_sends(client, sample):
    with pytest.raises(UserError, match="item_id"):
        client.recommend({name: values for name, values in sample.items() if name != "item_id"})
    with pytest.raises(UserError, match="price"):
        client.recommend(take(sample, [0, 1]) | {"price": ["cheap", 1.0]})
    with pytest.raises(UserError, match="20"):
        client.recommend(take(sample, [0]), top_k=21)


def test_plain_json_over_http(server, sample):
    kinds = {"session_id": "INT64", "price": "FP64"}
    body = {
        "inputs": [
            {"name": name, "shape": [2], "datatype": kinds.get(name, "BYTES"), "data": values[:2]}
            for name, values in sample.items()
        ]
    }
    url = f"http://{server.addresses['http']}/v2/models/nextitem/infer"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as reply:
        outputs = {output["name"]: output for output in json.load(reply)["outputs"]}
    assert outputs["item_id"]["shape"][1] == 20
    assert outputs["item_id"]["data"][0].startswith("sku-")
    body["inputs"][0]["data"] = ["x", "y"]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()))
