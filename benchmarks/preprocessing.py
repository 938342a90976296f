"""Seconds and memory from ten million raw events to sessions: nextitem beside its peers, on the same work.

    python -m benchmarks.preprocessing [--events N] [--engines nextitem,polars] [--runs N] [--json]

Makes the events (`benchmarks.engines.data`) and runs nextitem's stage, Polars, DuckDB, pandas, stock NVTabular and, as
the floor, the mere reading of the files: the job is in `benchmarks.engines`, each engine's way of doing it in a file
there. Each runs in a process of its own, one at a time. Seconds are those of the job, without starting Python and
importing, for all alike; memory is that of the whole process and its children. Of several runs the one with the median
wall time is shown. What the engines wrote is then compared (`benchmarks.engines.check`); the exit code is 1 when work
differs or an engine fails.

Stock NVTabular gets fewer events and a time limit. On as many, nextitem and Polars run once more beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import ENGINES
from benchmarks.engines.measure import Measured, run
from common.display import show_json, show_line, show_table
from common.errors import UserError
from common.progress import say, step

FEWEST = 1000
_NVTABULAR, _BESIDE = "nvtabular", ("nextitem", "polars")


@dataclass
class Group:
    """Engines that were run on the same events, and what came of it."""

    events: int
    measured: list[Measured]
    verdicts: dict[str, str]


def compare(events: int, engines: list[str], folder: Path, limit_s: float, runs: int) -> Group:
    """Make the events, run the engines, and compare what they wrote.

    Parameters
    ----------
    events : int
        How many events.
    engines : list of str
        Names of engines, in the order in which they run.
    folder : Path
        Holds the events; they are made when they are not there.
    limit_s : float
        Seconds that one run may take.
    runs : int
        Runs of each engine, in turn.
    """
    data = folder / f"events-{events}"
    with step(f"Making {events:,} events"):
        _python("benchmarks.engines.data", str(data), str(events))
    found: dict[str, list[Measured]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for _ in range(runs):
            for engine in engines:
                if any(one.failure for one in found[engine]):
                    continue
                out = Path(scratch) / engine
                shutil.rmtree(out, ignore_errors=True)
                with step(f"{engine} on {events:,} events") as bar:
                    found[engine].append(run(engine, events, data, out, limit_s))
                    one = found[engine][-1]
                    bar.say(one.failure or f"{one.wall_s:.2f} s, {one.cpu_s:.2f} CPU s, {one.peak_gib:.2f} GiB")
        measured = [_median(of_engine) for of_engine in found.values()]
        verdicts = _verdicts([one.engine for one in measured if not one.failure], Path(scratch))
    return Group(events, measured, verdicts)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    if done.returncode and not done.stdout:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{arguments[0]} failed: {lines[-1]}")
    return done


def _median(runs: list[Measured]) -> Measured:
    for one in runs:
        if one.failure:
            return one
    return sorted(runs, key=lambda one: one.wall_s or 0.0)[(len(runs) - 1) // 2]


def _verdicts(engines: list[str], outputs: Path) -> dict[str, str]:
    """Every engine's work against that of one of them."""
    wrote = [engine for engine in engines if engine != "read"]
    if len(wrote) < 2:
        return {}
    reference = next((engine for engine in ("polars", "duckdb", "pandas") if engine in wrote), wrote[0])
    verdicts = {reference: "reference"}
    with step("Comparing what they wrote") as bar:
        for engine in wrote:
            if engine != reference:
                pair = [reference, str(outputs / reference), engine, str(outputs / engine)]
                verdicts[engine] = _python("benchmarks.engines.check", *pair).stdout.strip()
        bar.say(", ".join(f"{engine} {verdict}" for engine, verdict in verdicts.items()))
    return verdicts


def _show(group: Group) -> None:
    polars = next((one.wall_s for one in group.measured if one.engine == "polars"), None)
    rows = []
    for one in group.measured:
        if one.missing:
            continue
        if one.wall_s is None:
            rows.append([one.engine, "", "", f"{one.peak_gib:.2f}", "", one.failure])
            continue
        ratio = f"{one.wall_s / polars:.2f}x" if polars else ""
        verdict = group.verdicts.get(one.engine, "")
        rows.append([one.engine, f"{one.wall_s:.2f}", f"{one.cpu_s:.2f}", f"{one.peak_gib:.2f}", ratio, verdict])
    show_table(f"{group.events:,} events to sessions", ("", "wall s", "CPU s", "peak GiB", "to Polars", "work"), rows)
    walls = {one.engine: one.wall_s for one in group.measured if one.wall_s}
    if {"nextitem", _NVTABULAR} <= set(walls):
        show_line(f"Stock NVTabular takes {walls[_NVTABULAR] / walls['nextitem']:.1f} times as long as nextitem.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000, help="10,000,000 by default")
    parser.add_argument("--nvtabular-events", type=int, default=1_000_000, help="for stock NVTabular, if less")
    parser.add_argument("--limit-s", type=float, default=600.0, help="seconds that one run of an engine may take")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--runs", type=int, default=1, help="runs of each engine")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="keeps the events there, for the next time")
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")
    options = parser.parse_args()
    options.engines = list(dict.fromkeys(options.engines.split(",")))
    for name in options.engines:
        if name not in ENGINES:
            raise UserError(f"--engines: there is no engine '{name}'; there are {', '.join(ENGINES)}")
    if min(options.events, options.nvtabular_events) < FEWEST:
        raise UserError(f"--events and --nvtabular-events: give at least {FEWEST:,}, or a window holds no session")
    if options.runs < 1 or options.limit_s <= 0:
        raise UserError("--runs and --limit-s must be above zero")
    return options


def _groups(options: argparse.Namespace, folder: Path) -> list[Group]:
    events, few, engines = options.events, min(options.events, options.nvtabular_events), options.engines
    if few == events or _NVTABULAR not in engines:
        return [compare(events, engines, folder, options.limit_s, options.runs)]
    peers = [engine for engine in engines if engine != _NVTABULAR]
    beside = [engine for engine in engines if engine in (*_BESIDE, _NVTABULAR)]
    small = compare(few, beside, folder, options.limit_s, options.runs)
    return [*([compare(events, peers, folder, options.limit_s, options.runs)] if peers else []), small]


def main() -> int:
    """Measure and print; returns the exit code."""
    options = _options()
    busy = os.getloadavg()[0]
    if busy > (os.cpu_count() or 1) / 4:
        say(f"The machine is busy (load {busy:.1f}): wall seconds will be too many, CPU seconds hardly")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        groups = _groups(options, folder)
    everything = [one for group in groups for one in group.measured]
    if options.json:
        # One entry an engine: that on the most events, which are the first.
        first = {one.engine: one for one in reversed(everything) if not one.failure or one.timed_out}
        show_json({"engines": [first[engine].as_json() for engine in options.engines if engine in first]})
    else:
        for group in groups:
            _show(group)
        show_line(
            "Seconds of the job, without starting Python and importing; memory of the whole process and its children."
        )
        told = {one.engine: one.settings for one in everything if one.settings}
        for engine, settings in told.items():
            show_line(f"{engine}: {settings}")
    for engine, why in {one.engine: one.failure for one in everything if one.failure}.items():
        say(f"{engine}: left out: {why}" if "not installed" in why else f"{engine}: {why}")
    differ = [(g, e, v) for g in groups for e, v in g.verdicts.items() if not v.startswith(("equal", "reference"))]
    for group, engine, verdict in differ:
        say(f"{engine} on {group.events:,} events: {verdict or 'could not be compared'}")
    failed = [one for one in everything if one.failure and not one.missing and not one.timed_out]
    return 1 if differ or failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as mistake:
        say(str(mistake))
        sys.exit(mistake.exit_code)
