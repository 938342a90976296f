"""A server is healthy when an answer comes: asked on real servers that answer, lie, hang or have died."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import UserError
from serving.health import Unhealthy, check_health
from serving.ports import free_ports
from serving.security import Security
from serving.server import TritonServer
from tests.serving.echo_repository import MODEL, TOP_K, write_echo_repository

NEXTITEM = Path(sys.executable).parent / "nextitem"
TOKEN = "a-token-for-this-test"
ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
# What the model does with a request is chosen by a file beside it, so that one server serves all tests.
MOODY = (
    MODEL.replace("class TritonPythonModel:", "class EchoModel:")
    + """

import pathlib, time
MOOD = pathlib.Path(__file__).parents[1] / "mood"


class TritonPythonModel(EchoModel):
    def _answer(self, request):
        mood = MOOD.read_text() if MOOD.is_file() else ""
        if mood == "slow":
            time.sleep(3)
        if mood == "fails":
            raise ValueError("weights are gone")
        moment = pb_utils.get_input_tensor_by_name(request, "time").as_numpy()[0]
        if mood == "german" and not moment.decode().startswith("20.11.2026"):
            reason = f"'time' in event 0 is {moment!r}: send a time like %d.%m.%Y %H:%M"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))
        response = super()._answer(request)
        if mood == "nothing":
            tensors = {tensor.name(): tensor for tensor in response.output_tensors()}
            tensors["score"] = pb_utils.Tensor("score", np.full((1, TOP_K), np.nan, np.float32))
            response = pb_utils.InferenceResponse(list(tensors.values()))
        return response
"""
)


def is_live(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/health/live", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NEXTITEM, "health", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def moody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = write_echo_repository(tmp_path_factory.mktemp("moody") / "model_repository", MOODY)
    with TritonServer(repository, **ANY_PORTS) as server:
        yield server


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, Path]]:
    """A server with TLS and a token, and the folder of its certificate and of the token."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl: apt-get install openssl")
    folder = tmp_path_factory.mktemp("secure")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "tls.key", "-out", "tls.crt", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "token").write_text(TOKEN + "\n")
    security = Security.read(folder / "tls.crt", folder / "tls.key", folder / "token")
    repository = write_echo_repository(folder / "model_repository")
    with TritonServer(repository, security=security, **ANY_PORTS) as server:
        yield server, folder


@pytest.fixture
def mood(moody: TritonServer) -> Iterator[Path]:
    """Where to write what the model does."""
    file = moody.repository / "nextitem" / "mood"
    yield file
    file.unlink(missing_ok=True)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_answers_is_healthy(moody: TritonServer, protocol: str) -> None:
    found = check_health(moody.addresses[protocol], protocol)
    assert 0 < found.pop("answered_ms") < 5000
    assert found == {"ready": True, "version": "1", "versions": ["1"], "items": TOP_K}


def test_what_a_person_and_a_program_see(moody: TritonServer) -> None:
    done = ask("--url", moody.addresses["grpc"])
    assert done.returncode == 0, done.stderr
    line = done.stdout.split()
    assert line[:2] + line[3:] == ["answers", "in", "ms,", "version", "1"]
    assert float(line[2]) > 0
    done = ask("--url", moody.addresses["http"], "--protocol", "http", "--json")
    assert json.loads(done.stdout)["ready"] is True
    assert done.returncode == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_model_that_fails_is_ready_but_not_healthy(moody: TritonServer, mood: Path, protocol: str) -> None:
    mood.write_text("fails")
    with pytest.raises(Unhealthy, match="weights are gone") as caught:
        check_health(moody.addresses[protocol], protocol)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_model_that_does_not_answer_in_time(moody: TritonServer, mood: Path, protocol: str) -> None:
    mood.write_text("slow")
    with pytest.raises(Unhealthy, match=r"did not answer in 0\.5 s"):
        check_health(moody.addresses[protocol], protocol, timeout=0.5)
    mood.unlink()
    assert check_health(moody.addresses[protocol], protocol, timeout=30)["ready"]


def test_an_answer_without_scores_is_none(moody: TritonServer, mood: Path) -> None:
    mood.write_text("nothing")
    with pytest.raises(Unhealthy, match="recommends nothing that can be used"):
        check_health(moody.addresses["grpc"])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_times_of_a_format_of_their_own(moody: TritonServer, mood: Path, protocol: str) -> None:
    mood.write_text("german")
    assert check_health(moody.addresses[protocol], protocol)["items"] == TOP_K


def test_nobody_there_and_no_address() -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    done = ask("--url", nobody)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: no server answers at {nobody}: start one with 'nextitem serve'\n"
    assert ask("--url", "nowhere").returncode == 2
    with pytest.raises(UserError, match="choose grpc or http") as caught:
        check_health(nobody, "ftp")
    assert caught.value.exit_code == 2


def test_a_server_without_the_model(echo_repository: Path) -> None:
    # Nothing is loaded, and the server calls itself ready.
    server = TritonServer(echo_repository, arguments=["--model-control-mode=explicit"], **ANY_PORTS)
    try:
        server.start()
        while not is_live(server.addresses["http"]):
            server.check_alive()
            time.sleep(0.1)
        with pytest.raises(Unhealthy, match="refused: Request for unknown model: 'nextitem' is not found"):
            check_health(server.addresses["grpc"])
    finally:
        server.stop()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_over_tls_with_a_token(secure: tuple[TritonServer, Path], protocol: str) -> None:
    server, folder = secure
    url = f"{protocol}s://{server.addresses[protocol]}"
    assert check_health(url, token=TOKEN, ca_file=folder / "tls.crt")["items"] == TOP_K
    done = ask("--url", url, "--ca-file", str(folder / "tls.crt"), "--token-file", str(folder / "token"))
    assert done.returncode == 0, done.stderr
    with pytest.raises(Unhealthy, match="asks for a token"):
        check_health(url, ca_file=folder / "tls.crt")
    with pytest.raises(Unhealthy, match="not trusted"):
        check_health(url, token=TOKEN)


def test_a_server_whose_model_process_has_died_calls_itself_ready_but_is_not_healthy(echo_repository: Path) -> None:
    with TritonServer(echo_repository, **ANY_PORTS) as server:
        check_health(server.addresses["grpc"])
        children = Path(f"/proc/{server.pid}/task").glob("*/children")
        stubs = [int(pid) for file in children for pid in file.read_text().split()]
        stubs = [pid for pid in stubs if "python_backend_stub" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(stubs) == 1
        os.kill(stubs[0], signal.SIGKILL)
        assert server._ready("nextitem"), "Triton notices nothing"
        with pytest.raises(Unhealthy, match=r"not healthy|did not answer"):
            check_health(server.addresses["grpc"])
