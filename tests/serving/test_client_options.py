"""What a request may ask for beyond its events, and the client for asyncio: both clients, protocols, real servers."""

from __future__ import annotations

import asyncio
import inspect
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from serving.aio import AsyncNextItemClient
from serving.client import NextItemClient, Recommendations, Unreachable
from serving.ports import free_ports
from serving.server import TritonServer
from tests.serving.echo_repository import INPUTS, TOP_K

EVENTS: dict[str, Any] = {
    "session_id": [7, 8, 7],
    "item_id": ["mug", "tea", "pot"],
    "time": ["2024-05-01T10:00:00", "2024-05-01T10:00:01", "2024-05-01T10:00:02"],
    "price": [2.0, 3.0, 4.0],
}
LOWEST = float(np.finfo(np.float32).min)
Ask = Callable[..., Recommendations]


def asking(waiting: bool, protocol: str) -> Callable[[str], Ask]:
    """A function that asks once, by either client."""

    def at(address: str) -> Ask:
        def ask(events: Mapping[str, Any] = EVENTS, timeout: float = 60.0, **options: Any) -> Recommendations:
            if waiting:
                with NextItemClient(address, protocol, timeout) as client:
                    return client.recommend(events, **options)

            async def run() -> Recommendations:
                async with AsyncNextItemClient(address, protocol, timeout) as client:
                    return await client.recommend(events, **options)

            return asyncio.run(run())

        return ask

    return at


@pytest.fixture(params=[(True, "grpc"), (True, "http"), (False, "grpc"), (False, "http")], ids=str)
def way(request: pytest.FixtureRequest) -> tuple[bool, str]:
    waiting, protocol = request.param
    return waiting, protocol


@pytest.fixture
def ask(way: tuple[bool, str], options_server: TritonServer) -> Ask:
    return asking(*way)(options_server.addresses[way[1]])


@pytest.fixture
def ask_older(way: tuple[bool, str], echo_server: TritonServer) -> Ask:
    return asking(*way)(echo_server.addresses[way[1]])


def test_events_alone(ask: Ask, ask_older: Ask) -> None:
    answer = ask()
    assert answer.session_id == [7, 8]
    assert answer.item_id == [[f"{last}+{rank}" for rank in range(1, TOP_K + 1)] for last in ("pot", "tea")]
    assert answer.score[:, 0].tolist() == [6, 3]
    assert answer.to_dict() == ask_older().to_dict()


def test_top_k_is_the_servers_to_cut(ask: Ask) -> None:
    assert ask(top_k=2).item_id == [["pot+1", "pot+2"], ["tea+1", "tea+2"]]
    with pytest.raises(UserError, match=f"refused: top_k is {TOP_K + 1}: ask for 1 to {TOP_K}"):
        ask(top_k=TOP_K + 1)
    with pytest.raises(UserError, match="top_k is 0: ask for at least one item"):
        ask(top_k=0)
    with pytest.raises(UserError, match=r"column top_k, row 1: expected an integer, got 1\.5"):
        ask(top_k=1.5)


def test_seen_items_are_struck_for_their_session_only(ask: Ask) -> None:
    events = EVENTS | {"item_id": ["pot+1", "tea", "pot"]}
    assert ask(events, top_k=2, exclude_seen=True).item_id == [["pot+2", "pot+3"], ["tea+1", "tea+2"]]
    assert ask(events, top_k=2, exclude_seen=False).item_id == [["pot+1", "pot+2"], ["tea+1", "tea+2"]]


def test_excluded_items_are_struck_for_all_sessions(ask: Ask) -> None:
    answer = ask(top_k=2, excluded=["tea+1", "pot+2", "никогда"])
    assert answer.item_id == [["pot+1", "pot+3"], ["tea+2", "tea+3"]]
    assert answer.score.tolist() == [[6, 2], [1.5, 1]]
    assert ask(top_k=2, excluded=[]).item_id == ask(top_k=2).item_id
    assert ask(top_k=2, excluded=np.array(["pot+1"])).item_id[0] == ["pot+2", "pot+3"]


def test_only_candidates_are_recommended(ask: Ask) -> None:
    answer = ask(top_k=3, candidates=["pot+4", "tea+2", "pot+2"], excluded=["tea+2"])
    assert answer.item_id == [["pot+2", "pot+4", ""], ["", "", ""]]
    assert answer.score.tolist() == [[3, 1.5, LOWEST], [LOWEST] * 3]
    with pytest.raises(UserError, match="candidates is empty: give at least one item id, or leave it out"):
        ask(candidates=[])
    with pytest.raises(UserError, match="excluded is one text: give a list of item ids"):
        ask(excluded="pot+1")
    with pytest.raises(UserError, match=r"column excluded, row 2: expected text, got 1\.5"):
        ask(excluded=["pot+1", 1.5])


def test_model_of_an_older_export(ask_older: Ask) -> None:
    assert ask_older(top_k=2).item_id == [["pot+1", "pot+2"], ["tea+1", "tea+2"]]
    with pytest.raises(UserError, match=f"exported with {TOP_K}: ask for at most {TOP_K}"):
        ask_older(top_k=TOP_K + 1)
    for option in ({"exclude_seen": True}, {"excluded": ["mug"]}, {"candidates": ["mug"]}):
        with pytest.raises(UserError) as error:
            ask_older(**option)
        assert f"takes no {next(iter(option))}: export it again with this version" in str(error.value)


def test_options_are_no_event_columns(way: tuple[bool, str], options_server: TritonServer) -> None:
    with NextItemClient(options_server.addresses[way[1]], way[1]) as client:
        assert list(client.inputs) == list(INPUTS)
        assert client.contract.options == {
            "top_k": "INT64",
            "exclude_seen": "BOOL",
            "excluded": "BYTES",
            "candidates": "BYTES",
        }

    async def inputs() -> dict[str, str]:
        async with AsyncNextItemClient(options_server.addresses[way[1]], way[1]) as waiting:
            return await waiting.inputs

    assert asyncio.run(inputs()) == client.inputs


def test_errors_are_the_same_by_every_way(ask: Ask, way: tuple[bool, str], options_server: TritonServer) -> None:
    with pytest.raises(UserError, match="refused: column 'item_id' is empty in row 2"):
        ask(EVENTS | {"item_id": ["mug", "", "pot"]})
    with pytest.raises(UserError, match="missing column price: the model expects session_id"):
        ask({name: column for name, column in EVENTS.items() if name != "price"})
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(Unreachable, match=f"no server answers at {nobody}: start one with 'nextitem serve'"):
        asking(*way)(nobody)()
    other = options_server.addresses["grpc" if way[1] == "http" else "http"]
    with pytest.raises(UserError) as error:
        asking(*way)(other)(timeout=3.0)
    assert other in str(error.value)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"the server at {address} did not answer in 0.5 s"):
            asking(*way)(address)(timeout=0.5)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_many_requests_at_a_time_in_one_loop(protocol: str, options_server: TritonServer) -> None:
    async def run() -> list[Recommendations]:
        async with AsyncNextItemClient(options_server.addresses[protocol], protocol) as client:
            assert await client.ready()
            requests = (client.recommend(EVENTS | {"item_id": [f"{number}"] * 3}, top_k=1) for number in range(40))
            return await asyncio.gather(*requests)

    assert [answer.item_id[1] for answer in asyncio.run(run())] == [[f"{number}+1"] for number in range(40)]


def test_a_server_that_is_away_is_not_ready() -> None:
    async def ready() -> bool:
        async with AsyncNextItemClient(f"127.0.0.1:{free_ports(1)[0]}") as client:
            return await client.ready()

    assert not asyncio.run(ready())


def test_both_clients_have_the_same_face() -> None:
    assert inspect.signature(NextItemClient) == inspect.signature(AsyncNextItemClient)
    assert inspect.signature(NextItemClient.recommend) == inspect.signature(AsyncNextItemClient.recommend)
    public = [{name for name in dir(kind) if name[0] != "_"} for kind in (NextItemClient, AsyncNextItemClient)]
    assert public[0] == public[1]


def test_the_client_for_asyncio_needs_neither_pandas_nor_torch() -> None:
    code = (
        "import sys; from serving.aio import AsyncNextItemClient as C; C('h:1'); C('h:1', 'http');"
        "print(sorted({'pandas', 'torch', 'merlin', 'nvtabular', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
