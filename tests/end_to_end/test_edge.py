"""The HTTP edge before a real tritonserver: what strangers cannot do, and what clients with token and TLS can."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
import yaml
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import nextitem
from common.errors import UserError
from serving.address import Address, ask_http
from serving.aio import AsyncNextItemClient
from serving.client import PROTOCOLS, NextItemClient
from serving.edge.settings import EdgeSettings
from serving.loadtest import loadtest
from serving.ports import free_ports
from serving.processes import end, launch_edge
from serving.security import Security, derived_token
from serving.server import TritonServer
from tests.serving.echo_repository import MODEL, write_echo_repository

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-that-is-only-for-tests"
EVENTS = {"session_id": [7, 7], "item_id": ["a", "b"], "time": ["t", "t"], "price": [1.0, 2.0]}
KINDS = {"session_id": "INT64", "item_id": "BYTES", "time": "BYTES", "price": "FP64"}
INFER = "/v2/models/nextitem/infer"
# A session of this id is answered late.
SLOW, SLOW_SECONDS = 99, 1.5
SLOW_MODEL = MODEL.replace(
    'sessions = column["session_id"]\n',
    f'sessions = column["session_id"]\n        if {SLOW} in sessions:\n            time.sleep({SLOW_SECONDS})\n',
).replace("import numpy as np\n", "import time\n\nimport numpy as np\n")


def body(session=7, **changes):
    inputs = []
    for name, values in EVENTS.items():
        values = [session] * 2 if name == "session_id" else values
        inputs.append({"name": name, "shape": [2], "datatype": KINDS[name], "data": values} | changes.get(name, {}))
    return json.dumps({"inputs": inputs}).encode()


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
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    signed += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    for command in (
        ["req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=an authority for tests"],
        ["req", "-x509", *curve, "-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=localhost", *signed],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return write_echo_repository(tmp_path_factory.mktemp("edge") / "model_repository", SLOW_MODEL, options=True)


@pytest.fixture(scope="module")
def echo(repository):
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def secure(repository, certificate):
    (certificate / "token").write_text(TOKEN + "\n")
    security = Security.read(certificate / "tls.crt", certificate / "tls.key", certificate / "token")
    limits = {"security": security, "max_body_bytes": 4096}
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, **limits) as running:
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


def calls(stub):
    """Name -> a call of gRPC's administration."""
    return {
        "shared memory": lambda **more: stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=8), **more
        ),
        "load": lambda **more: stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nextitem"), **more),
        "unload": lambda **more: stub.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(model_name="nextitem"), **more
        ),
        "index": lambda **more: stub.RepositoryIndex(pb.RepositoryIndexRequest(), **more),
        "log": lambda **more: stub.LogSettings(pb.LogSettingsRequest(), **more),
        "trace": lambda **more: stub.TraceSetting(pb.TraceSettingRequest(), **more),
    }


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
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        server._edge.kill()
        server._edge.wait()
        with pytest.raises(UserError, match="the HTTP edge stopped: it ended by signal 9"):
            server.check_alive()
    server.log_file.unlink()
    server.log_file.parent.rmdir()


def test_without_the_edge_clients_speak_to_triton(repository):
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, edge=False) as server:
        with Line(server.addresses["http"]) as line:
            assert line.send(request(b"", "/v2/logging", "GET")).read()[0] == 200
        with NextItemClient(server.addresses["http"], "http") as client:
            assert client.recommend(EVENTS).item_id[0][0] == "b+1"
    with pytest.raises(ValueError, match="need the edge"):
        TritonServer(repository, edge=False, security=Security(token=TOKEN))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_token_and_tls(secure, certificate, protocol, monkeypatch):
    url = f"{protocol}s://{secure.addresses[protocol]}"
    trusted = {"ca_file": certificate / "tls.crt"}
    with NextItemClient(url, token=TOKEN, **trusted) as client:
        assert client.protocol == protocol
        assert client.ready()
        assert client.recommend(EVENTS).item_id == [["b+1", "b+2", "b+3", "b+4", "b+5"]]

    async def ask():
        async with AsyncNextItemClient(url, token=TOKEN, **trusted) as waiting:
            return await waiting.recommend(EVENTS, top_k=1)

    assert asyncio.run(ask()).item_id == [["b+1"]]
    monkeypatch.setenv("NEXTITEM_TOKEN", TOKEN)
    # The authority that signed the certificate, instead of the certificate itself.
    monkeypatch.setenv("NEXTITEM_CA_FILE", str(certificate / "ca.crt"))
    with NextItemClient(secure.addresses[protocol], protocol, tls=True) as client:
        assert len(client.recommend(EVENTS)) == 1
    monkeypatch.delenv("NEXTITEM_TOKEN")
    for token, reason in ((None, "asks for a token"), ("another-token-of-some-length", "is not the server's")):
        with (
            NextItemClient(url, token=token) as client,
            pytest.raises(UserError, match=f"refused: the .*{reason}"),
        ):
            client.recommend(EVENTS)
    monkeypatch.delenv("NEXTITEM_CA_FILE")
    with NextItemClient(url, token=TOKEN) as client, pytest.raises(UserError, match="no TLS with"):
        client.recommend(EVENTS)
    with (
        NextItemClient(secure.addresses[protocol], protocol, token=TOKEN, timeout=5) as client,
        pytest.raises(UserError, match=r"no server answers|does not speak|did not answer|refused"),
    ):
        client.recommend(EVENTS)


def test_every_path_but_health_asks_for_the_token(secure, certificate):
    address = Address.parse(f"https://{secure.addresses['http']}", "http")
    trusted = {"ca_file": certificate / "tls.crt"}
    for method, path in [
        ("GET", "/v2"),
        ("GET", "/v2/models/nextitem/ready"),
        ("GET", "/v2/models/stats"),
        ("POST", INFER),
        ("POST", "/v2/repository/index"),
    ]:
        status, told = ask_http(address, method, path, **trusted)
        assert (status, "Bearer" in told["error"]) == (401, True)
        assert ask_http(address, method, path, "another-token-of-some-length", **trusted)[0] == 401
        assert ask_http(address, method, path, TOKEN, **trusted)[0] in (200, 400)
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert ask_http(address, "GET", path, **trusted) == (200, {})


def test_grpc_asks_for_the_token_too(secure, certificate):
    credentials = grpc.ssl_channel_credentials((certificate / "tls.crt").read_bytes())
    with grpc.secure_channel(secure.addresses["grpc"], credentials, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=10).live
        asked = {
            "metadata": lambda **more: stub.ModelMetadata(pb.ModelMetadataRequest(name="nextitem"), **more),
            "infer": lambda **more: stub.ModelInfer(pb.ModelInferRequest(model_name="nextitem"), **more),
            "config": lambda **more: stub.ModelConfig(pb.ModelConfigRequest(name="nextitem"), **more),
            "stats": lambda **more: stub.ModelStatistics(pb.ModelStatisticsRequest(), **more),
        }
        for call in asked.values():
            for value in (None, TOKEN, "x"):
                metadata = [("triton-grpc-protocol-nextitem-token", value)] if value else []
                with pytest.raises(grpc.RpcError) as caught:
                    call(timeout=10, metadata=metadata)
                assert "restricted" in caught.value.details()
        shown = [("triton-grpc-protocol-nextitem-token", derived_token(TOKEN))]
        assert asked["metadata"](timeout=10, metadata=shown).name == "nextitem"
        # The token opens what clients need, and no administration.
        for call in calls(stub).values():
            with pytest.raises(grpc.RpcError) as caught:
                call(timeout=10, metadata=shown)
            assert "restricted" in caught.value.details()


def test_the_token_shows_nowhere(secure):
    shown = b""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(folder.name)) == secure.pid:
                shown += (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    assert b"tritonserver" in shown
    assert b"serving.edge" in shown
    assert TOKEN.encode() not in shown
    assert TOKEN not in secure.log_text()
    assert TOKEN not in repr(secure.security)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: apt-get install curl")
def test_curl_over_https(secure, certificate, tmp_path):
    (tmp_path / "body").write_bytes(body())
    url = f"https://{secure.addresses['http']}{INFER}"
    command = ["curl", "-sS", "--noproxy", "*", "--data-binary", f"@{tmp_path}/body", url]
    trusted = ["--cacert", str(certificate / "tls.crt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "certificate" in done.stderr) == (60, True)
    done = subprocess.run([*command, *trusted], capture_output=True, text=True)
    assert "token" in json.loads(done.stdout)["error"]
    shown = [*command, *trusted, "-H", f"Authorization: Bearer {TOKEN}"]
    outputs = json.loads(subprocess.run(shown, capture_output=True, text=True).stdout)["outputs"]
    assert {output["name"]: output["data"] for output in outputs}["item_id"] == [f"b+{rank}" for rank in range(1, 6)]
    (tmp_path / "body").write_bytes(body() + b" " * 4096)
    told = json.loads(subprocess.run(shown, capture_output=True, text=True).stdout)
    assert told == {"error": "the body is larger than 4096 bytes: send several smaller requests"}


def test_the_command_line_shows_token_and_trust(secure, certificate, tmp_path):
    (tmp_path / "events.json").write_text(json.dumps(EVENTS))
    url = f"grpcs://{secure.addresses['grpc']}"
    files = {"ca_file": certificate / "tls.crt", "token_file": certificate / "token"}
    answer = nextitem.recommend(str(tmp_path / "events.json"), url, top_k=2, **files)
    assert answer["item_id"] == [["b+1", "b+2"]]
    with pytest.raises(UserError, match="cannot be read as a token"):
        nextitem.recommend(str(tmp_path / "events.json"), url, **files | {"token_file": tmp_path / "none"})


@pytest.mark.slow
def test_the_secure_service_of_compose_runs(shop, certificate):
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["server-secure"]
    (certificate / "token").write_text(TOKEN + "\n")
    http, grpc_port, metrics = map(str, free_ports(3))

    def here(arguments):
        replaced = {"/model_repository": str(shop / "model_repository"), "0.0.0.0": "127.0.0.1"}
        replaced |= {f"/run/secrets/{name}": str(certificate / name) for name in service["secrets"]}
        replaced["grpcs://${TLS_NAME:-localhost}:8001"] = f"grpcs://localhost:{grpc_port}"
        return [str(Path(sys.executable).parent / "nextitem"), *(replaced.get(part, part) for part in arguments)]

    ports = ["--http-port", http, "--grpc-port", grpc_port, "--metrics-port", metrics]
    command = [*here(service["command"]), *ports]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        assert any("ready: " in json.loads(line)["message"] for line in server.stdout)
        kind, program, *arguments = service["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "nextitem")
        checked = subprocess.run(here(arguments), capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        without = subprocess.run(here(arguments[:-2]), capture_output=True, text=True)
        assert (without.returncode, "asks for a token" in without.stderr) == (1, True)
    finally:
        server.terminate()
        assert server.wait(60) == 0


@pytest.mark.slow
def test_load_test_with_token_and_tls(secure, certificate):
    trusted = {"ca_file": certificate / "tls.crt", "token": TOKEN, "requests": 100, "concurrencies": (2,)}
    (row,) = loadtest(f"https://{secure.addresses['http']}", EVENTS, **trusted)
    assert row["req_per_s"] > 0
    with pytest.raises(UserError, match="perf_analyzer shows no token over gRPC"):
        loadtest(f"grpcs://{secure.addresses['grpc']}", EVENTS, **trusted)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("short\n", "16 to 512 characters"),
        ("two lines of text\nwith a second", "16 to 512 characters"),
        ("with spaces in it, long enough", "16 to 512 characters"),
        ("", "16 to 512 characters"),
        ("unlesbar-überall-in-diesem-text", "not ASCII"),
    ],
)
def test_tokens_that_are_none(tmp_path, content, reason):
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=reason) as caught:
        Security.read(None, None, tmp_path / "token")
    assert not content.strip() or content.strip() not in str(caught.value)


def test_certificates_that_are_none(tmp_path, certificate):
    good, key = certificate / "tls.crt", certificate / "tls.key"
    with pytest.raises(UserError, match="go together"):
        Security.read(good, None, None)
    with pytest.raises(UserError, match="is no file"):
        Security.read(good, tmp_path / "none", None)
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(UserError, match="are no certificate and its key"):
        Security.read(tmp_path / "text", key, None)
    with pytest.raises(UserError, match="holds no certificates"):
        NextItemClient("grpcs://127.0.0.1:1", ca_file=tmp_path / "text")


def test_who_serves_strangers_is_told_what_that_means(shop, certificate, capsys):
    (certificate / "token").write_text(TOKEN + "\n")
    secret = {"token_file": certificate / "token"}
    encrypted = {"tls_cert": certificate / "tls.crt", "tls_key": certificate / "tls.key"}
    for host, options, said in [
        ("127.0.0.1", {}, ""),
        ("0.0.0.0", {}, "warning: whoever reaches 0.0.0.0 may ask, without a token"),
        ("0.0.0.0", secret, "warning: the token travels unencrypted"),
        ("0.0.0.0", secret | encrypted, ""),
    ]:
        with pytest.raises(UserError, match="not a port"):
            nextitem.serve(shop / "model_repository", host, http_port=70_000, **options)
        told = capsys.readouterr().err
        assert told.startswith(said)
        assert told.count("warning") == bool(said)
    with pytest.raises(SystemExit):
        nextitem.serve(shop / "model_repository", "0.0.0.0", http_port=70_000, log_format="json")
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["level"], "without a token" in first["message"]) == ("warning", True)
