"""Connections to Triton's own HTTP, on a socket file that nobody else can open; kept and used again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_KEPT = re.compile(rb"\r\n(?:content-type|inference-header-content-length):[^\r\n]*", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


@dataclass(slots=True)
class Answer:
    """What Triton answered.

    Attributes
    ----------
    status : bytes
        The number.
    headers : bytes
        Those that clients need, each with its line end.
    body : bytes
        All of it.
    """

    status: bytes
    headers: bytes
    body: bytes = b""


Receiver = Callable[[Answer | None], None]


class _Connection(asyncio.Protocol):
    """One connection; it takes one request at a time."""

    def __init__(self, pool: Upstream, parts: Sequence[bytes | memoryview], receiver: Receiver) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._question, self._receiver = parts, receiver
        self._begin()

    def _begin(self) -> None:
        self._waits, self._closes = True, False
        self._answer: Answer | None = None
        self._head = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.writelines(self._question)
        self._question = ()

    def ask(self, parts: Sequence[bytes | memoryview], receiver: Receiver) -> None:
        """Send another request, after the answer to the one before."""
        assert self._transport is not None
        self._receiver = receiver
        self._begin()
        self._transport.writelines(parts)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            head, found, body = (self._head + data).partition(b"\r\n\r\n")
            if not found:
                self._head = head
                return
            if not self._read(head):
                self.drop()
                return
            data = body
        self._missing -= len(data)
        self._parts.append(data)
        if self._missing <= 0:
            self._end()

    def _read(self, head: bytes) -> bool:
        """The head of the answer; whether it can be read, and somebody waits for it."""
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None or not self._waits:
            return False
        headers = b"".join([line[2:] + b"\r\n" for line in _KEPT.findall(head)])
        self._answer, self._missing = Answer(status[1], headers), int(length[1])
        self._closes = _CLOSES.search(head) is not None
        return True

    def _end(self) -> None:
        answer = self._answer
        assert answer is not None
        if self._missing < 0:
            self.drop()
            return
        answer.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._waits, self._answer, self._parts = False, None, []
        if self._closes:
            self.drop()
        else:
            self._pool.idle.append(self)
        self._receiver(answer)

    def drop(self) -> None:
        """Close at once; whoever waits is told that there is no answer."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._pool.idle:
            self._pool.idle.remove(self)
        if self._waits:
            self._waits = False
            self._receiver(None)


class Upstream:
    """Triton, as the edge sees it.

    Parameters
    ----------
    path : str
        Of the socket file that Triton listens on.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.idle: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, parts: Sequence[bytes | memoryview], receiver: Receiver) -> None:
        """Send a request, and call `receiver` once with the answer, or with None when there is none.

        Parameters
        ----------
        parts : sequence of bytes or memoryview
            The whole request.
        receiver : callable
            Called from the event loop, never before this returns.
        """
        if self.idle:
            # The one that was used last: those that are not needed any more stay at the other end.
            self.idle.pop().ask(parts, receiver)
            return
        task = asyncio.get_running_loop().create_task(self._connect(parts, receiver))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, parts: Sequence[bytes | memoryview], receiver: Receiver) -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: _Connection(self, parts, receiver), self.path)
        except OSError:
            receiver(None)

    def close(self) -> None:
        """Close the connections that are not in use."""
        for connection in [*self.idle]:
            connection.drop()
