"""Run an engine in a process of its own, and watch what it takes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it comes with dask.distributed

_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Measured:
    """What one run of an engine took.

    Attributes
    ----------
    engine, events : str, int
        Which engine, on how many events.
    wall_s, cpu_s : float or None
        Seconds of the job without starting Python and importing; CPU seconds are user and system, with those of child
        processes. None when it did not end.
    peak_gib : float
        The most memory at any time, imports too: of the process as the kernel counts it, or of the process with its
        children as sampled ten times a second, whichever is more.
    settings : str
        Versions and threads.
    failure : str
        Why there is no result, in one line; empty when there is one.
    timed_out, missing : bool
        Whether it was stopped at the limit, or is not installed.
    """

    engine: str
    events: int
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_gib: float = 0.0
    settings: str = ""
    failure: str = ""
    timed_out: bool = False
    missing: bool = False

    def as_json(self) -> dict[str, object]:
        """What ``--json`` shows of it."""
        shown: dict[str, object] = {
            "engine": self.engine,
            "events": self.events,
            "wall_s": _rounded(self.wall_s),
            "cpu_s": _rounded(self.cpu_s),
            "peak_gib": _rounded(self.peak_gib),
        }
        return shown | ({"timed_out": True} if self.timed_out else {})


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def run(engine: str, events: int, folder: Path, out: Path, limit_s: float) -> Measured:
    """Run one engine on the events of a folder.

    Parameters
    ----------
    engine : str
        One of `benchmarks.engines.ENGINES`.
    events : int
        How many events the folder holds.
    folder, out : Path
        Where the events are, and a folder for the output, which is made.
    limit_s : float
        Seconds after which the engine and its children are stopped.
    """
    out.mkdir(parents=True)
    # Another engine's output on its way to the disk must not slow this one down.
    os.sync()
    with tempfile.TemporaryDirectory() as scratch:
        result, log = Path(scratch) / "result.json", Path(scratch) / "log"
        command = [sys.executable, "-m", "benchmarks.engines", engine, *map(str, (folder, out, result))]
        with log.open("wb") as stream:
            child = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
            try:
                peak = _watch(child, limit_s)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if peak.timed_out:
            why = f"stopped after {limit_s:.0f} s"
            return Measured(engine, events, peak_gib=peak.gib, failure=why, timed_out=True)
        if not result.exists():
            lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {child.returncode}"]
            return Measured(engine, events, peak_gib=peak.gib, failure=lines[-1][:300])
        found = json.loads(result.read_text())
    if "missing" in found:
        return Measured(engine, events, failure=f"{found['missing']} is not installed (make install-dev)", missing=True)
    found["peak_gib"] = max(found["peak_gib"], peak.gib)
    return Measured(engine, events, **found)


@dataclass
class _Peak:
    gib: float = 0.0
    timed_out: bool = False


def _watch(child: subprocess.Popen[bytes], limit_s: float) -> _Peak:
    peak, end = _Peak(), time.monotonic() + limit_s
    process = psutil.Process(child.pid)
    while child.poll() is None:
        if time.monotonic() > end:
            peak.timed_out = True
            return peak
        held = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    held += one.memory_info().rss
        peak.gib = max(peak.gib, held / 2**30)
        time.sleep(_SAMPLE_S)
    return peak
