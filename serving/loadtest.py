"""Measure a running server with NVIDIA's perf_analyzer and real sessions.

    rows = loadtest("127.0.0.1:8001", read_events("events.csv"), concurrencies=(1, 4, 16))
    rows[0]     # {"concurrency": 1, "req_per_s": 812.4, "p50_ms": 1.2, "p95_ms": 1.4, "p99_ms": 1.9, "errors": 0}

Each request carries one session, whole and as it is; the sessions are sent in turn. Client and server share the
machine unless `url` says otherwise, so both are in the figures.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.progress import step
from serving import MODEL, binaries
from serving.client import NextItemClient, server_reason
from serving.columns import Column, convert_events

# perf_analyzer measures windows until three agree. Three windows of a third of the requests each, and any spread
# between them accepted, is one measurement of a known size. (`--request-count` ends on a whole second whatever the
# requests took, which made a server that answers 2,200 requests a second look like 500.)
WINDOWS = 3
WARM_UP_SESSIONS = 20
PROBE_EVENTS = 2000


def loadtest(
    url: str,
    events: Mapping[str, Column],
    protocol: str = "grpc",
    concurrencies: Sequence[int] = (1, 4, 16),
    requests: int = 1500,
    session: str | None = None,
    max_sessions: int = 1000,
    timeout: float = 600.0,
) -> list[dict[str, float]]:
    """Load a server at each concurrency in turn.

    Parameters
    ----------
    url : str
        ``host:port`` of the protocol's port.
    events : mapping of str to sequence
        Raw event columns of any number of sessions, as for `NextItemClient.recommend`.
    protocol : str
        ``"grpc"`` or ``"http"``.
    concurrencies : sequence of int
        Requests under way at a time.
    requests : int
        At least so many requests are measured at each concurrency; a measurement takes three seconds or longer.
    session : str, optional
        The column that tells the sessions apart. By default the server is asked: it is a column whose values come
        back as the answer's sessions.
    max_sessions : int
        Use the first so many sessions.
    timeout : float
        Seconds for one concurrency.

    Returns
    -------
    list of dict
        One row a concurrency, in the order given: ``concurrency``, ``req_per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms``
        (client side, milliseconds) and ``errors``, which is 0: a measurement in which a request fails is an error.

    Raises
    ------
    UserError
        When there is no perf_analyzer or it cannot run here, when no server answers, when the events do not fit
        the model, or when the server refuses a request: the measurement ends at the first that fails.
    """
    if not concurrencies or min(concurrencies) < 1:
        raise UserError(f"concurrencies are {list(concurrencies)}: give one or more numbers from 1")
    if requests < 1 or max_sessions < 1:
        raise UserError("requests and sessions must be at least 1")
    with tempfile.TemporaryDirectory(prefix="nextitem-loadtest-") as work, NextItemClient(url, protocol) as client:
        program = binaries.perf_analyzer(Path(work))
        columns = convert_events(events, client.inputs)
        session = session or _session_column(client, columns)
        if session not in columns:
            raise UserError(f"the model takes no column {session!r}: its columns are {', '.join(columns)}")
        sessions = list(split_sessions(columns, session, max_sessions))
        # Both warms the model up and lets its own words reach the user if the events do not suit it.
        for columns_of_one in sessions[:WARM_UP_SESSIONS]:
            client.recommend(columns_of_one)
        data = Path(work) / "sessions.json"
        data.write_text(json.dumps(input_data(sessions), ensure_ascii=False), encoding="utf-8")
        rows: list[dict[str, float]] = []
        with step("Load test with perf_analyzer", total=len(concurrencies)) as bar:
            for concurrency in concurrencies:
                report = Path(work) / f"report-{len(rows)}.csv"
                options = ["-m", MODEL, "-u", client.url, "-i", protocol, "--input-data", str(data), "-f", str(report)]
                options += ["--concurrency-range", str(concurrency), "--max-threads", str(concurrency)]
                options += ["--measurement-mode", "count_windows"]
                options += ["--measurement-request-count", str(-(-requests // WINDOWS))]
                options += ["--max-trials", str(WINDOWS), "--stability-percentage", "999"]
                _run(program, options, concurrency, timeout)
                row = read_report(report, concurrency)
                # It would have ended at the first request that fails. (The server's own count of failures leaves
                # out those that a Python model answers with an error, so it is no second opinion.)
                rows.append(row | {"errors": 0})
                bar.say(f"{row['req_per_s']:.0f} requests/s at {concurrency}")
                bar.advance()
    return rows


def _session_column(client: NextItemClient, columns: Mapping[str, NDArray[Any]]) -> str:
    """The column by which the server told the sessions of the first events apart."""
    some = {name: column[:PROBE_EVENTS] for name, column in columns.items()}
    # A user's id comes back once for each session, where a gap in time divides the user's events.
    sessions = list(dict.fromkeys(client.recommend(some).session_id))
    for name, column in some.items():
        values = [value.decode() if isinstance(value, bytes) else value for value in dict.fromkeys(column.tolist())]
        if values == sessions:
            return name
    raise UserError("no column of the events tells the sessions apart as the server does: name it")


def split_sessions(columns: Mapping[str, NDArray[Any]], session: str, limit: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Split columns of events into those of each session, in the order in which sessions first appear.

    Parameters
    ----------
    columns : mapping of str to ndarray
        Name -> [N].
    session : str
        The column with the session ids.
    limit : int
        End after so many sessions.

    Yields
    ------
    dict of str to ndarray
        The same names -> [events of the session], in their order.
    """
    positions: dict[Any, list[int]] = {}
    for position, value in enumerate(columns[session].tolist()):
        positions.setdefault(value, []).append(position)
    for rows in list(positions.values())[:limit]:
        yield {name: column[rows] for name, column in columns.items()}


def input_data(sessions: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """The sessions as perf_analyzer's ``--input-data``: one request a session, each tensor with its own shape.

    Numbers are given as the bytes of the tensor: as JSON numbers, a float column would need a point in every value
    and could not hold NaN.
    """
    return {"data": [{name: _tensor(column) for name, column in session.items()} for session in sessions]}


def _tensor(column: NDArray[Any]) -> dict[str, Any]:
    content: Any
    if column.dtype == np.object_:
        content = [value.decode("utf-8", errors="replace") for value in column]
    else:
        content = {"b64": base64.b64encode(np.ascontiguousarray(column).tobytes()).decode()}
    return {"content": content, "shape": [len(column)]}


def _run(program: binaries.Program, options: Sequence[str], concurrency: int, timeout: float) -> None:
    command = [*program.command, *options]
    try:
        done = subprocess.run(
            command, env=program.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"no measurement at concurrency {concurrency} in {timeout:g} s: ask for fewer --requests"
        ) from (error)
    except OSError as error:
        raise UserError(f"{command[0]} cannot run here ({error.strerror}): {_remedy()}") from error
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    refused = [found[1] for line in lines if (found := re.match(r"Thread \[\d+\] had error: (.*)", line))]
    if refused:
        raise UserError(f"the server refused a request at concurrency {concurrency}: {server_reason(refused[0])}")
    reason = lines[-1] if lines else f"it ended with code {done.returncode}"
    # The loader's own exit code, or its words: a newer glibc or a library is missing.
    if done.returncode in (126, 127) or any("GLIBC" in line or "shared librar" in line for line in lines):
        raise UserError(f"{command[0]} cannot run here ({lines[0] if lines else reason}): {_remedy()}")
    raise UserError(f"perf_analyzer failed at concurrency {concurrency}: {reason}")


def _remedy() -> str:
    return "use the one of 'make install' (glibc 2.36 or newer), or name another in NEXTITEM_PERF_ANALYZER"


def read_report(path: Path, concurrency: int) -> dict[str, float]:
    """Read the row of one concurrency from perf_analyzer's csv report, which counts in microseconds.

    Parameters
    ----------
    path : Path
        The file that ``-f`` named.
    concurrency : int
        Whose row.

    Returns
    -------
    dict of str to float
        ``concurrency``, ``req_per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms``.

    Raises
    ------
    UserError
        When the report is missing or has no such row.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                if int(row["Concurrency"]) == concurrency:
                    latencies = {f"p{p}_ms": float(row[f"p{p} latency"]) / 1000 for p in (50, 95, 99)}
                    return {"concurrency": concurrency, "req_per_s": float(row["Inferences/Second"]), **latencies}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"perf_analyzer's report cannot be read ({error!r}): use perf_analyzer 2.51") from error
    raise UserError(f"perf_analyzer reported nothing for concurrency {concurrency}: ask for more --requests")
