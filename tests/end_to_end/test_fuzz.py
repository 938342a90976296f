"""Thousands of malformed, extreme and hostile requests over both protocols: the server answers, and does not grow."""

import contextlib
import http.client
import json
import os
import socket

import grpc
import pytest
from hypothesis import HealthCheck, given, seed, settings
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.client import NextItemClient
from serving.server import TritonServer

from .hostile import COLUMNS, grpc_requests, http_requests, packed, raw_http

# What the client reads when the fault is ours: nothing that is sent may lead there.
OURS = "the server could not answer this request"
WARM_UP, MANY = 1_000, [2_000, pytest.param(10_000, marks=pytest.mark.slow)]
MIB = 1 << 20


@pytest.fixture(scope="module")
def attacked(shop):
    with TritonServer(shop / "model_repository", http_port=0, grpc_port=0, metrics_port=0) as running:
        yield running


def memory(server):
    """Bytes in memory of the server and of everything that it started."""
    total = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(name)) == server.pid:
                with open(f"/proc/{name}/statm") as statm:
                    total += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            pass
    return total


def fire(strategy, send, count, number):
    """Send so many requests that hypothesis thinks of."""

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def each(request):
        assert OURS not in send(request)

    each()


@pytest.fixture
def senders(attacked):
    """Each protocol's requests, and a function that sends one and returns what came back as text."""
    connection = http.client.HTTPConnection(attacked.addresses["http"], timeout=20)

    def send_http(request):
        method, path, headers, body = request
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            assert answer.status < 600
            return text
        except (http.client.HTTPException, ConnectionError):
            # Cut off is an answer too; the server must take the next connection.
            connection.close()
            return ""

    host, _, port = attacked.addresses["http"].rpartition(":")

    def send_raw(content):
        text = b""
        # Cut off while sending is an answer too, as above; waiting for ever is none.
        with socket.create_connection((host, int(port)), timeout=20) as line, contextlib.suppress(ConnectionError):
            line.sendall(content)
            line.shutdown(socket.SHUT_WR)
            while part := line.recv(1 << 16):
                text += part
        assert text[:9] in (b"", b"HTTP/1.1 ")
        return text.decode("utf-8", "replace")

    with grpc.insecure_channel(attacked.addresses["grpc"], options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def send_grpc(request):
            try:
                return str(stub.ModelInfer(request, timeout=20).outputs[:0])
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                    raise
                return error.details() or ""

        yield (grpc_requests(), send_grpc), (http_requests(), send_http), (raw_http(), send_raw)
    connection.close()


@pytest.mark.parametrize("count", MANY)
def test_the_server_outlives_hostile_requests_and_does_not_grow(attacked, senders, sample, count):
    one = {name: values[:3] for name, values in sample.items()}
    with NextItemClient(attacked.addresses["grpc"]) as client:
        before = client.recommend(one).to_dict()
        for strategy, send in senders:
            fire(strategy, send, WARM_UP // len(senders), 1)
        used, pid = memory(attacked), attacked.pid
        for strategy, send in senders:
            fire(strategy, send, count // len(senders), 2)
        assert client.recommend(one).to_dict() == before
        assert attacked.pid == pid
        assert memory(attacked) - used < 32 * MIB


def test_extreme_sizes_are_refused_in_one_line(attacked, senders, sample):
    (_, send_grpc), (_, send_http), _ = senders
    used = memory(attacked)

    def request(events, **changes):
        found = service_pb2.ModelInferRequest(model_name="nextitem")
        values = {"session_id": 1, "time": b"2025-03-03", "price": 1.0} | changes
        for name, kind in COLUMNS.items():
            found.inputs.add(name=name, datatype=kind, shape=[events])
            column = values.get(name, b"sku-00001")
            column = column if isinstance(column, list) else [column] * events
            found.raw_input_contents.append(packed({"values": column, "datatype": kind}))
        return found

    for hostile, reason in [
        (request(50_001), "send at most 50000"),
        (request(6_000, session_id=list(range(6_000))), "holds 6000 sessions: send at most 5000 at a time"),
        (request(1, item_id=b"x" * 1025), "'item_id' has 1025 bytes in event 0: send at most 1024"),
        (request(1, item_id=b"x" * 20 * MIB), "send at most 1024"),
    ]:
        answer = send_grpc(hostile)
        assert reason in answer
        assert "\n" not in answer
    deep = json.dumps({"inputs": []})[:-2].encode() + b"[" * 100_000
    for body in (deep, b'{"a":' * 100_000, b"[" * 1_000_000):
        send_http(("POST", "/v2/models/nextitem/infer", {}, body))
    with NextItemClient(attacked.addresses["http"], "http") as client:
        assert len(client.recommend({name: values[:1] for name, values in sample.items()})) == 1
    assert memory(attacked) - used < 400 * MIB
