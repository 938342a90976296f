"""Processes of a server: a group of their own, which ends with the Python that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from serving.edge.settings import EdgeSettings

# Executes what follows, after a prctl(PR_SET_PDEATHSIG, SIGTERM), which exec keeps: a Python that is killed outright
# does not leave a server behind. The signal comes when the starting thread ends, so it must not be a short-lived one.
_LAUNCH = (
    "import ctypes,os,sys; "
    "ctypes.CDLL(None).prctl(1, 15) if sys.argv[1] == 'main' and sys.platform == 'linux' else None; "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def launch(command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a process group of its own, which Ctrl-C in a terminal does not reach.

    Parameters
    ----------
    command : sequence of str
        An absolute path and arguments.
    environment : mapping of str to str
        All of it.
    log : binary file
        Receives both outputs.
    """
    thread = "main" if threading.current_thread() is threading.main_thread() else "other"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCH, thread, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        process_group=0,
        # Nobody else may open its socket file.
        umask=0o077,
    )


def launch_edge(settings: EdgeSettings, group: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the HTTP edge (see `serving.edge`), which ends when this process does.

    Parameters
    ----------
    settings : EdgeSettings
        Passed through a pipe: a token would show among the arguments.
    group : int
        The process group to be in.
    log : binary file
        Receives both outputs.
    """
    # Where this package is; nothing else of this Python's path is needed.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-P", "-m", "serving.edge"]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=group
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        # Left open: its end tells the edge that this process is gone.
        process.stdin.write(settings.to_line())
        process.stdin.flush()
    return process


def end(process: subprocess.Popen[bytes] | None, timeout: float) -> None:
    """Ask a process to end, and wait for that so many seconds at most."""
    if process is None:
        return
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
    if process.stdin is not None:
        process.stdin.close()


def end_group(group: int, patience: float = 3.0) -> None:
    """Wait for a process group to be empty, then kill what is left: a stub outlives its server for a moment."""
    deadline = time.monotonic() + patience
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
