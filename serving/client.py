"""Ask a running server for recommendations, over gRPC or HTTP.

    with NextItemClient("127.0.0.1:8001") as client:
        answer = client.recommend({"session_id": [7, 7], "item_id": ["mug", "tea"], "time": ["2024-05-01T10:00:00", …]})
        answer.item_id[0]                           # the best items for session 7, best first

The columns are those of the raw events, under their original names. The client asks the server once which columns
the model takes, and converts to them. `serving.aio` has the same client for asyncio. Importing either loads neither
pandas nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from common.errors import UserError
from serving import MODEL
from serving.address import PROTOCOLS, tls_context
from serving.columns import Column
from serving.exchange import Contract, Exchange, Recommendations, Unreachable, check_options, server_reason

__all__ = ["PROTOCOLS", "NextItemClient", "Recommendations", "Unreachable", "server_reason"]


class NextItemClient(Exchange):
    """A connection to a server that holds the model ``nextitem``.

    Parameters
    ----------
    url : str
        ``host:port`` of the protocol's port. With ``https://`` or ``grpcs://`` in front, TLS is on, and the protocol
        is the scheme's.
    protocol : str
        ``"grpc"`` or ``"http"``; the answers are the same.
    timeout : float
        Seconds that one request may take.
    token : str, optional
        What a server with ``--token-file`` asks for; by default the environment variable ``NEXTITEM_TOKEN``.
    tls : bool
        Encrypt, and check the server's certificate.
    ca_file : Path or str, optional
        PEM file of the certificates to trust; by default the environment variable ``NEXTITEM_CA_FILE``, else those
        that gRPC, or Python for HTTP, brings.

    Notes
    -----
    Not for several threads at once over HTTP: give each thread a client of its own.
    """

    _package = "tritonclient.{}"
    _http_timeouts = ("connection_timeout", "network_timeout")

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        protocol: str = "grpc",
        timeout: float = 60.0,
        token: str | None = None,
        tls: bool = False,
        ca_file: Path | str | None = None,
    ) -> None:
        super().__init__(url, protocol, timeout, token, tls, ca_file)
        self._connection = self._connect()

    def _http_tls(self) -> dict[str, Any]:
        # Not the context itself: this library wants one of a class of its own.
        flags = tls_context(self.ca_file).verify_flags
        trusted = {"ca_certs": self.ca_file, "verify_flags": flags} if self.ca_file else {}
        return {"ssl": True, "ssl_options": trusted}

    def __enter__(self) -> NextItemClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ready(self) -> bool:
        """Whether the server answers and the model is loaded."""
        try:
            return bool(self._call("is_model_ready", MODEL))
        except UserError:
            return False

    @property
    def contract(self) -> Contract:
        """What the model takes, asked once."""
        if self._contract is None:
            self._contract = Contract.of(self._call("get_model_metadata", MODEL))
        return self._contract

    @property
    def inputs(self) -> dict[str, str]:
        """Event column -> Triton data type of what the model needs; options are not among them."""
        return self.contract.inputs

    def recommend(
        self,
        events: Mapping[str, Column],
        top_k: int | None = None,
        exclude_seen: bool | None = None,
        excluded: Column | None = None,
        candidates: Column | None = None,
    ) -> Recommendations:
        """Recommend next items for the sessions in `events`.

        Parameters
        ----------
        events : mapping of str to sequence
            Column name -> N values, one a raw event, any number of sessions in any order. Dates and times may be
            ISO 8601 text or Python's, numpy's and pandas' own types. Further columns are ignored.
        top_k : int, optional
            How many items a session; at most, and by default, as many as were exported.
        exclude_seen : bool, optional
            Whether a session's own items are left out; the model's default otherwise.
        excluded : sequence, optional
            M item ids that are recommended to none of the sessions. Ids that the model does not know are ignored.
        candidates : sequence, optional
            M item ids, one at least, that alone may be recommended; unknown ones are ignored as well. Where fewer
            than `top_k` are left, the remaining scores are float32's lowest number.

        Returns
        -------
        Recommendations

        Raises
        ------
        UserError
            When a column is missing or does not convert (with its name and the row, from 1), when there are no
            events, when `top_k` is out of range, when the model is of an older export that does not take an option,
            or with the server's reason for refusing.
        Unreachable
            A `UserError`: when no server answers.
        """
        options = {"top_k": top_k, "exclude_seen": exclude_seen, "excluded": excluded, "candidates": candidates}
        check_options(options)
        return self._answer(self._call("infer", MODEL, self._tensors(self.contract, events, options)), top_k)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._connection, method)(*arguments, **self._call_options)
        except Exception as error:
            raise self._explain(error) from error
