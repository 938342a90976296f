"""The client against a real tritonserver whose answers can be worked out by hand (see echo_repository.py)."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from common.errors import UserError
from serving.client import NextItemClient, server_reason
from serving.columns import convert_column
from serving.ports import free_ports
from serving.server import TritonServer
from tests.serving.echo_repository import TOP_K

EVENTS: dict[str, Any] = {
    "session_id": [7, 8, 7],
    "item_id": ["mug", "tea", "pot"],
    "time": ["2024-05-01T10:00:00", "2024-05-01T10:00:01", "2024-05-01T10:00:02"],
    "price": [2.0, 3.0, 4.0],
}


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, echo_server: TritonServer) -> Iterator[NextItemClient]:
    with NextItemClient(echo_server.addresses[request.param], request.param) as client:
        yield client


def test_answers_a_row_a_session_in_order_of_first_appearance(client: NextItemClient) -> None:
    answer = client.recommend(EVENTS)
    assert answer.session_id == [7, 8]
    assert answer.item_id == [[f"{last}+{rank}" for rank in range(1, TOP_K + 1)] for last in ("pot", "tea")]
    np.testing.assert_array_equal(answer.score, np.array([[6, 3, 2, 1.5, 1.2], [3, 1.5, 1, 0.75, 0.6]], np.float32))
    assert answer.score.dtype == np.float32
    assert answer.unknown_events.tolist() == [0, 0]
    assert len(answer) == 2


def test_top_k_takes_the_best(client: NextItemClient) -> None:
    answer = client.recommend(EVENTS, top_k=2)
    assert answer.item_id == [["pot+1", "pot+2"], ["tea+1", "tea+2"]]
    assert answer.score.tolist() == [[6, 3], [3, 1.5]]
    assert len(client.recommend(EVENTS, top_k=TOP_K).item_id[0]) == TOP_K
    with pytest.raises(UserError, match=f"exported with {TOP_K}: ask for at most {TOP_K}"):
        client.recommend(EVENTS, top_k=TOP_K + 1)
    with pytest.raises(UserError, match="at least one"):
        client.recommend(EVENTS, top_k=0)


def test_unicode_ids_and_unknown_events(client: NextItemClient) -> None:
    items = ["чай ☕", "?neu", '日本,"語"']
    answer = client.recommend({**EVENTS, "item_id": items})
    assert [row[0] for row in answer.item_id] == ['日本,"語"+1', "?neu+1"]
    assert answer.unknown_events.tolist() == [0, 1]


def test_one_event_is_enough(client: NextItemClient) -> None:
    answer = client.recommend({name: column[:1] for name, column in EVENTS.items()}, top_k=1)
    assert answer.to_dict() == {"session_id": [7], "item_id": [["mug+1"]], "score": [[2.0]], "unknown_events": [0]}


def test_many_sessions(client: NextItemClient) -> None:
    rng = np.random.default_rng(3)
    sessions = rng.integers(0, 500, size=5000) * 10_000_000_000
    price = np.round(rng.random(5000), 3)
    items = [f"i{number}" for number in range(5000)]
    answer = client.recommend(
        {"session_id": sessions, "item_id": items, "time": [f"{row}" for row in range(5000)], "price": price}
    )
    last: dict[int, str] = {}
    for session, item in zip(sessions.tolist(), items, strict=True):
        last[session] = item
    assert answer.session_id == list(last)
    assert [row[0] for row in answer.item_id] == [f"{item}+1" for item in last.values()]
    totals = [price[sessions == session].sum() for session in last]
    np.testing.assert_allclose(answer.score[:, 0], totals, rtol=1e-6)


def test_both_protocols_answer_the_same(echo_server: TritonServer) -> None:
    answers = []
    for protocol in ("grpc", "http"):
        with NextItemClient(echo_server.addresses[protocol], protocol) as client:
            answers.append(client.recommend({**EVENTS, "price": [0.1, None, 1 / 3]}))
    first, second = (answer.to_dict() for answer in answers)
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert first["score"][1] == [None] * TOP_K, "NaN is no JSON"
    assert answers[0].score.tobytes() == answers[1].score.tobytes()


def test_columns_may_be_lists_arrays_arrow_or_pandas(client: NextItemClient) -> None:
    expected = client.recommend(EVENTS).to_dict()
    frame = pd.DataFrame(EVENTS).assign(time=lambda table: pd.to_datetime(table["time"]))
    table = pa.table({**EVENTS, "another": [1, 2, 3]})
    text = {name: [str(value) for value in column] for name, column in EVENTS.items()}
    variants: list[Any] = [
        {name: np.array(column) for name, column in EVENTS.items()},
        {name: frame[name] for name in frame},
        {name: table[name] for name in table.column_names},
        text,
    ]
    for columns in variants:
        assert client.recommend(columns).to_dict() == expected


def test_missing_column_is_named_with_what_is_expected(client: NextItemClient) -> None:
    events = {name: column for name, column in EVENTS.items() if name not in ("price", "time")}
    expected = (
        "missing columns time, price: the model expects session_id (an integer), item_id (text), time (text), "
        "price (a number)"
    )
    with pytest.raises(UserError) as error:
        client.recommend(events)
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("price", [1, "dear", 3], "column price, row 2: expected a number, got 'dear'"),
        ("price", [1, True, 3], "column price, row 2: expected a number, got True"),
        ("price", ["1_0", 2, 3], "column price, row 1: expected a number, got '1_0'"),
        ("session_id", [7, 8, 7.5], "column session_id, row 3: expected an integer, got 7.5"),
        ("session_id", [7, None, 7], "column session_id, row 2: expected an integer, got None (a missing value)"),
        ("session_id", [7, 8, 2**63], "column session_id, row 3: expected an integer, got 9223372036854775808 (it"),
        ("session_id", [date(2024, 5, 1)] * 3, "column session_id, row 1: expected an integer, got datetime.date("),
        ("item_id", ["mug", 1.5, "tea"], "column item_id, row 2: expected text, got 1.5"),
        ("item_id", ["mug", ["tea"], "tea"], "column item_id, row 2: expected text, got ['tea']"),
        ("item_id", ["mug"], "column item_id has 1 values, column session_id has 3"),
    ],
)
def test_wrong_value_is_named_with_its_column_and_row(
    client: NextItemClient, column: str, values: list[Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        client.recommend({**EVENTS, column: values})
    assert str(error.value).startswith(message)


def test_zero_events(client: NextItemClient) -> None:
    with pytest.raises(UserError, match="there are no events"):
        client.recommend({name: [] for name in EVENTS})


def test_refusal_carries_the_servers_reason_and_the_server_goes_on(client: NextItemClient) -> None:
    with pytest.raises(UserError) as error:
        client.recommend({**EVENTS, "item_id": ["mug", "", "pot"]})
    assert str(error.value) == f"the server at {client.url} refused: column 'item_id' is empty in row 2"
    assert client.recommend(EVENTS).session_id == [7, 8]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nobody_answers(protocol: str) -> None:
    port = free_ports(1)[0]
    with NextItemClient(f"127.0.0.1:{port}", protocol) as client:
        assert not client.ready()
        with pytest.raises(UserError) as error:
            client.recommend(EVENTS)
    assert str(error.value) == f"no server answers at 127.0.0.1:{port}: start one with 'nextitem serve'"


def test_wrong_addresses(echo_server: TritonServer) -> None:
    with pytest.raises(UserError, match="does not speak http"):
        NextItemClient(echo_server.addresses["grpc"], "http").recommend(EVENTS)
    with pytest.raises(UserError, match="is not an address: give host:port"):
        NextItemClient("localhost")
    with pytest.raises(UserError, match="choose grpc or http"):
        NextItemClient(echo_server.addresses["grpc"], "soap")
    with NextItemClient(f"http://{echo_server.addresses['http']}/", "http") as client:
        assert client.ready(), "a scheme in front of the address does no harm"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_server_that_does_not_answer_in_time(protocol: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with NextItemClient(address, protocol, timeout=0.5) as client, pytest.raises(UserError) as error:
            client.recommend(EVENTS)
    assert str(error.value) == f"the server at {address} did not answer in 0.5 s"


def test_threads_may_share_a_grpc_client(echo_server: TritonServer) -> None:
    wrong: list[str] = []

    def ask(number: int) -> None:
        for _ in range(20):
            answer = client.recommend({**EVENTS, "item_id": [f"{number}"] * 3}, top_k=1)
            if answer.item_id != [[f"{number}+1"]] * 2:
                wrong.append(str(answer.item_id))

    with NextItemClient(echo_server.addresses["grpc"]) as client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_times_become_iso_8601_text() -> None:
    values = [
        datetime(2024, 5, 1, 10, 30, tzinfo=UTC),
        date(2024, 5, 1),
        np.datetime64("2024-05-01T10:30:00.123456789"),
        pd.Timestamp("2024-05-01 10:30"),
        pd.NaT,
        np.datetime64("NaT"),
        None,
        "as it is",
    ]
    assert convert_column("time", values, "BYTES").tolist() == [
        b"2024-05-01T10:30:00+00:00",
        b"2024-05-01",
        b"2024-05-01T10:30:00.123456789",
        b"2024-05-01T10:30:00",
        b"",
        b"",
        b"",
        b"as it is",
    ]


def test_conversions_keep_the_value() -> None:
    assert convert_column("c", ["007", 7, 7.0, np.int8(7)], "INT32").tolist() == [7, 7, 7, 7]
    assert convert_column("c", ["007", 7, b"7"], "BYTES").tolist() == [b"007", b"7", b"7"]
    assert convert_column("c", [True, "false", "1"], "BOOL").tolist() == [True, False, True]
    numbers = convert_column("c", ["1.5", None, "", 2, np.float32(0.5)], "FP32")
    np.testing.assert_array_equal(numbers, np.array([1.5, np.nan, np.nan, 2, 0.5], np.float32))
    assert convert_column("c", np.arange(3, dtype=np.int16), "INT64").dtype == np.int64
    assert convert_column("c", np.arange(3, dtype=np.int64), "INT8").tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"row 2: expected an integer, got .*300.* from -128 to 127"):
        convert_column("c", np.array([1, 300]), "INT8")


def test_reason_of_an_error_reply() -> None:
    raised = "in ensemble 'nextitem', Failed to process the request(s) for model 'entry_0', message: KeyError: 'a'"
    assert server_reason(f"{raised}\n\nAt:\n  model.py(3): execute\n") == "KeyError: 'a'"
    assert server_reason("[StatusCode.INTERNAL] no events") == "no events"
    assert server_reason("[request id: <id_unknown>] wrong shape") == "wrong shape"


def test_client_needs_neither_pandas_nor_torch() -> None:
    code = (
        "import sys; from serving.client import NextItemClient; NextItemClient('h:1'); NextItemClient('h:1', 'http');"
        "print(sorted({'pandas', 'torch', 'merlin', 'nvtabular', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
