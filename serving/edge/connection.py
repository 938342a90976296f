"""One client's connection: requests one after another, each checked, sent on and answered."""

from __future__ import annotations

import asyncio
import json
from enum import Enum, auto
from typing import TYPE_CHECKING

from serving.edge.body import Body
from serving.edge.head import MAX_HEAD, Head, parse_head
from serving.edge.inference import rewrite
from serving.edge.refused import Refused
from serving.edge.routes import Route, find_route
from serving.edge.upstream import Answer

if TYPE_CHECKING:
    from serving.edge.front import Front

# What a client still sends behind a request that was refused is thrown away for a while: closed at once, its system
# might throw away the reply instead.
_DRAIN_SECONDS = 2.0
_OTHER_BODY = 1024
_LOCAL = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_INFER = b"POST %b HTTP/1.1\r\nHost: edge\r\nContent-Length: %d\r\nInference-Header-Content-Length: %d\r\n\r\n%b"
_REASONS = {b"200": b"OK", b"400": b"Bad Request", b"503": b"Service Unavailable"}


class State(Enum):
    """What a connection waits for."""

    HEAD = auto()  # a request
    BODY = auto()  # the rest of a request
    ANSWER = auto()  # Triton
    READER = auto()  # the client, to read its answer
    END = auto()  # the client, to hear that this was all


class Connection(asyncio.Protocol):
    """Reads requests, refuses them or has them answered.

    Parameters
    ----------
    front : Front
        What all connections share.
    """

    def __init__(self, front: Front) -> None:
        self.front = front
        self.state = State.HEAD
        self.deadline = 0.0
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._head: Head | None = None
        self._route = Route.READ
        self._body: Body | None = None
        # Of the client: on this machine; has said all that it will; has not read its answer.
        self._local = self._ended = self._unread = False
        # Counted in the budget: bytes of answers that are not read, and of requests that came too early.
        self._unread_bytes = self._early_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of a request is here."""
        return self.state is State.HEAD and not self._buffer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._local = (transport.get_extra_info("peername") or ("",))[0] in _LOCAL
        self._wait(State.HEAD, self.front.settings.head_seconds)
        if not self.front.enter(self):
            self._reply_last(Refused(503, "the server is busy: too many clients are connected; try again"))

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone; what Triton still answers for it is thrown away."""
        self.state = State.END
        self.front.leave(self)
        self._forget_unread()
        self._forget_early()
        # While Triton works on it, its bytes are still in memory.
        if self._body is not None:
            self._body.close()
            self._body = None

    def eof_received(self) -> bool:
        """Whether to stay half open: for clients that say all they have, and then listen."""
        self._ended = True
        return self.state in (State.ANSWER, State.READER) and self.front.context is None

    def data_received(self, data: bytes) -> None:
        """Take in what a client sends."""
        if self.state is State.END:
            return
        try:
            if self.state is State.BODY:
                self._feed(data)
            else:
                if self.state is not State.HEAD:
                    self._come_early(data)
                self._buffer = self._buffer + data if self._buffer else data
            self._advance()
        except Refused as refused:
            self._reply_last(refused)
        except Exception as error:
            self.front.report(error)
            self._reply_last(Refused(500, "the server could not read this request; its log says why"))

    def _wait(self, state: State, seconds: float) -> None:
        self.state = state
        self.deadline = self.front.loop.time() + seconds

    def _advance(self) -> None:
        """Begin what has arrived whole; while a request is under way, hold back the next."""
        assert self._transport is not None
        self._begin_all()
        if self._ended and self.state in (State.HEAD, State.BODY):
            # The rest of this request will not come.
            self._transport.close()

    def _begin_all(self) -> None:
        while self.state is State.HEAD and self._buffer:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0 and len(self._buffer) <= MAX_HEAD:
                if self._head is not None:
                    # The first bytes of another request: from now on it is not idle but late.
                    self._head = None
                    self.deadline = self.front.loop.time() + self.front.settings.head_seconds
                return
            if not 0 <= end <= MAX_HEAD:
                raise Refused(431, f"the head of the request is larger than {MAX_HEAD} bytes")
            text, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._head = None
            self._head = head = parse_head(text)
            try:
                self._begin(head)
            except Refused as refused:
                if head.length != 0:
                    raise
                self._reply(refused)

    def _come_early(self, data: bytes) -> None:
        """Another request, before the answer to the one before: this much, and no more for now."""
        assert self._transport is not None
        self.front.budget.take(len(data))
        self._early_bytes += len(data)
        self._transport.pause_reading()

    def _begin(self, head: Head) -> None:
        assert self._transport is not None
        self._route = find_route(head.method, head.path)
        self.front.admit(self._route, head.token, self._local)
        infers = self._route is Route.INFER
        if infers and head.encoding not in (b"", b"identity"):
            raise Refused(415, "compressed requests are not taken: send it as it is")
        limit = self.front.settings.max_body_bytes if infers else _OTHER_BODY
        self._body = Body(head.length, limit, self.front.budget)
        self._wait(State.BODY, self.front.settings.body_seconds)
        if head.waits and not self._buffer and head.length != 0:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        data, self._buffer = self._buffer, b""
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        head, body = self._head, self._body
        assert head is not None
        assert body is not None
        behind = body.feed(data)
        if behind is None:
            return
        self._buffer = behind
        path = head.path.encode("ascii")
        try:
            if self._route is Route.INFER:
                header, parts = rewrite(body.content(), head.header_length, self.front.settings.max_body_bytes)
                size = len(header) + sum(map(len, parts))
                question = [_INFER % (path, size, len(header), header), *parts]
            elif self._route is Route.INDEX:
                question = [b"POST %b HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n\r\n{}" % path]
            else:
                question = [b"GET %b HTTP/1.1\r\nHost: edge\r\n\r\n" % path]
            self._wait(State.ANSWER, self.front.settings.answer_seconds)
            self.front.ask(question, self._answered)
        except Refused as refused:
            # All of it was read, so the next one can follow.
            self._reply(refused)

    def _answered(self, answer: Answer | None) -> None:
        """Triton's answer, or none; perhaps to a request that nobody waits for any more."""
        if self.state is not State.ANSWER:
            return
        try:
            if answer is None:
                self._reply(Refused(503, "the model server does not answer: it is starting, stopping or has ended"))
            else:
                self._write(answer.status, answer.headers, answer.body)
            self._advance()
        except Refused as refused:
            self._reply_last(refused)
        except Exception as error:
            self.front.report(error)
            self._reply_last(Refused(500, "the server could not answer this request; its log says why"))

    def _reply(self, refused: Refused) -> None:
        body = json.dumps({"error": refused.message}).encode()
        headers = b"Content-Type: application/json\r\n" + refused.headers
        self._write(b"%d" % refused.status, headers, body)

    def _reply_last(self, refused: Refused) -> None:
        """Reply, and take nothing more from this client, which may still be sending."""
        assert self._transport is not None
        self._head = None
        self._reply(refused)
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _write(self, status: bytes, headers: bytes, body: bytes) -> None:
        """Send an answer, and wait for the next request or for the client to leave."""
        assert self._transport is not None
        head, settings = self._head, self.front.settings
        if self._body is not None:
            self._body.close()
            self._body = None
        wanted = head is not None and head.keep and not self.front.stopping
        keep = wanted and (bool(self._buffer) or not self._ended)
        words = _REASONS.get(status, b"Error")
        ending = b"" if keep else b"Connection: close\r\n"
        if head is not None and head.method == "HEAD":
            body = b""
        first = b"HTTP/1.1 %b %b\r\n%bContent-Length: %d\r\n%b\r\n" % (status, words, headers, len(body), ending)
        self._transport.write(first + body)
        if not keep:
            self._buffer = b""
            self._wait(State.END, settings.read_seconds if self._unread else _DRAIN_SECONDS)
            if head is not None:
                # Once all is sent. A client that was refused in the middle of a request is heard to the end.
                self._transport.close()
        elif self._unread:
            self._wait(State.READER, settings.read_seconds)
        else:
            self._wait(State.HEAD, settings.idle_seconds)
            self._forget_early()

    def _forget_early(self) -> None:
        if self._early_bytes and self._transport is not None:
            self.front.budget.left += self._early_bytes
            self._early_bytes = 0
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The client reads slower than it is answered: what it has not read counts as held."""
        assert self._transport is not None
        self._unread = True
        size = self._transport.get_write_buffer_size()
        try:
            self.front.budget.take(size)
            self._unread_bytes = size
        except Refused:
            self._transport.abort()

    def resume_writing(self) -> None:
        """The client has read most of its answer."""
        self._forget_unread()
        if self.state is State.READER:
            self._wait(State.HEAD, self.front.settings.idle_seconds)
            self._forget_early()
            self.front.loop.call_soon(self.data_received, b"")

    def _forget_unread(self) -> None:
        self._unread = False
        self.front.budget.left += self._unread_bytes
        self._unread_bytes = 0

    def expire(self) -> None:
        """End what takes too long."""
        assert self._transport is not None
        if self.state is State.ANSWER:
            self._reply_last(Refused(504, "the model server takes too long"))
        elif self.state is State.BODY or (self.state is State.HEAD and self._buffer):
            self._reply_last(Refused(408, "the request did not arrive in time"))
        elif self.state is State.HEAD:
            self._transport.close()
        else:
            self._transport.abort()

    def finish(self) -> None:
        """Close when nothing is under way; otherwise after the answer."""
        assert self._transport is not None
        if self.idle:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
