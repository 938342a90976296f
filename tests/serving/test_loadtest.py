"""The load test with the real perf_analyzer on a real tritonserver."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from serving.client import NextItemClient
from serving.columns import convert_events
from serving.loadtest import _session_column, input_data, loadtest, read_report, split_sessions
from serving.ports import free_ports
from serving.server import TritonServer

# Sessions of one to three events that lie between each other, with text that needs escaping and a missing price.
EVENTS: dict[str, Any] = {
    "session_id": [7, 8, 7, 9, 9, 9],
    "item_id": ["mug", "чай ☕", '"pot",\\', "", "a", "b"],
    "time": ["1", "2", "3", "4", "5", "6"],
    "price": ["2.5", 3, None, 1, 1, 1],
}
GOOD = {name: column[:3] for name, column in EVENTS.items()}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_rows_are_sane(echo_server: TritonServer, protocol: str) -> None:
    with NextItemClient(echo_server.addresses["grpc"]) as client:
        before = _answered(client)
        rows = loadtest(echo_server.addresses[protocol], GOOD, protocol, concurrencies=(4, 1), requests=150)
        # The server's own count: the requests were really sent, and all were answered.
        assert _answered(client) - before >= 2 * 150
    assert [row["concurrency"] for row in rows] == [4, 1]
    for row in rows:
        assert list(row) == ["concurrency", "req_per_s", "p50_ms", "p95_ms", "p99_ms", "errors"]
        assert row["errors"] == 0
        assert row["req_per_s"] > 0
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        # Little's law, with much room: requests under way = throughput x latency. It holds only if the units are right.
        assert 0.2 < row["req_per_s"] * row["p50_ms"] / 1000 / row["concurrency"] < 2


def _answered(client: NextItemClient) -> int:
    return client._connection.get_inference_statistics("nextitem").model_stats[0].inference_stats.success.count


def test_events_that_the_model_refuses(echo_server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = echo_server.addresses["grpc"]
    with pytest.raises(UserError, match="refused: column 'item_id' is empty in row 4"):
        loadtest(address, EVENTS)
    with pytest.raises(UserError, match="refused: column 'item_id' is empty in row 1"):
        loadtest(address, EVENTS, session="session_id")
    # A session that only perf_analyzer comes to.
    monkeypatch.setattr("serving.loadtest.WARM_UP_SESSIONS", 2)
    with pytest.raises(UserError, match="refused a request at concurrency 1: column 'item_id' is empty in row 1"):
        loadtest(address, EVENTS, requests=10, session="session_id")


def test_the_server_says_which_column_means_the_session(echo_server: TritonServer) -> None:
    with NextItemClient(echo_server.addresses["grpc"]) as client:
        columns = convert_events({**GOOD, "time": ["7", "8", "9"]}, client.inputs)
        assert _session_column(client, columns) == "session_id"


def test_bad_settings(echo_server: TritonServer) -> None:
    address = echo_server.addresses["grpc"]
    with pytest.raises(UserError, match="the model takes no column 'visit': its columns are session_id, item_id,"):
        loadtest(address, GOOD, session="visit")
    with pytest.raises(UserError, match="missing column price"):
        loadtest(address, {name: column for name, column in GOOD.items() if name != "price"})
    with pytest.raises(UserError, match="concurrencies"):
        loadtest(address, GOOD, concurrencies=(0,))
    with pytest.raises(UserError, match="no server answers at"):
        loadtest(f"127.0.0.1:{free_ports(1)[0]}", GOOD)


def test_perf_analyzer_that_cannot_run(
    echo_server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "perf_analyzer"
    program.write_text("#!/bin/sh\necho \"$0: libc.so.6: version 'GLIBC_2.38' not found\" >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("NEXTITEM_PERF_ANALYZER", str(program))
    with pytest.raises(UserError, match=r"cannot run here \(.*GLIBC_2\.38.*make install.*NEXTITEM_PERF_ANALYZER"):
        loadtest(echo_server.addresses["grpc"], GOOD)


def test_sessions_are_split_in_order_of_first_appearance() -> None:
    columns = {"session_id": np.array([9, 8, 9, 7]), "item_id": np.array([b"a", b"b", b"c", b"d"], dtype=object)}
    sessions = list(split_sessions(columns, "session_id", limit=2))
    assert [session["item_id"].tolist() for session in sessions] == [[b"a", b"c"], [b"b"]]


def test_input_data_holds_each_tensor_with_its_shape() -> None:
    session = {"price": np.array([0.5, np.nan]), "item_id": np.array(["чай".encode(), b""], dtype=object)}
    (entry,) = input_data([session])["data"]
    assert entry["item_id"] == {"content": ["чай", ""], "shape": [2]}
    assert entry["price"]["shape"] == [2]
    decoded = np.frombuffer(base64.b64decode(entry["price"]["content"]["b64"]))
    np.testing.assert_array_equal(decoded, session["price"])


def test_report_is_read_by_its_header(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    header = "Concurrency,Inferences/Second,Client Send,p50 latency,p90 latency,p95 latency,p99 latency"
    report.write_text(f"{header}\n16,200.5,9,4000,5000,6000,7500\n1,100,9,400,500,600,750\n\n")
    assert read_report(report, 1) == {
        "concurrency": 1,
        "req_per_s": 100.0,
        "p50_ms": 0.4,
        "p95_ms": 0.6,
        "p99_ms": 0.75,
    }
    assert read_report(report, 16)["p99_ms"] == 7.5
    with pytest.raises(UserError, match="nothing for concurrency 4"):
        read_report(report, 4)
    report.write_text("something else\n1\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_report(report, 1)
