"""Requests a second, latency and CPU time of serving: nextitem beside stock merlin-systems, on the same sessions.

    python -m benchmarks.serving [--items 10000] [--clients 1,4,16] [--protocols grpc,http] [--engines ...] [--json]

Trains nothing. For each size of catalogue it makes sessions (`benchmarks.server.data`), fits nextitem's workflow and a
stock one of the same features, and puts one model of random weights behind both (width 64, 2 layers, 4 heads, 20
events), with the counts of pairs of items that ``nextitem train`` adds, unless ``--no-counts`` leaves them out. Then
each engine (`benchmarks.server`) is served on this machine, one after the other, and driven by NVIDIA's perf_analyzer:
one session a request at each number of clients, 128 sessions a request at one client, and, for nextitem with up to
100,000 items, 200 requests a second whatever the server does. Client and server share the machine. CPU is that of all
of the server's processes, divided by the requests that Triton counted.

``--json`` prints a line a catalogue: ``{"items": n, "nextitem" | "stock" | "model" | "noop": {"c1" | "c4" | "c16" |
"b128" | "r200": {"req_per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_req"}, "http": {the same}}, "check": what came
of comparing nextitem's and stock's recommendations for 50 sessions}``; loads outside ``http`` are over gRPC. An engine
that could not be measured has ``{"failure": why}``, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.server import ENGINES, MADE, MANY, PROTOCOLS
from benchmarks.server.check import Answer, ask, compare
from benchmarks.server.drive import FEWEST, Load, drive, drive_requests
from benchmarks.server.report import show
from benchmarks.server.repositories import write
from benchmarks.server.requests import LARGE, ONE, write_requests
from commands.options import numbers
from common.display import show_line
from common.errors import UserError
from common.progress import say, step
from serving import binaries
from serving.server import TritonServer

CATALOGUES = (10_000, 100_000, 1_000_000)
FEWEST_ITEMS, RATE, MOST_ITEMS_AT_RATE = 1000, 200, 100_000
_WARM_UP_REQUESTS = 60

Results = dict[str, Any]


def catalogue(items: int, options: argparse.Namespace, folder: Path) -> Results:
    """Measure all engines on one catalogue.

    Parameters
    ----------
    items : int
        How many items.
    options : argparse.Namespace
        The command line's.
    folder : Path
        For everything that is made; what is there already is used.
    """
    _build(items, folder, "stock" in options.engines, not options.no_counts)
    results: Results = {"items": items}
    answers: dict[str, dict[int, Answer]] = {}
    for engine in options.engines:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            try:
                results[engine] = _engine(engine, items, options, folder, Path(work), answers)
            except UserError as error:
                results[engine] = {"failure": str(error)}
                say(f"{engine} with {items:,} items: {error}")
    if len(answers) == 2:
        results["check"] = compare(answers["nextitem"], answers["stock"])
        say(f"nextitem and stock recommend {results['check']}")
    return results


def _build(items: int, folder: Path, stock: bool, counts: bool) -> None:
    """In a process of its own, which gives its memory back before anything is measured."""
    if (folder / MADE).is_file():
        made = json.loads((folder / MADE).read_text())
        if (made["items"], made["counts"]) == (items, counts) and made["stock"] >= stock:
            return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "benchmarks.server.build",
        str(folder),
        str(items),
        *([] if stock else ["--no-stock"]),
        *([] if counts else ["--no-counts"]),
    ]
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        raise UserError(f"the data and the model of {items:,} items could not be made: see above")


def _engine(
    engine: str,
    items: int,
    options: argparse.Namespace,
    folder: Path,
    work: Path,
    answers: dict[str, dict[int, Answer]],
) -> Results:
    repository = work / "model_repository"
    with step(f"{engine}: exporting"):
        write(engine, folder, repository)
        write_requests(engine, folder, work)
    program = binaries.perf_analyzer(work)
    # What Triton batches takes its 128 sessions as so many entries of the data.
    large = Load(f"b{MANY}", work / LARGE, concurrency=1, batch=MANY if engine == "model" else 1)
    loads = [*(Load(f"c{clients}", work / ONE, concurrency=clients) for clients in options.clients), large]
    results: Results = {}
    # nextitem as it is served, with its HTTP edge; the others are Triton's bare HTTP.
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, edge=engine == "nextitem") as server:
        if engine in ("nextitem", "stock"):
            answers[engine] = ask(engine, folder, server.addresses["grpc"])
        with step(f"{engine}: warming up"):
            drive_requests(server, program, "grpc", Load("warm-up", work / ONE, concurrency=4), _WARM_UP_REQUESTS)
            drive_requests(server, program, "grpc", large, FEWEST)
        for protocol in options.protocols:
            found: Results = {}
            todo = list(loads)
            if engine == "nextitem" and items <= MOST_ITEMS_AT_RATE and protocol == "grpc":
                todo.append(Load(f"r{RATE}", work / ONE, rate=RATE))
            with step(f"{engine}, {items:,} items, {protocol}", total=len(todo)) as bar:
                for load in todo:
                    row = drive(server, program, protocol, load, options.seconds)
                    found[load.name] = {name: round(value, 4) for name, value in row.items()}
                    bar.say(f"{row['req_per_s']:.0f} requests/s, p99 {row['p99_ms']:.1f} ms at {load.name}")
                    bar.advance()
            results |= found if protocol == "grpc" else {protocol: found}
    return results


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", default=",".join(map(str, CATALOGUES)), help="sizes of the catalogue")
    parser.add_argument("--clients", default="1,4,16", help="requests under way at a time")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS), help="some of grpc,http")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--seconds", type=float, default=9.0, help="of each measurement, without its start")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="keeps data and models there, until code that makes them changes"
    )
    parser.add_argument("--no-counts", action="store_true", help="a model that is a network alone")
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")
    options = parser.parse_args(arguments)
    options.items, options.clients = numbers("--items", options.items), numbers("--clients", options.clients)
    for name, known in (("engines", ENGINES), ("protocols", PROTOCOLS)):
        chosen = list(dict.fromkeys(getattr(options, name).split(",")))
        for one in chosen:
            if one not in known:
                raise UserError(f"--{name}: there is no '{one}'; there are {', '.join(known)}")
        setattr(options, name, chosen)
    if min(options.items) < FEWEST_ITEMS:
        raise UserError(f"--items: give at least {FEWEST_ITEMS:,}")
    if options.seconds < 1:
        raise UserError("--seconds must be at least 1")
    return options


def main() -> int:
    """Measure and print; returns the exit code."""
    options = _options()
    with tempfile.TemporaryDirectory() as work:
        binaries.perf_analyzer(Path(work))  # before an hour of work, not after it
    busy = os.getloadavg()[0]
    if busy > (os.cpu_count() or 1) / 4:
        say(f"The machine is busy (load {busy:.1f}): what follows is slower than it could be, CPU time hardly")
    failed = False
    with tempfile.TemporaryDirectory(prefix="nextitem-benchmark-") as scratch:
        for items in options.items:
            folder = (options.data or Path(scratch)) / f"items-{items}"
            results = catalogue(items, options, folder)
            failed = failed or any("failure" in results[engine] for engine in options.engines)
            if options.json:
                show_line(json.dumps(results))
            else:
                show(results)
            if not options.data:
                shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as mistake:
        say(str(mistake))
        sys.exit(mistake.exit_code)
