"""Dynamic batching: what waits while the model computes is computed together next.

Triton's own batcher joins requests of one shape with a batch dimension. A request of raw events has as many rows as
events and becomes as many sessions as it holds, so sessions are put together here, where they are known.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")
_IDLE_S = 0.25


@dataclass
class _Job(Generic[Work, Result]):
    work: Work
    reply: Callable[[Result | Exception], None]


class Batcher(Generic[Work, Result]):
    """A thread that answers jobs, those that came meanwhile in one go.

    Parameters
    ----------
    answer : callable
        Several pieces of work -> as many results, in their order.
    size : callable
        How many sessions a piece of work has.
    max_size : int
        Sessions in one go; a larger piece of work goes alone.
    max_waiting : int
        Jobs that may wait; `submit` refuses more.
    meanwhile : callable
        Called after every batch, and a few times a second while there is nothing to do.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Work]], Sequence[Result]],
        size: Callable[[Work], int],
        max_size: int,
        max_waiting: int,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._answer, self._size, self._max_size, self._meanwhile = answer, size, max_size, meanwhile
        self._jobs: queue.Queue[_Job[Work, Result] | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, work: Work, reply: Callable[[Result | Exception], None]) -> None:
        """Queue a job; `reply` is called in the batcher's thread, once, with the result or what went wrong.

        Raises
        ------
        queue.Full
            When too many jobs wait.
        """
        self._jobs.put_nowait(_Job(work, reply))

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        held: _Job[Work, Result] | None = None
        while True:
            try:
                job = held or self._jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                self._meanwhile()
                continue
            if job is None:
                return
            batch, held, ended = self._gather(job)
            self._run(batch)
            self._meanwhile()
            if ended:
                return

    def _gather(self, first: _Job[Work, Result]) -> tuple[list[_Job[Work, Result]], _Job[Work, Result] | None, bool]:
        """What fits into one batch with the first job, the job that did not fit, and whether the end was seen."""
        batch, total = [first], self._size(first.work)
        while total < self._max_size:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, None, True
            total += self._size(job.work)
            if total > self._max_size:
                return batch, job, False
            batch.append(job)
        return batch, None, False

    def _run(self, batch: list[_Job[Work, Result]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = self._answer([job.work for job in batch])
        except Exception as error:
            if len(batch) > 1:
                # Whoever is to blame, the others shall not pay for it.
                for job in batch:
                    self._run([job])
                return
            results = [error]
        for job, result in zip(batch, results, strict=True):
            job.reply(result)
