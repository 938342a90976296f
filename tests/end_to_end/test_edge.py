"""The HTTP edge before a real tritonserver: what strangers can and cannot do."""

import contextlib
import json
import os
import socket
import subprocess
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from common.errors import UserError
from serving.client import NextItemClient
from serving.edge.settings import EdgeSettings
from serving.ports import free_ports
from serving.processes import end, launch_edge
from serving.security import Security
from serving.server import TritonServer

from .strangers import EVENTS, INFER, SLOW, body, calls, on_free_ports, slow_repository

TOKEN = "a-token-that-is-only-for-tests"


def request(content=None, path=INFER, method="POST", *headers):
    content = body() if content is None else content
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class Line:
    """A connection on which anything can be sent."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.reader.close()
        self.socket.close()

    def send(self, content):
        self.socket.sendall(content)
        return self

    def read(self):
        """Status, headers and JSON of the next answer; None when the connection has ended."""
        first = self.reader.readline()
        if not first:
            return None
        headers = {}
        while (line := self.reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        content = self.reader.read(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, json.loads(content) if content else None

    def ended(self):
        return self.reader.read(1) == b""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return slow_repository(tmp_path_factory.mktemp("edge"))


@pytest.fixture(scope="module")
def echo(repository):
    with on_free_ports(repository) as running:
        yield running


@contextlib.contextmanager
def another_edge(upstream, **settings):
    """One more edge before the same Triton, with limits of its own."""
    (port,) = free_ports(1)
    process = launch_edge(EdgeSettings(upstream, port=port, **settings), 0, subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"127.0.0.1:{port}", process
    finally:
        end(process, 10)


def test_what_ended_triton_is_refused(echo):
    pid = echo.pid
    for content, reason in [
        (body(session_id={"shape": [2**40]}), "whole numbers from 0"),
        (body(session_id={"shape": [2**30]}), "2 values, but its shape says"),
        (b"[" * 1_000_000, "nested too deep"),
    ]:
        with Line(echo.addresses["http"]) as line:
            status, _, told = line.send(request(content)).read()
            assert (status, list(told)) == (400, ["error"])
            assert reason in told["error"]
            assert "\n" not in told["error"]
            # The same connection goes on.
            assert line.send(request()).read()[0] == 200
    assert echo.pid == pid


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/systemsharedmemory/region/mine/register", 404),
        ("POST", "/v2/repository/models/nextitem/unload", 404),
        ("GET", "/v2/logging", 404),
        ("POST", "/v2/trace/setting", 404),
        ("POST", "/v2/models/nextitem/trace/setting", 404),
        ("POST", "/v2/models/nextitem/generate", 404),
        ("PUT", INFER, 405),
        ("HEAD", "/v2", 405),
        ("GET", "/v2/models/nextitem/config", 200),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2", 200),
        ("POST", "/v2/repository/index", 200),
    ],
)
def test_http_is_for_clients_only(echo, method, path, status):
    with Line(echo.addresses["http"]) as line:
        assert line.send(request(b"", path, method)).read()[0] == status


def test_grpc_administers_for_nobody(echo):
    with grpc.insecure_channel(echo.addresses["grpc"], options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call in calls(stub).values():
            for metadata in ([], [("triton-grpc-protocol-closed", "guess")]):
                with pytest.raises(grpc.RpcError) as caught:
                    call(timeout=10, metadata=metadata)
                assert "restricted" in caught.value.details()
        assert stub.ModelReady(pb.ModelReadyRequest(name="nextitem"), timeout=10).ready
        assert stub.ModelStatistics(pb.ModelStatisticsRequest(), timeout=10).model_stats


def test_the_socket_of_triton_is_for_nobody_else(echo):
    mode = os.stat(echo._socket).st_mode
    assert mode & 0o077 == 0


def test_requests_in_a_row_are_answered_in_order(echo):
    ids = [f"r{number}" for number in range(4)]
    contents = [json.dumps(json.loads(body()) | {"id": name}).encode() for name in ids]
    contents[2] = b'{"inputs": 3}'
    with Line(echo.addresses["http"]) as line:
        line.send(b"".join(request(content) for content in contents))
        answers = [line.read() for _ in contents]
        assert [status for status, _, _ in answers] == [200, 200, 400, 200]
        assert [answer.get("id") for _, _, answer in answers] == ["r0", "r1", None, "r3"]
        line.send(request(None, INFER, "POST", "Connection: close"))
        assert line.read()[1]["connection"] == "close"
        assert line.ended()


def test_a_client_that_has_said_all_is_answered_all(echo):
    with Line(echo.addresses["http"]) as line:
        line.send(request() * 3)
        line.socket.shutdown(socket.SHUT_WR)
        assert [line.read()[0] for _ in range(3)] == [200] * 3
        assert line.ended()
    for half in (request()[:-9], request()[:20]):
        with Line(echo.addresses["http"]) as line:
            line.send(request() + half)
            line.socket.shutdown(socket.SHUT_WR)
            assert line.read()[0] == 200
            line.socket.settimeout(5)
            assert line.ended(), "the rest will not come, so nobody waits for it"


def ask_without_listening(deaf):
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        deaf.sendall(request(b"", "/v2/models/nextitem/config", "GET") * 10_000)
        time.sleep(0.1)


def test_a_client_that_does_not_read_is_sent_away(echo):
    with another_edge(echo._socket, read_seconds=0.5) as (address, _):
        host, _, port = address.rpartition(":")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.settimeout(30)
            deaf.connect((host, int(port)))
            with pytest.raises(ConnectionError):
                ask_without_listening(deaf)
        with Line(address) as line:
            assert line.send(request()).read()[0] == 200


def test_chunks_and_waiting_clients(echo):
    content = body()
    head = b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\n"
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:9], content[9:])) + b"0\r\n\r\n"
    with Line(echo.addresses["http"]) as line:
        line.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)
        first = line.read()
        line.send(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content))
        assert line.read() == (100, {}, None)
        assert line.send(content).read()[2] == first[2]
        assert first[0] == 200
        # Byte by byte, as a bad network brings it.
        for byte in request():
            line.send(bytes([byte]))
        assert line.read()[2] == first[2]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}", 400),
        (request(body(), INFER, "POST", "Content-Encoding: gzip"), 415),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", 413),
    ],
)
def test_what_cannot_go_on_is_told_so_and_closed(echo, sent, status):
    with Line(echo.addresses["http"]) as line:
        found, headers, told = line.send(sent).read()
        assert (found, headers["connection"]) == (status, "close")
        assert "\n" not in told["error"]
        assert line.ended()


def test_a_large_body_hears_the_reason_while_it_is_still_sent(echo):
    with Line(echo.addresses["http"]) as line:
        line.send(request(b" " * (20 << 20)))
        assert line.read()[0] == 413


def test_slow_clients_are_sent_away(echo):
    limits = {"head_seconds": 0.5, "body_seconds": 0.5, "idle_seconds": 0.5}
    with (
        another_edge(echo._socket, **limits) as (address, _),
        Line(address) as head,
        Line(address) as content,
        Line(address) as idle,
        Line(address) as silent,
    ):
        head.send(b"POST " + INFER.encode())
        content.send(request()[:-5])
        idle.send(request())
        assert idle.read()[0] == 200
        assert (head.read()[0], content.read()[0]) == (408, 408)
        assert head.ended()
        assert idle.ended()
        assert silent.ended()


def test_too_many_clients(echo):
    with (
        another_edge(echo._socket, max_connections=2, max_requests=1) as (address, _),
        Line(address) as first,
        Line(address) as second,
    ):
        assert first.send(request()).read()[0] == 200
        second.send(request(body(SLOW)))
        time.sleep(0.3)
        # One request is under way: the next is refused, and the connection stays.
        status, _, told = first.send(request()).read()
        assert (status, "too many requests" in told["error"]) == (503, True)
        # A third client takes the place of the one that says nothing.
        with Line(address) as third:
            assert third.send(request(b"", "/v2/health/live", "GET")).read()[0] == 503
            assert first.ended()
            assert second.read()[0] == 200
            third.send(b"GET")
            second.send(b"GET")
            time.sleep(0.3)
            with Line(address) as fourth:
                assert "too many clients" in fourth.read()[2]["error"]


def test_bodies_together(echo):
    with another_edge(echo._socket, max_bytes=1_000) as (address, _), Line(address) as first, Line(address) as second:
        first.send(request(b" " * 900)[:-1])
        time.sleep(0.3)
        assert second.send(request(b" " * 900)).read()[0] == 503
        assert first.send(b" ").read()[0] == 400
        assert first.send(request()).read()[0] == 200


def test_triton_that_is_late_or_not_there(echo, tmp_path):
    with another_edge(echo._socket, answer_seconds=0.2) as (address, _), Line(address) as line:
        assert line.send(request(body(SLOW))).read()[0] == 504
        assert line.ended()
    with another_edge(str(tmp_path / "nothing")) as (address, _), Line(address) as line:
        status, _, told = line.send(request()).read()
        assert (status, "does not answer" in told["error"]) == (503, True)
        assert line.send(request(b"", "/v2/health/ready", "GET")).read()[0] == 503


def test_a_client_that_leaves_takes_nothing_with_it(echo):
    for _ in range(5):
        with Line(echo.addresses["http"]) as line:
            line.send(request(body(SLOW)))
    with Line(echo.addresses["http"]) as line:
        assert line.send(request()).read()[0] == 200


def test_a_stop_lets_requests_finish(echo):
    with another_edge(echo._socket) as (address, process), Line(address) as busy, Line(address) as idle:
        assert idle.send(request()).read()[0] == 200
        busy.send(request(body(SLOW)))
        time.sleep(0.3)
        process.terminate()
        assert idle.ended()
        status, headers, _ = busy.read()
        assert (status, headers["connection"]) == (200, "close")
        assert process.wait(10) == 0
        with pytest.raises(OSError, match="refused"):
            Line(address)


def test_the_edge_ends_with_its_parent_and_cleans_up(tmp_path):
    left = tmp_path / "http"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(left))
        with another_edge(str(left)) as (_, process):
            process.stdin.close()
            assert process.wait(10) == 0
    assert not left.exists()


def test_an_edge_that_dies_is_reported(repository):
    with on_free_ports(repository) as server:
        server._edge.kill()
        server._edge.wait()
        with pytest.raises(UserError, match="the HTTP edge stopped: it ended by signal 9"):
            server.check_alive()
    server.log_file.unlink()
    server.log_file.parent.rmdir()


def test_without_the_edge_clients_speak_to_triton(repository):
    with on_free_ports(repository, edge=False) as server:
        with Line(server.addresses["http"]) as line:
            assert line.send(request(b"", "/v2/logging", "GET")).read()[0] == 200
        with NextItemClient(server.addresses["http"], "http") as client:
            assert client.recommend(EVENTS).item_id[0][0] == "b+1"
    with pytest.raises(ValueError, match="need the edge"):
        TritonServer(repository, edge=False, security=Security(token=TOKEN))
