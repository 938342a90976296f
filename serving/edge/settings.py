"""What the edge is told when it starts: one line of JSON on its standard input, so that no token is in `ps`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

MAX_BODY_BYTES = 16 << 20


@dataclass(frozen=True)
class EdgeSettings:
    """Where the edge listens, whom it asks, whom it answers and how much it takes.

    Attributes
    ----------
    upstream : str
        The socket file of Triton's HTTP.
    host, port
        The address to listen on.
    certificate, key : str
        PEM files; empty for no TLS.
    token : str
        What a client must show, but for health; empty for everybody.
    max_body_bytes : int
        Of one request.
    max_bytes : int
        That all requests and unread answers may hold at a time; by default those of eight full requests.
    max_connections, max_requests : int
        Clients connected, and requests that Triton has not answered yet.
    head_seconds, body_seconds : float
        From a request's first byte to the end of its head, and from there to its last byte.
    answer_seconds, read_seconds : float
        That Triton may take, and that the client may take to read the answer.
    idle_seconds : float
        That a connection may stay open between requests.
    drain_seconds : float
        That requests under way have to finish when the edge stops.
    """

    upstream: str
    host: str = "127.0.0.1"
    port: int = 8000
    certificate: str = ""
    key: str = ""
    token: str = field(default="", repr=False)
    max_body_bytes: int = MAX_BODY_BYTES
    max_bytes: int = 0
    max_connections: int = 1000
    max_requests: int = 500
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    answer_seconds: float = 120.0
    read_seconds: float = 60.0
    idle_seconds: float = 300.0
    drain_seconds: float = 5.0

    @property
    def budget(self) -> int:
        """Bytes for all requests and answers together."""
        return self.max_bytes or 8 * self.max_body_bytes

    def to_line(self) -> bytes:
        """As `from_line` reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> EdgeSettings:
        """Read what `to_line` wrote."""
        return cls(**json.loads(line))
