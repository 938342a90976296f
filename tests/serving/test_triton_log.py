"""Triton's log as records, and what a serving process prints for a log collector."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.progress import console
from serving.health import check_health
from serving.logs import Follower, in_format
from serving.ports import free_ports
from serving.stubs import count_stubs
from serving.triton_log import parse, records

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SERVE = """
import sys
from serving.logs import in_format
from serving.server import TritonServer, serve_forever
with in_format("json"):
    server = TritonServer(sys.argv[1], "127.0.0.1", *map(int, sys.argv[3:]), watch=sys.argv[2] == "watch")
    sys.exit(serve_forever(server, log_format="json"))
"""


def test_a_line() -> None:
    assert parse('W1122 10:30:02.123456 17 model.cc:12] "text"\n', NOW) == {
        "time": "2026-11-22T10:30:02.123Z",
        "level": "warning",
        "source": "triton",
        "message": "text",
    }


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('I0101 00:00:00.000000 1 a.cc:1] "x"', "level", "info"),
        ('E0101 00:00:00.000000 1 a.cc:1] "x"', "level", "error"),
        ('F0101 00:00:00.000000 1 a.cc:1] "x"', "level", "critical"),
        ('E1122 10:30:02.1 17 counters.py:175] "request failed"', "source", "nextitem"),
        (r'E1122 10:30:02 17 a.cc:1] "a \"quoted\" word\nand a \\ line"', "message", 'a "quoted" word\nand a \\ line'),
        (r'E1122 10:30:02 17 a.cc:1] "not \xJSON"', "message", r"not \xJSON"),
        ("E1122 10:30:02 17 a.cc:1] no quotes", "message", "no quotes"),
        # The year is the latest that does not lie in the future.
        ('I1122 12:30:00.000000 1 a.cc:1] "x"', "time", "2026-11-22T12:30:00.000Z"),
        ('I1231 23:59:59.999999 1 a.cc:1] "x"', "time", "2025-12-31T23:59:59.999Z"),
    ],
)
def test_parts_of_a_line(line: str, field: str, value: str) -> None:
    found = parse(line, NOW)
    assert found is not None
    assert found[field] == value


def test_new_year_and_leap_day() -> None:
    def when(line: str, now: datetime) -> str | None:
        found = parse(line, now)
        return found and found["time"]

    midnight = datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    assert when('I0101 00:00:00.000001 1 a.cc:1] "x"', midnight) == "2027-01-01T00:00:00.000Z", "its clock runs before"
    assert when('I0229 08:00:00.000000 1 a.cc:1] "x"', datetime(2028, 3, 1, tzinfo=UTC)) == "2028-02-29T08:00:00.000Z"
    assert when('I0230 08:00:00.000000 1 a.cc:1] "x"', NOW) is None


@pytest.mark.parametrize("line", ["", "Signal (15) received.", "I1122 no time here", "| Model | Version |", "error: x"])
def test_lines_of_another_form(line: str) -> None:
    assert parse(line, NOW) is None


def test_texts_over_several_lines_stay_together() -> None:
    log = """\
I1122 10:30:00.000000 1 server.cc:1]\x20
+-------+
| Model |
+-------+

I1122 10:30:01.000000 1 server.cc:2] "up"
Traceback (most recent call last):
  File "model.py", line 1
ValueError: no
W1122 10:30:02.000000 1 server.cc:3] "on"
[\x1b[1;33mWARN\x1b[0m] a library's
"""
    found = records(log.splitlines(keepends=True), NOW)
    assert [(one["level"], one["source"], one["message"]) for one in found] == [
        ("info", "triton", "+-------+\n| Model |\n+-------+"),
        ("info", "triton", "up"),
        ("error", "triton", 'Traceback (most recent call last):\n  File "model.py", line 1\nValueError: no'),
        ("warning", "triton", "on"),
        ("info", "triton", "[WARN] a library's"),
    ]
    assert [one["time"] for one in found[1:3]] == ["2026-11-22T10:30:01.000Z", "2026-11-22T12:00:00.000Z"]
    assert records([], NOW) == []


def test_a_follower_waits_for_the_file_and_for_whole_lines(tmp_path: Path) -> None:
    taken: list[str] = []
    follower = Follower(lambda: tmp_path / "log", taken.extend)
    with follower:
        follower.poll()
        with (tmp_path / "log").open("w") as log:
            log.write("first\nsec")
            log.flush()
            follower.poll()
            assert taken == ["first"]
            log.write("ond\nthird\nlast")
            log.flush()
            follower.poll()
            assert taken == ["first", "second", "third"]
            log.write(" of all\n")
        (tmp_path / "log").unlink()
    assert taken[3:] == ["last of all"], "what comes before the end is read even when the file is gone"


def test_a_follower_empties_a_file_that_grows_too_large(tmp_path: Path) -> None:
    taken: list[str] = []
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as log:
        follower = Follower(lambda: path, taken.extend, limit=10)
        log.write(b"0123456\n")
        follower.poll()
        assert path.stat().st_size == 8
        log.write(b"789\nnext")
        follower.poll()
        assert path.stat().st_size == 0
        log.write(b" one\n")
        follower.poll()
        log.write("gr\xfcn\n".encode("latin-1"))
        follower.poll()
        assert taken == ["0123456", "789", "next one", "gr\ufffdn"]
        follower.poll()
        assert len(taken) == 4


def test_in_json_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        console.print("for people")
        raise UserError("nothing to serve")

    with pytest.raises(SystemExit) as ended, in_format("json"):
        fail()
    assert ended.value.code == 2
    assert not console.quiet
    output, errors = capsys.readouterr()
    assert (json.loads(output)["level"], json.loads(output)["message"]) == ("error", "nothing to serve")
    assert errors == ""
    with pytest.raises(UserError, match="nothing"), in_format("text"):
        fail()
    with pytest.raises(UserError, match="choose text or json"), in_format("xml"):
        pass


@contextlib.contextmanager
def serving(repository: Path, watch: str = "") -> Iterator[tuple[subprocess.Popen[str], list[Any], dict[str, str]]]:
    """A Python that serves with JSON lines, those up to where it is ready, and its addresses."""
    command = [sys.executable, "-c", SERVE, str(repository), watch, *map(str, free_ports(3))]
    # Logs that outlive a violent end go where pytest clears them away.
    environment = {**os.environ, "TMPDIR": str(repository.parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1]["message"].startswith("ready: "):
                break
        yield process, lines, lines[-1]["addresses"]
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def children(pid: int, name: str) -> list[int]:
    """Process ids of the children with this name."""
    listed = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    return [child for child in listed if Path(f"/proc/{child}/comm").read_text().strip() == name]


def test_all_that_a_serving_process_prints_is_json(echo_repository: Path) -> None:
    with serving(echo_repository) as (process, lines, addresses):
        assert set(addresses) == {"http", "grpc", "metrics"}
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    lines += map(json.loads, output.splitlines())
    messages = [line["message"] for line in lines]
    assert "successfully loaded 'nextitem'" in messages, "Triton's whole log, from before it was ready"
    assert "All models are stopped, unloading models" in messages, "to after it was told to stop"
    assert messages[-1] == "stopped"
    assert {line["source"] for line in lines} == {"triton", "nextitem"}
    assert {line["level"] for line in lines} <= {"info", "warning", "error"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    assert len([message for message in messages if "| Status |" in message and "| READY  |" in message]) == 1


def test_a_server_whose_model_process_has_died_is_ended(echo_repository: Path) -> None:
    with serving(echo_repository) as (process, _, addresses):
        check_health(addresses["grpc"])
        (server,) = children(process.pid, "tritonserver")
        assert count_stubs(server) == (1, 0)
        (stub,) = children(server, "triton_python_b")
        os.kill(stub, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    last = json.loads(output.splitlines()[-1])
    assert (process.returncode, last["level"]) == (2, "error")
    assert last["message"].startswith("Triton was stopped: the process of its model ended by itself")


def test_a_version_that_does_not_load_is_no_reason_to_end(echo_repository: Path) -> None:
    with serving(echo_repository, "watch") as (process, _, addresses):
        time.sleep(5)  # Triton loads the echo model again when Python has put its byte code there
        folder = echo_repository / "nextitem" / "2"
        folder.mkdir()
        (folder / "model.py").write_text("raise ValueError('not today')\n")
        time.sleep(8)  # Triton tries, and the watch has looked more often than it is patient for
        assert process.poll() is None
        assert check_health(addresses["grpc"])["version"] == "1"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "failed to load 'nextitem' version 2: Internal: ValueError: not today" in output, "it was tried"


def test_nothing_is_known_of_a_process_that_is_gone() -> None:
    assert count_stubs(2**22 + 1) == (0, 0)
    assert count_stubs(os.getpid()) == (0, 0)
