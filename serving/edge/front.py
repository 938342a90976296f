"""All connections of the edge together: who may come in, how much at a time, and a clean end."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
import sys
import time
from collections.abc import Sequence

from serving.edge.body import Budget
from serving.edge.connection import Connection
from serving.edge.refused import Refused
from serving.edge.routes import Route
from serving.edge.settings import EdgeSettings
from serving.edge.upstream import Answer, Receiver, Upstream

_SWEEP_SECONDS = 1.0
_REPORT_SECONDS = 1.0
_HANDSHAKE_SECONDS = 10.0


class Front:
    """The edge's server.

    Parameters
    ----------
    settings : EdgeSettings
        Where, whom and how much.

    Attributes
    ----------
    stopping : bool
        Whether only what is under way is still answered.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.budget = Budget(settings.budget)
        self.stopping = False
        self.context = _tls(settings)
        self._token = _digest(settings.token.encode()) if settings.token else b""
        self._upstream = Upstream(settings.upstream)
        # In the order in which they came.
        self._connections: dict[Connection, None] = {}
        self._under_way = 0
        self._reported = -_REPORT_SECONDS
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        OSError
            When the address cannot be listened on.
        """
        wait = _HANDSHAKE_SECONDS if self.context else None
        self._server = await self.loop.create_server(
            lambda: Connection(self),
            self.settings.host,
            self.settings.port,
            ssl=self.context,
            ssl_handshake_timeout=wait,
            reuse_address=True,
            backlog=512,
        )
        self.loop.set_exception_handler(self._unexpected)
        self._sweep()

    async def stop(self) -> None:
        """Let requests under way finish, and close."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in [*self._connections]:
            connection.finish()
        deadline = self.loop.time() + self.settings.drain_seconds
        while self._connections and self.loop.time() < deadline:
            await asyncio.sleep(0.02)
        for connection in [*self._connections]:
            connection.abort()
        self._upstream.close()
        await asyncio.sleep(0)

    def enter(self, connection: Connection) -> bool:
        """Count a connection; whether there is room for it."""
        self._connections[connection] = None
        if len(self._connections) <= self.settings.max_connections:
            return True
        # Somebody who says nothing makes room.
        for other in self._connections:
            if other.idle and other is not connection:
                other.finish()
                return True
        return False

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def admit(self, route: Route, token: bytes, local: bool) -> None:
        """Check who asks.

        Raises
        ------
        Refused
            With the status 401 without the token, or 404 for what only this machine may ask when there is none.
        """
        if route is Route.HEALTH:
            return
        if self._token:
            # Of the digests, not even the length is told by how long this takes.
            if not hmac.compare_digest(_digest(token), self._token):
                reason = "this server asks for a token: send the header 'Authorization: Bearer <token>'"
                raise Refused(401, reason, b"WWW-Authenticate: Bearer\r\n")
        elif route is Route.INDEX and not local:
            raise Refused(404, "there is nothing for clients at this path")

    def ask(self, question: Sequence[bytes | memoryview], receiver: Receiver) -> None:
        """Ask Triton.

        Raises
        ------
        Refused
            With the status 503 when too many requests are under way.
        """
        if self._under_way >= self.settings.max_requests:
            raise Refused(503, "the server is busy: too many requests are under way; try again")
        self._under_way += 1

        def receive(answer: Answer | None) -> None:
            self._under_way -= 1
            receiver(answer)

        self._upstream.ask(question, receive)

    def report(self, error: BaseException) -> None:
        """Write an error of ours to the log, one a second at most."""
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            log(f"{type(error).__name__}: {error}")

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        # Clients that leave, or that speak no TLS, are no news.
        if isinstance(error, BaseException) and not isinstance(error, OSError):
            self.report(error)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [*self._connections]:
            if now > connection.deadline:
                connection.expire()
        self.loop.call_later(_SWEEP_SECONDS, self._sweep)


def log(message: str) -> None:
    """Write an error as Triton writes its own, so that one reader reads both."""
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
    shown = ascii(message)[1:-1]
    sys.stderr.write(f'E{stamp} 1 edge.py:1] "{shown}"\n')
    sys.stderr.flush()


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _tls(settings: EdgeSettings) -> ssl.SSLContext | None:
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.certificate, settings.key, lambda: "")
    return context
