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
from serving.security import http_headers

# perf_analyzer measures windows until three agree. Three windows of a third of the requests each, and any spread
# between them accepted, is one measurement of a known size. (`--request-count` ends on a whole second whatever the
# requests took, which made a server that answers 2,200 requests a second look like 500.)
WINDOWS = 3
# It asks for Triton's statistics around each window, and gives up when the model's did not move, which happens on a
# busy machine although requests were answered.
_NO_VERSION, _ATTEMPTS = "failed to find the requested model version", 3
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
    token: str | None = None,
    ca_file: Path | str | None = None,
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
    token, ca_file
        As of `NextItemClient`. perf_analyzer takes a token over HTTP only, and on its command line.

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
    with (
        tempfile.TemporaryDirectory(prefix="nextitem-loadtest-") as work,
        NextItemClient(url, protocol, token=token, ca_file=ca_file) as client,
    ):
        secured = _secured(client)
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
                window = [*secured, "--measurement-mode", "count_windows"]
                window += ["--measurement-request-count", str(-(-requests // WINDOWS))]
                place = f"https://{client.url}" if client.tls and client.protocol == "http" else client.url
                row = measure(program, place, client.protocol, data, window, concurrency=concurrency, timeout=timeout)
                # It would have ended at the first request that fails. (The server's own count of failures leaves
                # out those that a Python model answers with an error, so it is no second opinion.)
                rows.append(row | {"errors": 0})
                bar.say(f"{row['req_per_s']:.0f} requests/s at {concurrency}")
                bar.advance()
    return rows


def measure(
    program: binaries.Program,
    url: str,
    protocol: str,
    data: Path,
    window: Sequence[str],
    concurrency: int | None = None,
    rate: int | None = None,
    timeout: float = 600.0,
) -> dict[str, float]:
    """Measure once, with requests that are already written.

    Parameters
    ----------
    program : Program
        What `binaries.perf_analyzer` found.
    url, protocol : str
        Where the server is.
    data : Path
        perf_analyzer's ``--input-data`` (see `input_data`); the report is written beside it.
    window : sequence of str
        perf_analyzer's options that say how long each of the `WINDOWS` is, and any others.
    concurrency : int, optional
        Requests under way at a time. Either this or `rate`.
    rate : int, optional
        Requests that begin in a second, whatever the server does.
    timeout : float
        Seconds for all.

    Returns
    -------
    dict of str to float
        ``concurrency`` or ``rate``, ``req_per_s``, ``p50_ms``, ``p95_ms`` and ``p99_ms``.

    Raises
    ------
    UserError
        When perf_analyzer cannot run here, or at the first request that fails.
    """
    report = data.with_suffix(".csv")
    report.unlink(missing_ok=True)
    if concurrency is not None:
        value, column = concurrency, "Concurrency"
        load = ["--concurrency-range", str(concurrency), "--max-threads", str(concurrency)]
    else:
        value, column = rate or 1, "Request Rate"
        # Without --async a slow answer would delay the requests behind it, which would then look fast.
        load = ["--request-rate-range", str(value), "--max-threads", "16", "--async"]
    options = ["-m", MODEL, "-u", url, "-i", protocol, "--input-data", str(data), "-f", str(report)]
    options += [*load, *window, "--max-trials", str(WINDOWS), "--stability-percentage", "999"]
    for attempt in range(_ATTEMPTS):
        try:
            _run(program, options, f"{column.lower()} {value}", timeout)
            break
        except UserError as error:
            if _NO_VERSION not in str(error) or attempt == _ATTEMPTS - 1:
                raise
    return read_report(report, value, column)


def _secured(client: NextItemClient) -> list[str]:
    """perf_analyzer's options for what the client needs: a token, TLS."""
    options = []
    if client.token and client.protocol == "grpc":
        raise UserError("perf_analyzer shows no token over gRPC: load-test over HTTP, with --protocol http")
    if client.token:
        options += [part for name, value in http_headers(client.token).items() for part in ("-H", f"{name}:{value}")]
    if client.tls and client.protocol == "grpc":
        options += ["--ssl-grpc-use-ssl", "true"]
    if client.tls and client.ca_file:
        part = "grpc-root-certifications" if client.protocol == "grpc" else "https-ca-certificates"
        options += [f"--ssl-{part}-file", client.ca_file]
    return options


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


def _run(program: binaries.Program, options: Sequence[str], load: str, timeout: float) -> None:
    command = [*program.command, *options]
    try:
        done = subprocess.run(
            command, env=program.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"no measurement at {load} in {timeout:g} s: ask for fewer --requests") from (error)
    except OSError as error:
        raise UserError(f"{command[0]} cannot run here ({error.strerror}): {_remedy()}") from error
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    refused = [found[1] for line in lines if (found := re.match(r"Thread \[\d+\] had error: (.*)", line))]
    if refused:
        raise UserError(f"the server refused a request at {load}: {server_reason(refused[0])}")
    reason = lines[-1] if lines else f"it ended with code {done.returncode}"
    # The loader's own exit code, or its words: a newer glibc or a library is missing.
    if done.returncode in (126, 127) or any("GLIBC" in line or "shared librar" in line for line in lines):
        raise UserError(f"{command[0]} cannot run here ({lines[0] if lines else reason}): {_remedy()}")
    raise UserError(f"perf_analyzer failed at {load}: {reason}")


def _remedy() -> str:
    return "use the one of 'make install' (glibc 2.36 or newer), or name another in NEXTITEM_PERF_ANALYZER"


def read_report(path: Path, value: int, column: str = "Concurrency") -> dict[str, float]:
    """Read the row of one measurement from perf_analyzer's csv report, which counts in microseconds.

    Parameters
    ----------
    path : Path
        The file that ``-f`` named.
    value : int
        Which concurrency, or which rate.
    column : str
        ``"Concurrency"`` or ``"Request Rate"``.

    Returns
    -------
    dict of str to float
        ``concurrency`` or ``rate``, ``req_per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms``.

    Raises
    ------
    UserError
        When the report is missing or has no such row.
    """
    name = column.split()[-1].lower()
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                if float(row[column]) == value:
                    latencies = {f"p{p}_ms": float(row[f"p{p} latency"]) / 1000 for p in (50, 95, 99)}
                    return {name: value, "req_per_s": float(row["Inferences/Second"]), **latencies}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"perf_analyzer's report cannot be read ({error!r}): use perf_analyzer 2.51") from error
    raise UserError(f"perf_analyzer reported nothing for {name} {value}: ask for more --requests")
