"""What `nextitem serve` prints while it runs: lines for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import UserError
from common.progress import console, say
from serving import triton_log

FORMATS = ("text", "json")
_POLL_S = 0.5


class Follower:
    """Reads a file that grows, in a thread of its own; as a context, until the end of the block and of the file.

    Parameters
    ----------
    find : callable
        Where the file is, or None as long as there is none.
    take : callable
        Receives whole lines, several at a time.
    limit : int, optional
        Bytes from which on the file is emptied, once they are read. Whoever writes must append.
    """

    def __init__(
        self, find: Callable[[], Path | None], take: Callable[[list[str]], None], limit: int | None = None
    ) -> None:
        self._find, self._take, self._limit = find, take, limit
        self._file: BinaryIO | None = None
        self._rest = b""
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._end.set()
        self._thread.join()
        self.poll()
        if self._file is not None:
            self._file.close()

    def poll(self) -> None:
        """Read what has come by now."""
        with self._lock:
            path = self._find() if self._file is None else None
            if path is not None:
                with contextlib.suppress(OSError):
                    self._file = path.open("rb")
            if self._file is None:
                return
            if os.fstat(self._file.fileno()).st_size < self._file.tell():
                self._file.seek(0)  # somebody has emptied it, as logrotate does
            # A line that is being written is left for the next time.
            *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
            if lines:
                self._take([line.decode("utf-8", "replace") for line in lines])
            if self._limit is not None and self._file.tell() > self._limit:
                with contextlib.suppress(OSError):
                    os.truncate(self._file.name, 0)

    def _follow(self) -> None:
        while not self._end.wait(_POLL_S):
            self.poll()


class TextLog:
    """For people: the addresses once the server answers, then Triton's warnings and errors.

    Parameters
    ----------
    announce : callable
        Receives the addresses; everything else goes to standard error.
    find, limit
        Where Triton's log is, and how large it may grow; see `Follower`.
    """

    def __init__(
        self, announce: Callable[[str], None], find: Callable[[], Path | None], limit: int | None = None
    ) -> None:
        self._announce, self._find = announce, find
        self._is_ready = False
        self.follower = Follower(find, self._take, limit)

    def ready(self, addresses: Mapping[str, str]) -> None:
        """The server answers."""
        # What led here is of no interest any more.
        self.follower.poll()
        self._is_ready = True
        for name, address in addresses.items():
            self._announce(f"{name:8} {address}")
        say(f"log in {self._find()}; Ctrl-C stops")

    def stopped(self) -> None:
        """The server was stopped; whoever did that knows."""

    def _take(self, lines: list[str]) -> None:
        for line in filter(triton_log.is_notable, lines if self._is_ready else ()):
            say(line)


class JsonLog:
    """For a log collector: all of Triton's log, from its first line on, and what we have to say.

    Parameters
    ----------
    find, limit
        Where Triton's log is, and how large it may grow; see `Follower`.
    """

    def __init__(self, find: Callable[[], Path | None], limit: int | None = None) -> None:
        self.follower = Follower(find, self._take, limit)

    def ready(self, addresses: Mapping[str, str]) -> None:
        """The server answers."""
        self.follower.poll()
        named = ", ".join(f"{name} {address}" for name, address in addresses.items())
        write_json("info", f"ready: {named}", addresses=dict(addresses))

    def stopped(self) -> None:
        """The server was stopped."""
        write_json("info", "stopped")

    def _take(self, lines: list[str]) -> None:
        for record in triton_log.records(lines):
            _print(record)


def write_json(level: str, message: str, **more: Any) -> None:
    """Print a line of our own."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    _print({"time": time, "level": level, "source": "nextitem", "message": message, **more})


def warn(message: str) -> None:
    """A warning of our own, as people or as a log collector read it; see `in_format`."""
    if console.quiet:
        write_json("warning", message)
    else:
        say(f"warning: {message}")


def _print(record: Mapping[str, Any]) -> None:
    # Whole lines at once: two threads write.
    print(json.dumps(record) + "\n", end="", flush=True)


@contextlib.contextmanager
def in_format(log_format: str) -> Iterator[None]:
    """For ``json``: keep what is meant for people off the terminal, and end with an error as a JSON line too.

    Raises
    ------
    UserError
        When the format is not known, or, for ``text``, what the block raised.
    SystemExit
        For ``json``, when the block raised a `UserError`, with its exit code.
    """
    if log_format not in FORMATS:
        raise UserError(f"--log-format {log_format} is not known: choose {' or '.join(FORMATS)}")
    if log_format == "text":
        yield
        return
    console.quiet = True
    try:
        yield
    except UserError as error:
        write_json("error", str(error))
        raise SystemExit(error.exit_code) from error
    finally:
        console.quiet = False
