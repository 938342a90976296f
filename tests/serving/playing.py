"""A playground in this process: a catalogue by hand, and its server in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from aiohttp import web

from preprocessing.settings import Dataset
from serving.playground.catalogue import Catalogue, Click
from serving.playground.server import Playground

HOSTILE = '<img src=x onerror="document.title=1">'
ITEMS = {"mug": 2.0, "tea": 3.0, "tea+1": 1.0, "?odd": 4.0, HOSTILE: 5.0}
SECOND = 1_000_000_000
DATASET = Dataset.model_validate(
    {
        "name": "echo",
        "events": {"files": "none.csv", "session": "session_id", "item": "item_id", "time": "time"},
        "features": {"item": {"continuous": ["price"]}, "event": {"categorical": ["kind"]}},
    }
)


def catalogue(kinds: dict[str, int] | None = None, time: dict[str, str | None] | None = None) -> Catalogue:
    types = {"session_id": "INT64", "item_id": "BYTES", "time": "BYTES" if time is None else "INT64", "price": "FP64"}
    if kinds:
        types["kind"] = "BYTES"
    roles = {"session_id": "session", "item_id": "item", "time": "time"}
    columns = [{"name": name, "type": kind, "role": roles.get(name, "feature")} for name, kind in types.items()]
    request = {"columns": columns, "time": time or {"unit": None, "format": None}}
    count = len(ITEMS)
    latest = pa.table(
        {
            "session_id": [1] * count,
            "item_id": list(ITEMS),
            "time": [row * SECOND for row in range(count)],
            "price": list(ITEMS.values()),
            "kind": ["view"] * count,
        }
    )
    return Catalogue(DATASET, request, latest, {"kind": Counter(kinds or {})}, [[Click("mug"), Click("tea", 5.0)]])


@contextmanager
def running(url: str, protocol: str = "grpc", host: str = "127.0.0.1") -> Iterator[str]:
    """The playground at an address, in a thread of its own."""
    loop, address = asyncio.new_event_loop(), ""
    runner = web.AppRunner(Playground(catalogue(), url, protocol, host).app(), access_log=None)

    async def start() -> None:
        nonlocal address
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"127.0.0.1:{runner.addresses[0][1]}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield address
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
