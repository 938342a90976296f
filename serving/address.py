"""Where a server is: ``host:port``, with ``https://`` or ``grpcs://`` in front when it speaks TLS."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from serving.security import find_token, http_headers

PROTOCOLS = ("grpc", "http")
CA_VARIABLE = "NEXTITEM_CA_FILE"
PARTIAL_CHAIN = ssl.VERIFY_X509_PARTIAL_CHAIN
_SCHEMES = {"": False, "http": False, "https": True, "grpc": False, "grpcs": True}


@dataclass(frozen=True)
class Address:
    """A server's address.

    Attributes
    ----------
    place : str
        ``host:port``.
    protocol : str
        ``"grpc"`` or ``"http"``.
    tls : bool
        Whether the way there is encrypted.
    """

    place: str
    protocol: str
    tls: bool

    @classmethod
    def parse(cls, url: str, protocol: str = "grpc", tls: bool = False) -> Address:
        """Read an address.

        Parameters
        ----------
        url : str
            ``host:port``, with or without a scheme; one of TLS turns that on.
        protocol : str
            ``"grpc"`` or ``"http"``, where the scheme does not say it.
        tls : bool
            Encrypt without a scheme that says so.

        Raises
        ------
        UserError
            When it is none, or the protocol is neither.
        """
        if protocol not in PROTOCOLS:
            raise UserError(f"protocol {protocol!r} is not known: choose grpc or http")
        found = re.fullmatch(r"(?:(\w+)://)?(.+:\d+)/?", url)
        if found is None:
            raise UserError(f"{url!r} is not an address: give host:port, like 127.0.0.1:8001")
        scheme, place = found[1] or "", found[2]
        if scheme not in _SCHEMES:
            raise UserError(f"{url!r} begins with {scheme}: give host:port, https://host:port or grpcs://host:port")
        return cls(place, scheme.removesuffix("s") or protocol, tls or _SCHEMES[scheme])

    def __str__(self) -> str:
        return f"{self.protocol}s://{self.place}" if self.tls else self.place


def find_ca_file(ca_file: Path | str | None = None) -> str | None:
    """The certificates that a client trusts: the file given, else that of the environment variable."""
    return str(ca_file) if ca_file else os.environ.get(CA_VARIABLE) or None


def tls_context(ca_file: Path | str | None = None) -> ssl.SSLContext:
    """How a client checks a server's certificate.

    Parameters
    ----------
    ca_file : Path or str, optional
        PEM file of the certificates to trust; by default that of ``NEXTITEM_CA_FILE``, else the system's.

    Raises
    ------
    UserError
        When the file holds none.
    """
    ca_file = find_ca_file(ca_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if ca_file:
            # What is trusted by name need not be an authority's: a server's own certificate is enough.
            context.verify_flags |= PARTIAL_CHAIN
        return context
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(f"{ca_file} holds no certificates in PEM ({reason})") from error


def open_http(place: str, timeout: float, context: ssl.SSLContext | None = None) -> closing[http.client.HTTPConnection]:
    """A connection to ``host:port``, over TLS with a context, that is closed at the end of a ``with``."""
    if context:
        return closing(http.client.HTTPSConnection(place, timeout=timeout, context=context))
    return closing(http.client.HTTPConnection(place, timeout=timeout))


def ask_http(
    address: Address,
    method: str,
    path: str,
    token: str | None = None,
    ca_file: Path | str | None = None,
    timeout: float = 30.0,
) -> tuple[int, Any]:
    """Ask a server over HTTP, without the body of a request.

    Parameters
    ----------
    address : Address
        Of HTTP.
    method, path : str
        As ``"GET"`` and ``"/v2"``.
    token : str, optional
        By default that of the environment variable ``NEXTITEM_TOKEN``.
    ca_file : Path or str, optional
        See `tls_context`.
    timeout : float
        Seconds.

    Returns
    -------
    (int, anything)
        HTTP's status, and the JSON that came; an empty dict for nothing.

    Raises
    ------
    UserError
        When no server answers with JSON.
    """
    context = tls_context(ca_file) if address.tls else None
    try:
        with open_http(address.place, timeout, context) as connection:
            connection.request(method, path, headers=http_headers(find_token(token)))
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else {}
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"no server answers at {address} ({error})") from error
