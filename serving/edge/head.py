"""The head of an HTTP/1.1 request: its first line and its headers, read strictly.

Only what cannot be read in two ways is accepted, because a proxy may stand in front that reads it in its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.edge.refused import Refused

MAX_HEAD = 16 * 1024
MAX_HEADERS = 64

_FIRST = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")
_NUMBER = re.compile(rb"[0-9]{1,15}")
# Of these there may be one: two could be read as the first or as the last.
_ONCE = frozenset(
    (
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"expect",
        b"host",
        b"inference-header-content-length",
        b"transfer-encoding",
    )
)


@dataclass(slots=True)
class Head:
    """What the edge wants to know of a request before its body.

    Attributes
    ----------
    method, path : str
        As sent; the path with whatever follows it.
    length : int or None
        Bytes of the body; None when it comes in chunks.
    keep : bool
        Whether the client wants to send another request on the connection.
    waits : bool
        Whether it waits for a word before it sends the body (``Expect: 100-continue``).
    token : bytes
        Of ``Authorization: Bearer``, empty without.
    header_length : int or None
        ``Inference-Header-Content-Length``.
    encoding : bytes
        ``Content-Encoding``, empty without.
    """

    method: str
    path: str
    length: int | None
    keep: bool
    waits: bool
    token: bytes
    header_length: int | None
    encoding: bytes


def parse_head(text: bytes) -> Head:
    r"""Read the head of a request.

    Parameters
    ----------
    text : bytes
        All up to the empty line, without that and the line end before it.

    Raises
    ------
    Refused
        When it is not HTTP/1.1 (or 1.0), or could be read in more than one way.
    """
    lines = text.split(b"\r\n")
    first = _FIRST.fullmatch(lines[0])
    if first is None:
        raise Refused(400, "the request's first line is not HTTP/1.1")
    if len(lines) > MAX_HEADERS:
        raise Refused(431, f"the request has more than {MAX_HEADERS} headers")
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Refused(400, "a header of the request cannot be read")
        name = found[1].lower()
        if name in headers and name in _ONCE:
            raise Refused(400, f"the header {name.decode()} is sent twice")
        headers[name] = found[2].rstrip(b" \t")
    newer = first[3] == b"1"
    if newer and b"host" not in headers:
        raise Refused(400, "the header host is missing")
    wishes = headers.get(b"connection", b"").lower()
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    return Head(
        first[1].decode(),
        first[2].decode(),
        _length(headers, newer),
        b"close" not in wishes if newer else b"keep-alive" in wishes,
        _waits(headers, newer),
        token.strip() if kind.lower() == b"bearer" else b"",
        _number(headers, b"inference-header-content-length"),
        headers.get(b"content-encoding", b"").lower(),
    )


def _number(headers: dict[bytes, bytes], name: bytes) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise Refused(400, f"the header {name.decode()} is no whole number")
    return int(value)


def _length(headers: dict[bytes, bytes], newer: bool) -> int | None:
    length = _number(headers, b"content-length")
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        return length or 0
    if length is not None or not newer:
        raise Refused(400, "the request says in two ways where its body ends")
    if coding.lower() != b"chunked":
        raise Refused(501, "of the transfer encodings only chunked is known")
    return None


def _waits(headers: dict[bytes, bytes], newer: bool) -> bool:
    expected = headers.get(b"expect")
    if expected is None or not newer:
        return False
    if expected.lower() != b"100-continue":
        raise Refused(417, "of expectations only 100-continue is known")
    return True
