"""Token and TLS on both protocols, before a real tritonserver: what clients and commands show, and who is refused."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
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
from serving.loadtest import loadtest
from serving.ports import free_ports
from serving.security import Security, derived_token

from .strangers import EVENTS, INFER, body, calls, on_free_ports, slow_repository

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-that-is-only-for-tests"


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
def secure(certificate, tmp_path_factory):
    (certificate / "token").write_text(TOKEN + "\n")
    security = Security.read(certificate / "tls.crt", certificate / "tls.key", certificate / "token")
    repository = slow_repository(tmp_path_factory.mktemp("secure"))
    with on_free_ports(repository, security=security, max_body_bytes=4096) as running:
        yield running


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
