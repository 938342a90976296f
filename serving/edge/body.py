"""Bodies as they arrive: never more of them in memory than is allowed, one request's and all together."""

from __future__ import annotations

import re

from serving.edge.refused import Refused

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_LINE = 256
_TRAILERS = 1024


class Budget:
    """Bytes that the bodies of all requests together may hold.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, count: int) -> None:
        """Take bytes from the budget; whoever takes gives back.

        Raises
        ------
        Refused
            With the status 503 when fewer are left.
        """
        if count > self.left:
            raise Refused(503, "the server is busy: too much is being sent at a time; try again")
        self.left -= count


class Body:
    """The body of one request.

    Parameters
    ----------
    length : int or None
        Bytes to come; None for chunks.
    limit : int
        Bytes that it may have.
    budget : Budget
        That of all requests; give back with `close`.

    Raises
    ------
    Refused
        With the status 413, here for a length that is too large and in `feed` for chunks that become it.
    """

    def __init__(self, length: int | None, limit: int, budget: Budget) -> None:
        self._budget, self._limit, self._taken = budget, limit, 0
        # What arrived; as a rule all at once, which is then kept as it is.
        self._held: bytes | bytearray = b""
        self._wanted = 0 if length is None else length
        self._chunked = length is None
        # Chunked: what is left of a line, and what comes next.
        self._rest = b""
        self._next = "size"
        self._trailers = 0
        if self._wanted > limit:
            self._too_large()

    def _too_large(self) -> None:
        raise Refused(413, f"the body is larger than {self._limit} bytes: send several smaller requests")

    def feed(self, data: bytes) -> bytes | None:
        """Take in what arrived.

        Returns
        -------
        bytes or None
            None while more must come; otherwise the bytes behind the body.

        Raises
        ------
        Refused
            When chunks cannot be read, or bodies hold too much.
        """
        if not self._chunked:
            at = self._hold(data, 0)
            return None if self._wanted else data[at:]
        data, at = self._rest + data, 0
        while True:
            if self._next == "data":
                at = self._hold(data, at)
                if self._wanted:
                    self._rest = b""
                    return None
                self._next = "end"
            end = data.find(b"\r\n", at)
            if end < 0:
                self._rest = data[at:]
                if len(self._rest) > _LINE:
                    raise Refused(400, "a chunk of the body has no readable size")
                return None
            line, at = data[at:end], end + 2
            if self._is_last(line):
                return data[at:]

    def _hold(self, data: bytes, at: int) -> int:
        """Keep what is wanted of the bytes from a position on; the position behind it."""
        count = min(self._wanted, len(data) - at)
        if count:
            self._budget.take(count)
            self._taken += count
            self._wanted -= count
            part = data[at : at + count]
            if not self._held:
                self._held = part
            else:
                if isinstance(self._held, bytes):
                    self._held = bytearray(self._held)
                self._held += part
        return at + count

    def _is_last(self, line: bytes) -> bool:
        """Read a line between chunks."""
        if self._next == "end":
            if line:
                raise Refused(400, "a chunk of the body is longer than it says")
            self._next = "size"
        elif self._next == "size":
            size = _SIZE.fullmatch(line)
            if size is None:
                raise Refused(400, "a chunk of the body has no readable size")
            self._wanted = int(size[1], 16)
            if self._taken + self._wanted > self._limit:
                self._too_large()
            self._next = "data" if self._wanted else "trailer"
        else:
            self._trailers += len(line)
            if self._trailers > _TRAILERS:
                raise Refused(431, "the request has too many headers behind its body")
            return not line
        return False

    def content(self) -> bytes:
        """All of it, when `feed` has said so."""
        return bytes(self._held)

    def close(self) -> None:
        """Give back to the budget."""
        self._budget.left += self._taken
        self._taken, self._held = 0, b""
