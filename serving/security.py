"""Who may ask a server, and how the way to it is kept secret: a token and TLS, on both sides.

Over HTTP the token travels as ``Authorization: Bearer <token>``. Triton's gRPC compares a header of each call with a
value from its command line, which `ps` shows to everybody on the server's machine. So it is given another value, from
which nobody gets back to the token: whoever sees it can ask over gRPC, but has not learnt the token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError

TOKEN_VARIABLE = "NEXTITEM_TOKEN"
MIN_TOKEN = 16
# Triton puts "triton-grpc-protocol-" in front of the name that its command line has.
_GRPC_NAME = "nextitem-token"
_GRPC_HEADER = f"triton-grpc-protocol-{_GRPC_NAME}"
_DERIVED = b"nextitem gRPC"


@dataclass(frozen=True)
class Security:
    """What a server demands.

    Attributes
    ----------
    certificate, key : Path, optional
        PEM files: the certificate with its chain, and its key without a password. Both or none.
    token : str, optional
        What every client must show, but for the server's health.
    """

    certificate: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, certificate: Path | None, key: Path | None, token_file: Path | None) -> Security:
        """Read the files of the options ``--tls-cert``, ``--tls-key`` and ``--token-file``.

        Raises
        ------
        UserError
            When one is missing or does not hold what it should.
        """
        if (certificate is None) != (key is None):
            raise UserError("--tls-cert and --tls-key go together: give both")
        if certificate is not None and key is not None:
            for path in (certificate, key):
                if not path.is_file():
                    raise UserError(f"{path} is no file: give a PEM file")
            try:
                # An empty password: the key's own prompt would wait for a person.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
                raise UserError(
                    f"{certificate} and {key} are no certificate and its key in PEM without a password ({reason})"
                ) from error
        return cls(certificate, key, read_token(token_file) if token_file else None)

    def remarks(self, host: str) -> list[str]:
        """What whoever starts a server for others should know, in one line each."""
        if host in ("127.0.0.1", "::1", "localhost"):
            return []
        if not self.token:
            return [f"whoever reaches {host} may ask, without a token: give --token-file, or keep strangers out"]
        if self.certificate is None:
            return ["the token travels unencrypted: give --tls-cert and --tls-key, or keep the network to yourself"]
        return []

    def own_context(self) -> ssl.SSLContext | None:
        """How the server itself checks that what listens on this machine is its own; None without TLS.

        The certificate is compared, not the name in it, which is that of the outside.
        """
        if self.certificate is None:
            return None
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def grpc_options(self) -> list[str]:
        """Triton's options for gRPC: administration for nobody, the rest for who shows the token."""
        # A value that is told to no one closes these to everybody.
        restrict = "--grpc-restricted-protocol"
        options = [f"{restrict}=shared-memory,model-repository,logging,trace:closed={secrets.token_hex(16)}"]
        if self.token:
            value = derived_token(self.token)
            options.append(f"{restrict}=metadata,inference,model-config,statistics:{_GRPC_NAME}={value}")
        if self.certificate and self.key:
            options += ["--grpc-use-ssl=true", f"--grpc-server-cert={self.certificate.resolve()}"]
            options.append(f"--grpc-server-key={self.key.resolve()}")
        return options


def read_token(path: Path) -> str:
    """The token in a file: one line of at least 16 characters without spaces.

    Raises
    ------
    UserError
        When there is no such file, or it holds something else.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a token ({getattr(error, 'strerror', None) or 'not ASCII'})"
        ) from error
    return _checked(text.removesuffix("\n").removesuffix("\r"), str(path))


def find_token(token: str | None = None, token_file: Path | None = None) -> str | None:
    """A client's token: the one given, else the file's, else that of the environment variable ``NEXTITEM_TOKEN``.

    Raises
    ------
    UserError
        When it is none.
    """
    if token is None and token_file is not None:
        return read_token(token_file)
    if token is None:
        return _checked(os.environ[TOKEN_VARIABLE], TOKEN_VARIABLE) if os.environ.get(TOKEN_VARIABLE) else None
    return _checked(token, "the token given")


def _checked(token: str, where: str) -> str:
    if not re.fullmatch(rf"[!-~]{{{MIN_TOKEN},512}}", token):
        raise UserError(
            f"{where} is no token: it takes one line of {MIN_TOKEN} to 512 characters without spaces, as from "
            "'openssl rand -hex 32'"
        )
    return token


def derived_token(token: str) -> str:
    """What is shown over gRPC instead of the token."""
    return hmac.new(token.encode("ascii"), _DERIVED, hashlib.sha256).hexdigest()


def http_headers(token: str | None) -> dict[str, str]:
    """The headers that show a token over HTTP."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def grpc_headers(token: str | None) -> dict[str, str]:
    """The same over gRPC."""
    return {_GRPC_HEADER: derived_token(token)} if token else {}
