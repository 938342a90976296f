"""Work in processes of their own, so that a crash, a hang or a flood of memory costs one result and not all."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def _work(function: Callable[[str], Any], name: str, memory: int, answer: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    try:
        answer.send((function(name), None))
    except BaseException as error:  # everything that happens to it is its result
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer.send((None, f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]))


def each(
    function: Callable[[str], Any], names: Iterable[str], jobs: int, seconds: float, memory: int = 8 << 30
) -> Iterator[tuple[str, Any, str | None]]:
    """Call a function for each name, in child processes that share what is already imported.

    Parameters
    ----------
    function : callable
        Takes a name and returns something that can be sent between processes.
    names : iterable of str
        What to call it with.
    jobs : int
        Processes at a time.
    seconds, memory : float, int
        What one call may use; memory in bytes of address space.

    Yields
    ------
    str
        The name, in the order in which they end.
    object
        The result, or None.
    str or None
        Why there is none.
    """
    context = multiprocessing.get_context("fork")
    waiting = list(names)[::-1]
    running: dict[Any, tuple[str, Any, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop()
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(function, name, memory, theirs), daemon=True)
            process.start()
            theirs.close()
            running[mine] = (name, process, time.monotonic() + seconds)
        for pipe in multiprocessing.connection.wait(list(running), timeout=1.0):
            name, process, _ = running.pop(pipe)
            try:
                result, error = pipe.recv()  # type: ignore[union-attr]
            except EOFError:
                result, error = None, "the process died (out of memory, or a crash)"
            process.join(5)
            yield name, result, error
        for pipe, (name, process, end) in list(running.items()):
            if time.monotonic() > end:
                del running[pipe]
                process.kill()
                process.join(5)
                yield name, None, f"took more than {seconds:.0f} s"
