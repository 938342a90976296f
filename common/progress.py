"""Progress for people: bars in a terminal, one line a step elsewhere, always on standard error.

Standard output belongs to results, so ``--json`` can be piped whatever the progress says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Show no steps for a while: those inside a step that has a bar of its own."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


class Bar:
    """A step that is under way: `advance` it, and `say` what is known so far."""

    def __init__(self, progress: Progress | None, total: float | None, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, note="") if progress else None
        self.note = ""

    def advance(self, amount: float = 1) -> None:
        """Count `amount` more units as done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, amount)

    def say(self, note: str) -> None:
        """Show a short note behind the bar; the last one also ends the step's line."""
        self.note = note
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, note=note)


@contextmanager
def step(description: str, total: float | None = None, quiet: bool = False) -> Iterator[Bar]:
    """Show one step of work.

    Parameters
    ----------
    description : str
        What is being done, in a few words.
    total : float, optional
        Units of work, when they are known; without it the bar is a spinner.
    quiet : bool
        Show nothing at all.

    Yields
    ------
    Bar
        The handle to report through.
    """
    if quiet or _quiet.get():
        yield Bar(None, total, description)
        return
    began = time.perf_counter()
    if console.is_terminal:
        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()] if total else []
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True) as progress:
            bar = Bar(progress, total, description)
            yield bar
    else:
        bar = Bar(None, total, description)
        yield bar
    seconds = time.perf_counter() - began
    note = f", {bar.note}" if bar.note else ""
    console.print(f"{description}: {seconds:.1f} s{note}", markup=False, soft_wrap=True)


def say(line: str) -> None:
    """Print one line for a person to standard error."""
    console.print(line, markup=False, soft_wrap=True)
