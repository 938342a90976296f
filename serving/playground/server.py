"""The small server behind the page: static files, the catalogue, and questions passed on to Triton.

It listens on this machine alone unless told otherwise. Another site that is open in the same browser can neither ask it
(only requests of the page's own origin are answered) nor pose as it by a name that resolves here (the Host must be an
address, ``localhost`` or the name given). The browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import UserError
from serving.aio import AsyncNextItemClient
from serving.exchange import Recommendations, Unreachable
from serving.playground.catalogue import Catalogue, Click

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/style.css": "style.css", "/playground.js": "playground.js"}
MAX_BODY, MAX_EVENTS, MAX_TEXT, MAX_HITS = 256 * 1024, 200, 256, 100
TIMEOUT = 10.0
_LOWEST = float(np.finfo(np.float32).min)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    item: Text = Field(min_length=1)
    after: float = Field(0.0, ge=0, le=1e7, allow_inf_nan=False)
    choices: Annotated[dict[Text, Text], Field(max_length=20)] = {}


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    events: list[_Event] = Field(min_length=1, max_length=MAX_EVENTS)
    top_k: int | None = Field(None, ge=1, le=1000)
    exclude_seen: bool | None = None


class Playground:
    """The application.

    Parameters
    ----------
    catalogue : Catalogue
        The items.
    url, protocol : str
        Where Triton is; see `NextItemClient`.
    host : str
        The address or name that the page is served under.
    token, ca_file
        What Triton asks for, and how its certificate is checked; see `NextItemClient`. Neither reaches the page.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        url: str,
        protocol: str = "grpc",
        host: str = "127.0.0.1",
        token: str | None = None,
        ca_file: Path | str | None = None,
    ) -> None:
        self.catalogue, self.host = catalogue, host
        self._new_client = lambda: AsyncNextItemClient(url, protocol, TIMEOUT, token, ca_file=ca_file)
        self._client = self._new_client()
        self._model: dict[str, Any] | None = None

    def app(self) -> web.Application:
        """The application, for a runner or a test."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        app.router.add_get("/api/catalogue", self._catalogue)
        app.router.add_get("/api/items", self._items)
        app.router.add_get("/api/session", self._session)
        app.router.add_get("/api/model", self._about_model)
        app.router.add_post("/api/recommend", self._recommend)
        for path in FILES:
            app.router.add_get(path, self._file)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, app: web.Application) -> None:
        await self._client.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refusal = self._refusal(request)
            response = web.json_response({"error": refusal}, status=403) if refusal else await handler(request)
        except web.HTTPException as error:
            response = web.json_response({"error": error.reason}, status=error.status)
        except Unreachable as error:
            # The server that comes back may hold another model, so what was learnt of this one is forgotten.
            old, self._client, self._model = self._client, self._new_client(), None
            await old.close()
            response = web.json_response({"error": str(error), "away": True}, status=503)
        except UserError as error:
            response = web.json_response({"error": str(error)}, status=422)
        response.headers.update(_HEADERS)
        return response

    def _refusal(self, request: web.Request) -> str | None:
        if not known_host(request.host, self.host):
            return f"{request.host[:80]} is not a name of this page: open it by its address"
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        foreign = origin is not None and origin not in (f"http://{request.host}", f"https://{request.host}")
        if foreign or (site not in ("same-origin", "none") and request.path != "/"):
            return "another site may not ask this page's server"
        return None

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE / FILES[request.path])

    async def _catalogue(self, request: web.Request) -> web.Response:
        catalogue = self.catalogue
        about: dict[str, Any] = {"items": len(catalogue), "sessions": len(catalogue.sessions)}
        about |= {"choices": catalogue.choices, "kind": catalogue.kind}
        server = {"url": self._client.url, "protocol": self._client.protocol, "max_events": MAX_EVENTS}
        return web.json_response(about | server)

    async def _items(self, request: web.Request) -> web.Response:
        text = request.query.get("search", "")[:MAX_TEXT]
        limit = request.query.get("limit", "40")
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= MAX_HITS):
            raise UserError(f"limit must be from 1 to {MAX_HITS}")
        found = await asyncio.to_thread(self.catalogue.search, text, int(limit))
        return web.json_response([self._shown(item) for item in found])

    def _shown(self, item: str) -> dict[str, Any]:
        return {"item": item, "known": item in self.catalogue, "features": self.catalogue.describe(item)}

    async def _session(self, request: web.Request) -> web.Response:
        if not self.catalogue.sessions:
            raise web.HTTPNotFound
        clicks = random.choice(self.catalogue.sessions)
        return web.json_response(
            [self._shown(click.item) | {"after": click.after, "choices": dict(click.choices)} for click in clicks]
        )

    async def _about_model(self, request: web.Request) -> web.Response:
        """What the model offers, asked until it is known; how many items it gives is seen in an answer."""
        if self._model is None:
            client, contract = self._client, await self._client.contract
            probe = self.catalogue.columns([Click(self.catalogue.ids[0])])
            limit = contract.limit or len((await client.recommend(probe)).item_id[0])
            self._model = {"options": list(contract.options), "top_k": limit}
        return web.json_response(self._model)

    async def _recommend(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        try:
            question = _Question.model_validate_json(await request.read())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return web.json_response({"error": f"{where}: {first['msg']}"[:300]}, status=400)
        clicks = [Click(event.item, event.after, event.choices) for event in question.events]
        columns = self.catalogue.columns(clicks)
        options: Mapping[str, Any] = question.model_dump(include={"top_k", "exclude_seen"}, exclude_none=True)
        began = time.perf_counter()
        answer = await self._client.recommend(columns, **options)
        took = (time.perf_counter() - began) * 1000
        return web.json_response(self._told(answer) | {"took_ms": took, "sent": {"events": columns, **options}})

    def _told(self, answer: Recommendations) -> dict[str, Any]:
        items, scores = answer.item_id[-1], answer.score[-1].tolist()
        # A user's events that a gap in time divides are several sessions; the last one is under way.
        filled = [(str(item), score) for item, score in zip(items, scores, strict=True) if score > _LOWEST]
        shown = [self._shown(item) | {"score": score if score == score else None} for item, score in filled]
        return {"items": shown, "unknown_events": int(answer.unknown_events[-1])}


def known_host(host: str, own: str) -> bool:
    """Whether a Host header cannot be another site's name that was made to resolve to this machine."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").lower().rstrip(".")
    if name in ("localhost", own.lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def serve_playground(playground: Playground, port: int, announce: Callable[[str], None]) -> int:
    """Serve the page until Ctrl-C or SIGTERM.

    Parameters
    ----------
    playground : Playground
        The application.
    port : int
        Free, or 0 for any.
    announce : callable
        Told the page's address once it is there.

    Returns
    -------
    int
        0, the exit code.

    Raises
    ------
    UserError
        When the port is taken or the host is not of this machine.
    """

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runner = web.AppRunner(playground.app(), access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, playground.host, port).start()
            address, chosen = runner.addresses[0][:2]
            announce(f"http://{f'[{address}]' if ':' in address else address}:{chosen}/")
            await stop.wait()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"cannot listen on {playground.host}:{port} ({reason}): choose another --port") from error
        finally:
            await runner.cleanup()

    asyncio.run(run())
    return 0
