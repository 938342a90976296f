"""Load on a running server, what its clients see, and the CPU time that all of its processes take.

CPU time is read from ``/proc`` for every process of the server's group before perf_analyzer starts and after it ends,
and divided by the requests that Triton says it has answered between: warm-up and all windows are in both.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from serving import MODEL
from serving.address import Address, ask_http
from serving.binaries import Program
from serving.loadtest import WINDOWS, measure
from serving.server import TritonServer

_TICKS = os.sysconf("SC_CLK_TCK")
# perf_analyzer's words when nothing was answered in a window.
_TOO_SHORT = "larger time window"
FEWEST = 9


@dataclass(frozen=True)
class Load:
    """How a server is driven.

    Attributes
    ----------
    name : str
        What it is called in the results: ``"c4"``, ``"b128"``, ``"r200"``.
    data : Path
        Requests for perf_analyzer.
    concurrency, rate : int, optional
        Requests under way, or requests a second.
    batch : int
        Entries of the data that perf_analyzer puts into one request, for models that Triton batches.
    """

    name: str
    data: Path
    concurrency: int | None = None
    rate: int | None = None
    batch: int = 1


def drive(server: TritonServer, program: Program, protocol: str, load: Load, seconds: float) -> dict[str, float]:
    """Measure one load, for `seconds`, or for `FEWEST` requests when no request ends in a third of that.

    Returns
    -------
    dict of str to float
        ``req_per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms`` (of the clients) and ``cpu_ms_per_req`` (of the server).
    """
    window = ["--measurement-mode", "time_windows", "--measurement-interval", str(round(seconds * 1000 / WINDOWS))]
    try:
        return _measure(server, program, protocol, load, window)
    except UserError as error:
        if _TOO_SHORT not in str(error):
            raise
    return drive_requests(server, program, protocol, load, FEWEST)


def drive_requests(
    server: TritonServer, program: Program, protocol: str, load: Load, requests: int
) -> dict[str, float]:
    """As `drive`, for a number of requests, however long they take."""
    count = str(-(-requests // WINDOWS))
    window = ["--measurement-mode", "count_windows", "--measurement-request-count", count]
    return _measure(server, program, protocol, load, window)


def _measure(server: TritonServer, program: Program, protocol: str, load: Load, window: list[str]) -> dict[str, float]:
    assert server.pid is not None
    # Without a version perf_analyzer looks for one whose statistics moved, and fails when requests are slow.
    window = [*window, "-x", "1", *(["-b", str(load.batch)] if load.batch > 1 else [])]
    cpu, answered = cpu_seconds(server.pid), requests_answered(server.addresses["http"])
    row = measure(program, server.addresses[protocol], protocol, load.data, window, load.concurrency, load.rate)
    cpu, answered = cpu_seconds(server.pid) - cpu, requests_answered(server.addresses["http"]) - answered
    row["req_per_s"] /= load.batch
    row["cpu_ms_per_req"] = 1000 * cpu / max(1, answered)
    return {name: row[name] for name in ("req_per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_req")}


def cpu_seconds(group: int, proc: Path = Path("/proc")) -> float:
    """CPU seconds, user and system, that the processes of a group have taken so far.

    Parameters
    ----------
    group : int
        The process group.
    proc : Path
        The process file system.
    """
    total = 0
    for name in filter(str.isdigit, os.listdir(proc)):
        # A process may end while it is being read.
        with contextlib.suppress(OSError):
            total += _ticks((proc / name / "stat").read_text(), group)
    return total / _TICKS


def _ticks(stat: str, group: int) -> int:
    """User and system ticks in a line of ``/proc/<pid>/stat``, if the process is of the group."""
    # The program's name, in brackets, may hold anything.
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if int(fields[2]) == group else 0


def requests_answered(address: str) -> int:
    """How many requests to the model ``nextitem`` Triton has answered, by its own statistics."""
    return count_of(ask_http(Address.parse(address, "http"), "GET", f"/v2/models/{MODEL}/stats")[1])


def count_of(statistics: Mapping[str, Any]) -> int:
    """The requests in Triton's statistics, over all versions of the model; refused ones are answered too."""
    versions: Sequence[Mapping[str, Any]] = statistics["model_stats"]
    kinds = [version["inference_stats"][kind] for version in versions for kind in ("success", "fail")]
    return sum(int(kind.get("count", 0)) for kind in kinds)
