"""What an iterator gives, made by a thread before it is asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1


def made_ahead(source: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The same in the same order.

    Parameters
    ----------
    source : generator
        It runs in a thread, and is closed there when the caller is done or stops asking. Its errors arrive here.
    depth : int
        At most this many wait to be asked for.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(what: tuple[T | None, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                waiting.put(what, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        end: BaseException = StopIteration()
        try:
            for made in source:
                if not put((made, None)):
                    return
        except BaseException as error:
            end = error
        finally:
            source.close()
        put((None, end))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            made, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield made  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
