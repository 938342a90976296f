"""The playground's catalogue by hand, and its small server before a real Triton and under attack."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from serving.playground.catalogue import Click
from serving.playground.server import MAX_BODY, MAX_EVENTS, PAGE, known_host
from serving.ports import free_ports
from serving.server import TritonServer
from tests.serving.echo_repository import TOP_K
from tests.serving.playing import catalogue, running


@pytest.fixture(scope="module")
def address(options_server: TritonServer) -> Iterator[str]:
    with running(options_server.addresses["grpc"]) as address:
        yield address


def call(address: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(address, timeout=30)
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        named.setdefault("Content-Type", "application/json")
    connection.request("GET" if body is None else "POST", path, sent, named)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    json_came = "json" in (reply.headers["Content-Type"] or "")
    return reply.status, json.loads(content) if json_came else content, reply.headers


# ---- catalogue


def test_a_click_becomes_the_items_latest_event_and_the_clock_goes_on() -> None:
    columns = catalogue({"view": 9, "cart": 1}).columns(
        [
            Click("tea"),
            Click("mug", 1.5, {"kind": "cart"}),
            Click("new", 2, {"kind": "no such kind"}),
        ]
    )
    assert columns == {
        "session_id": [1, 1, 1],
        "item_id": ["tea", "mug", "new"],
        "time": ["1970-01-01T00:00:04", "1970-01-01T00:00:05.500000", "1970-01-01T00:00:06"],
        "price": [3.0, 2.0, None],
        "kind": ["view", "cart", "view"],
    }


def test_times_are_written_as_the_data_has_them() -> None:
    clicks = [Click("tea"), Click("mug", 61)]
    assert catalogue(time={"unit": "ms", "format": None}).columns(clicks)["time"] == [4000, 65000]
    written = catalogue()
    written._time = {"unit": None, "format": "%d.%m.%Y %H:%M:%S"}
    assert written.columns(clicks)["time"] == ["01.01.1970 00:00:04", "01.01.1970 00:01:05"]


def test_a_column_of_the_event_is_chosen_from_its_most_frequent_values() -> None:
    assert catalogue({"cart": 1, "view": 9}).choices == {"kind": ["view", "cart"]}
    assert catalogue({"view": 9}).choices == {}
    many = catalogue({f"{number}": number for number in range(1, 51)})
    assert many.choices == {"kind": [f"{number}" for number in range(50, 38, -1)]}
    assert many.columns([Click("mug"), Click("mug", 1, {"kind": "3"})])["kind"] == ["50", "3"], "rare ones count too"


def test_search_wants_every_word_in_id_or_features() -> None:
    items = catalogue()
    assert items.search("", 2) == ["mug", "tea"]
    assert items.search("TEA", 9) == ["tea", "tea+1"]
    assert items.search("tea+1", 9) == ["tea+1"]
    assert items.search("tea 3", 9) == ["tea"]
    assert items.search("nothing", 9) == []
    assert items.describe("tea") == {"price": "3"}
    assert items.describe("nothing") == {}


# ---- the small server


def test_answers_are_tritons(address: str) -> None:
    status, answer, _ = call(address, "/api/recommend", {"events": [{"item": "mug"}, {"item": "?odd", "after": 2}]})
    assert status == 200
    assert [entry["item"] for entry in answer["items"]] == [f"?odd+{rank}" for rank in range(1, TOP_K + 1)]
    assert answer["items"][1]["score"] == 3.0
    assert answer["unknown_events"] == 1
    assert answer["sent"]["events"]["price"] == [2.0, 4.0]
    assert call(address, "/api/model")[1] == {
        "options": ["top_k", "exclude_seen", "excluded", "candidates"],
        "top_k": TOP_K,
    }
    assert [entry["item"] for entry in call(address, "/api/session")[1]] == ["mug", "tea"]


def test_places_that_nothing_fills_are_not_shown(address: str) -> None:
    question = {"events": [{"item": "tea+1"}, {"item": "tea"}], "exclude_seen": True}
    answer = call(address, "/api/recommend", question)[1]
    assert [entry["item"] for entry in answer["items"]] == ["tea+2", "tea+3", "tea+4", "tea+5"]


def test_an_older_export_has_no_options(echo_server: TritonServer) -> None:
    with running(echo_server.addresses["http"], "http") as older:
        assert call(older, "/api/model")[1] == {"options": [], "top_k": TOP_K}
        assert len(call(older, "/api/recommend", {"events": [{"item": "mug"}], "top_k": 2})[1]["items"]) == 2
        status, answer, _ = call(older, "/api/recommend", {"events": [{"item": "mug"}], "exclude_seen": True})
        assert (status, "takes no exclude_seen" in answer["error"]) == (422, True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        ([], 400),
        ({}, 400),
        ({"events": []}, 400),
        ({"events": [{"item": ""}]}, 400),
        ({"events": [{"item": 7}]}, 400),
        ({"events": [{"item": "a" * 257}]}, 400),
        ({"events": [{"item": "mug"}] * (MAX_EVENTS + 1)}, 400),
        ({"events": [{"item": "mug", "after": -1}]}, 400),
        (b'{"events": [{"item": "mug", "after": NaN}]}', 400),
        ({"events": [{"item": "mug", "after": 1e300}]}, 400),
        ({"events": [{"item": "mug"}], "top_k": 0}, 400),
        ({"events": [{"item": "mug"}], "top_k": 10**9}, 400),
        ({"events": [{"item": "mug"}], "surprise": 1}, 400),
        ({"events": [{"item": "mug"}], "top_k": TOP_K + 1}, 422),
        (b"[" * 100_000, 400),
        (b" " * (MAX_BODY + 1), 413),
    ],
)
def test_bad_questions_get_a_line_and_the_page_goes_on(address: str, body: Any, status: int) -> None:
    got, answer, _ = call(address, "/api/recommend", body)
    assert got == status
    assert answer["error"]
    assert "\n" not in answer["error"]
    assert call(address, "/api/recommend", {"events": [{"item": "mug"}]})[0] == 200


def test_no_other_site_can_ask(address: str) -> None:
    question = {"events": [{"item": "mug"}]}
    assert call(address, "/api/recommend", question, Origin=f"http://{address}")[0] == 200
    assert call(address, "/api/recommend", question, Origin="http://elsewhere.example")[0] == 403
    assert call(address, "/api/recommend", question, Origin="null")[0] == 403
    assert call(address, "/api/recommend", question, Sec_Fetch_Site="cross-site")[0] == 403
    assert call(address, "/api/items", Sec_Fetch_Site="same-site")[0] == 403
    # What a form of another site can send without asking first.
    assert call(address, "/api/recommend", question, Content_Type="text/plain")[0] == 415
    headers = call(address, "/api/items")[2]
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/style.css", "/playground.js", "/api/items", "/api/catalogue"])
def test_a_name_that_was_made_to_resolve_here_gets_nothing(address: str, path: str) -> None:
    port = address.rpartition(":")[2]
    for host in (f"elsewhere.example:{port}", "localhost.elsewhere.example", "127.0.0.1.elsewhere.example", ""):
        assert call(address, path, Host=host)[0] in (400, 403), host
    for host in (address, f"localhost:{port}", f"[::1]:{port}"):
        status, _, headers = call(address, path, Host=host)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_names_of_this_page() -> None:
    assert known_host("shop.lan:8003", "shop.lan")
    assert known_host("192.168.0.7:8003", "0.0.0.0")
    assert not known_host("shop.lan:8003", "0.0.0.0")


@pytest.mark.parametrize("path", ["/../server.py", "/..%2fserver.py", "/page/index.html", "/%2e%2e/catalogue.py", "/x"])
def test_only_the_three_files_are_served(address: str, path: str) -> None:
    assert call(address, path)[0] == 404


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "9" * 5000, "000100999", "²"])
def test_limit_of_a_search(address: str, limit: str) -> None:
    status, answer, _ = call(address, f"/api/items?limit={quote(limit)}")
    assert (status, answer) == (422, {"error": "limit must be from 1 to 100"})


def test_triton_away_is_told_from_a_mistake() -> None:
    away = f"127.0.0.1:{free_ports(1)[0]}"
    with running(away) as address:
        for path, body in (("/api/model", None), ("/api/recommend", {"events": [{"item": "mug"}]})):
            status, answer, _ = call(address, path, body)
            assert status == 503
            assert answer == {"error": f"no server answers at {away}: start one with 'nextitem serve'", "away": True}
        assert call(address, "/api/catalogue")[0] == 200


def test_the_page_loads_nothing_from_elsewhere_and_builds_no_html() -> None:
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, file
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
