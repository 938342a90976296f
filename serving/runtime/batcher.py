"""Dynamic batching: what waits while the model computes is computed together next.

Triton's own batcher joins requests of one shape with a batch dimension. A request of raw events has as many rows as
events and becomes as many sessions as it holds, so sessions are put together here, where they are known.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

# Handing an answer to Triton takes half a millisecond of waiting for its process, and next to no computing: the answers
# of a batch go out side by side, while the next batch is computed.
_REPLIERS = 4


@dataclass
class _Job(Generic[Work, Result]):
    work: Work
    reply: Callable[[Result | Exception], None]
    size: int


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
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Work]], Sequence[Result]],
        size: Callable[[Work], int],
        max_size: int,
        max_waiting: int,
    ) -> None:
        self._answer, self._size, self._max_size = answer, size, max_size
        self._ended = False
        self._jobs: queue.Queue[_Job[Work, Result] | None] = queue.Queue(max_waiting)
        self._replies: queue.Queue[tuple[_Job[Work, Result], Result | Exception] | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._repliers = [
            threading.Thread(target=self._reply_on, name=f"replies {n}", daemon=True) for n in range(_REPLIERS)
        ]
        for thread in (self._thread, *self._repliers):
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return self._jobs.qsize()

    def submit(self, work: Work, reply: Callable[[Result | Exception], None]) -> None:
        """Queue a job; `reply` is called, in a thread of the batcher's, with the result or what went wrong.

        It is called once, and a second time, with its own error, when it raises one.

        Raises
        ------
        queue.Full
            When too many jobs wait.
        """
        self._jobs.put_nowait(_Job(work, reply, self._size(work)))
        if self._ended:
            self._fail_waiting()

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._jobs.put(None)
        self._thread.join()
        for _ in self._repliers:
            self._replies.put(None)
        for thread in self._repliers:
            thread.join()

    def _work(self) -> None:
        held: _Job[Work, Result] | None = None
        try:
            while (job := held or self._jobs.get()) is not None:
                batch, held, ended = self._gather(job)
                self._run(batch)
                if ended:
                    return
        finally:
            # Whatever ended it: nobody shall wait for a thread that is gone.
            self._ended = True
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    _reply(job, RuntimeError("the batcher has ended"))

    def _reply_on(self) -> None:
        while (one := self._replies.get()) is not None:
            _reply(*one)

    def _gather(self, first: _Job[Work, Result]) -> tuple[list[_Job[Work, Result]], _Job[Work, Result] | None, bool]:
        """What fits into one batch with the first job, the job that did not fit, and whether the end was seen."""
        batch, total = [first], first.size
        while total < self._max_size:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, None, True
            total += job.size
            if total > self._max_size:
                return batch, job, False
            batch.append(job)
        return batch, None, False

    def _run(self, batch: list[_Job[Work, Result]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = self._answer([job.work for job in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} jobs have {len(results)} results")
        except BaseException as error:  # one that would end this thread would leave all later jobs without an answer
            if len(batch) > 1:
                # Whoever is to blame, the others shall not pay for it.
                for job in batch:
                    self._run([job])
                return
            results = [error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")]
        if len(batch) == 1 and self._jobs.empty():
            # Nobody waits: another thread would only be later.
            _reply(batch[0], results[0])
            return
        for job, result in zip(batch, results, strict=True):
            self._replies.put((job, result))


def _reply(job: _Job[Any, Any], result: Any) -> None:
    """Hand a result over; a reply that cannot be given must not cost the others theirs."""
    try:
        job.reply(result)
    except BaseException as error:
        traceback.print_exc()
        with contextlib.suppress(BaseException):
            job.reply(RuntimeError(f"the reply failed: {type(error).__name__}"))
