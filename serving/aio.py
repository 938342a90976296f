"""The client for asyncio: while a request is under way, the event loop goes on.

    async with AsyncNextItemClient("127.0.0.1:8001") as client:
        answers = await asyncio.gather(*(client.recommend(events) for events in many))

Arguments, answers and errors are those of `serving.client.NextItemClient`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from common.errors import UserError
from serving import MODEL
from serving.address import tls_context
from serving.columns import Column
from serving.exchange import Contract, Exchange, Recommendations, check_options


class AsyncNextItemClient(Exchange):
    """A connection to a server that holds the model ``nextitem``, for one event loop.

    Parameters
    ----------
    url, protocol, timeout, token, tls, ca_file
        As of `serving.client.NextItemClient`.

    Notes
    -----
    Any number of requests may be under way at a time. The connection is made by the first one, so a client may be
    made before the loop runs.
    """

    _package = "tritonclient.{}.aio"
    _http_timeouts = ("conn_timeout",)
    _connection: Any = None

    def _http_tls(self) -> dict[str, Any]:
        return {"ssl": True, "ssl_context": tls_context(self.ca_file)}

    async def __aenter__(self) -> AsyncNextItemClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def ready(self) -> bool:
        """Whether the server answers and the model is loaded."""
        try:
            return bool(await self._call("is_model_ready", MODEL))
        except UserError:
            return False

    @property
    async def contract(self) -> Contract:
        """What the model takes, asked once: ``await client.contract``."""
        if self._contract is None:
            self._contract = Contract.of(await self._call("get_model_metadata", MODEL))
        return self._contract

    @property
    async def inputs(self) -> dict[str, str]:
        """Event column -> Triton data type of what the model needs: ``await client.inputs``."""
        return (await self.contract).inputs

    async def recommend(
        self,
        events: Mapping[str, Column],
        top_k: int | None = None,
        exclude_seen: bool | None = None,
        excluded: Column | None = None,
        candidates: Column | None = None,
    ) -> Recommendations:
        """Recommend next items for the sessions in `events`; see `serving.client.NextItemClient.recommend`."""
        options = {"top_k": top_k, "exclude_seen": exclude_seen, "excluded": excluded, "candidates": candidates}
        check_options(options)
        tensors = self._tensors(await self.contract, events, options)
        return self._answer(await self._call("infer", MODEL, tensors), top_k)

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return await getattr(self._connection, method)(*arguments, **self._call_options)
        except Exception as error:
            raise self._explain(error) from error
