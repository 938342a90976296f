"""The process side of serving, on real tritonserver processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from common.errors import UserError
from serving import binaries
from serving.client import NextItemClient
from serving.ports import check_ports, free_ports
from serving.server import TritonServer
from serving.triton_log import failure_reason, is_notable
from tests.serving.echo_repository import write_echo_repository

ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


def processes_of_group(group: int) -> list[str]:
    """The command lines of the processes in a group, from /proc; zombies are gone as far as anybody cares."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            continue
    return found


def wait_until(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_serves_on_three_addresses_and_leaves_nothing_behind(echo_repository: Path) -> None:
    server = TritonServer(echo_repository, **ANY_PORTS)
    with server:
        group = server.pid
        assert group is not None
        assert len(processes_of_group(group)) >= 3, "the server, the stub of its model and the edge"
        assert NextItemClient(server.addresses["grpc"], "grpc").ready()
        assert NextItemClient(server.addresses["http"], "http").ready()
        with urllib.request.urlopen(f"http://{server.addresses['metrics']}/metrics") as reply:
            assert b"nv_inference_request_success" in reply.read()
        regions = [path for path in Path("/dev/shm").glob(f"{server._work.name}*") if not path.is_socket()]
        assert regions, "the stub talks through shared memory that carries our name"
        work, log = server._work, server.log_text()
        assert "successfully loaded 'nextitem'" in log
    assert server.pid is None
    assert processes_of_group(group) == []
    assert not work.exists()
    assert not any(region.exists() for region in regions)
    assert not NextItemClient(server.addresses["http"], "http").ready()
    server.stop()  # once more does no harm


def test_stop_kills_a_server_that_does_not_want_to_end(echo_repository: Path) -> None:
    with TritonServer(echo_repository, **ANY_PORTS) as server:
        group = server.pid
        assert group is not None
        os.kill(group, signal.SIGSTOP)  # a stopped process does not act on SIGTERM
        server.stop(timeout=0.5)
        assert processes_of_group(group) == []


def test_listens_on_localhost_only(echo_server: TritonServer) -> None:
    port = f"{echo_server.ports['http']:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()
    listening = [line.split()[1] for line in lines[1:] if line.split()[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{port}")] == [f"0100007F:{port}"]


def test_model_computes_with_the_threads_asked_for(tmp_path: Path) -> None:
    code = "import os\nassert os.environ['OMP_NUM_THREADS'] == '3', 'threads are wrong'\n"
    code += "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
    repository = write_echo_repository(tmp_path / "model_repository", code)
    with TritonServer(repository, threads=3, **ANY_PORTS) as server:
        assert server.pid


def test_repository_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model named nextitem: run 'nextitem export' first"):
        TritonServer(tmp_path).start()
    with pytest.raises(UserError, match="nowhere holds no model"):
        TritonServer(tmp_path / "nowhere").start()


def test_taken_port_is_named_before_anything_starts(echo_repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = TritonServer(echo_repository, http_port=0, grpc_port=port, metrics_port=0)
        with pytest.raises(UserError, match=rf"^port {port} is taken: choose another with --grpc-port$"):
            server.start()
        assert server.log_file is None


def test_ports_are_checked() -> None:
    first, second = free_ports(2)
    assert check_ports("127.0.0.1", {"http": first, "grpc": second}) == {"http": first, "grpc": second}
    chosen = check_ports("127.0.0.1", {"http": 0, "grpc": 0, "metrics": first})
    assert chosen["metrics"] == first
    assert len(set(chosen.values())) == 3
    with pytest.raises(UserError, match=f"port {first} is given twice"):
        check_ports("127.0.0.1", {"http": first, "grpc": first})
    with pytest.raises(UserError, match="--http-port 70000 is not a port"):
        check_ports("127.0.0.1", {"http": 70000})
    with pytest.raises(UserError, match=r"cannot listen on --host 192\.0\.2\.1"):
        check_ports("192.0.2.1", {"http": first})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module\n", "model 'nextitem': ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "class TritonPythonModel:\n    def initialize(self, args):\n        raise ValueError('weights are gone')\n"
            "    def execute(self, requests):\n        return []\n",
            "model 'nextitem': ValueError: weights are gone",
        ),
    ],
)
def test_broken_model_gives_its_reason_in_one_line(tmp_path: Path, code: str, reason: str) -> None:
    repository = write_echo_repository(tmp_path / "model_repository", code)
    server = TritonServer(repository, log_file=tmp_path / "log" / "triton.log", **ANY_PORTS)
    with pytest.raises(UserError) as error, server:
        pass
    assert str(error.value) == f"Triton stopped: {reason} (log: {tmp_path}/log/triton.log)"
    assert "successfully" not in server.log_text(), "the whole log is kept"
    assert "failed to load" in server.log_text()


def test_broken_configuration_gives_its_reason(echo_repository: Path) -> None:
    (echo_repository / "nextitem" / "config.pbtxt").write_text("backend: {{")
    server = TritonServer(echo_repository, **ANY_PORTS)
    reason = r"Triton stopped: Poll failed for model directory 'nextitem': .*config\.pbtxt"
    with pytest.raises(UserError, match=reason), server:
        pass
    assert server.log_file is not None
    assert server.log_file.is_file(), "the error names the log, so it stays"
    server.log_file.unlink()
    server.log_file.parent.rmdir()


def test_reason_of_a_log() -> None:
    noise = 'E1121 22:02:35.523027 4507 server.cc:241] "CudaDriverHelper has not been initialized."'
    info = "I1121 22:02:37.267264 4507 model_lifecycle.cc:839] \"successfully loaded 'echo'\""
    end = "error: creating server: Internal - failed to load all models"
    shape = 'E1121 22:02:37.267480 4507 model_repository_manager.cc:703] "Invalid argument: inconsistent shape"'
    port = "error: failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use"
    assert failure_reason("\n".join([noise, info])) is None
    assert failure_reason("\n".join([noise, info, end])) == end
    assert failure_reason("\n".join([noise, info, shape, end])) == "Invalid argument: inconsistent shape"
    assert failure_reason("\n".join([shape, port])) == port
    assert [is_notable(line) for line in (noise, info, shape)] == [False, False, True]


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, find in (
        ("NEXTITEM_TRITONSERVER", binaries.tritonserver),
        ("NEXTITEM_PERF_ANALYZER", binaries.perf_analyzer),
    ):
        monkeypatch.setenv(variable, str(tmp_path / "absent"))
        with pytest.raises(UserError, match=f"{variable} names .*absent, which is not a program"):
            find(tmp_path)


def test_a_server_of_the_system_is_started_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("NEXTITEM_TRITONSERVER", str(program))
    found = binaries.tritonserver(tmp_path / "work")
    assert found.command == [str(program)]
    assert found.environment == dict(os.environ)
    assert not (tmp_path / "work").exists()


SERVE = """
import sys
from serving.server import TritonServer, serve_forever
ports = [int(port) for port in sys.argv[2:]]
sys.exit(serve_forever(TritonServer(sys.argv[1], "127.0.0.1", *ports)))
"""


def start_serving(repository: Path) -> tuple[subprocess.Popen[str], list[int], int]:
    """A Python that serves until it is told to stop, its ports, and the process id of its tritonserver."""
    ports = free_ports(3)
    command = [sys.executable, "-c", SERVE, str(repository), *map(str, ports)]
    # Logs that outlive a violent end go where pytest clears them away.
    environment = {**os.environ, "TMPDIR": str(repository.parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    expected = dict(zip(("http", "grpc", "metrics"), ports, strict=True))
    assert lines == [f"{name:8} 127.0.0.1:{port}\n" for name, port in expected.items()]
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    names = [(Path("/proc") / child / "cmdline").read_text() for child in children]
    assert [("tritonserver" in name, "serving.edge" in name) for name in names] == [(True, False), (False, True)]
    return process, ports, int(children[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_forever_ends_cleanly(echo_repository: Path, number: signal.Signals) -> None:
    process, ports, server = start_serving(echo_repository)
    assert NextItemClient(f"127.0.0.1:{ports[1]}").ready()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert "Traceback" not in errors
    assert "CUDA" not in errors, "the noise of a machine without a GPU stays in the log"
    assert processes_of_group(server) == []


def test_serve_forever_says_so_when_the_server_dies(echo_repository: Path) -> None:
    process, _, server = start_serving(echo_repository)
    os.kill(server, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "UserError: Triton stopped: it ended by signal 9" in errors
    assert wait_until(lambda: processes_of_group(server) == [])


def test_server_dies_with_a_python_that_is_killed(echo_repository: Path) -> None:
    process, _, server = start_serving(echo_repository)
    options = Path(f"/proc/{server}/cmdline").read_text().split("\0")
    (path,) = (option.partition("unix:")[2] for option in options if "unix:" in option)
    assert Path(path).is_socket()
    process.kill()
    process.communicate()
    assert wait_until(lambda: processes_of_group(server) == [])
    assert not Path(path).exists()
