"""The playground's page in a real browser, with answers of a real Triton that can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from serving.ports import free_ports
from serving.server import TritonServer
from tests.browser import opened
from tests.serving.echo_repository import TOP_K, write_echo_repository
from tests.serving.playing import HOSTILE, ITEMS, running


@pytest.fixture(scope="module")
def address(options_server: TritonServer) -> Iterator[str]:
    with running(options_server.addresses["grpc"]) as address:
        yield address


def test_click_a_session_together_and_watch(address: str) -> None:
    with opened(f"http://{address}/") as page:
        page.until_texts("#hits .id", list(ITEMS))
        page.click("#hits li:nth-child(1) button")
        page.until_texts("#next .id", [f"mug+{rank}" for rank in range(1, TOP_K + 1)])
        assert page.texts("#next .score") == ["2.00", "1.00", "0.67", "0.50", "0.40"]
        page.click("#hits li:nth-child(2) button")
        page.until_texts("#next .id", [f"tea+{rank}" for rank in range(1, TOP_K + 1)])
        assert page.texts("#next .score")[0] == "5.00", "the prices of both events, added up"
        assert "price 1" in page.texts("#next .features")[0]
        assert page.texts("#next .features")[1] == "not in the catalogue"

        page.click("#next li:nth-child(1) button")
        page.until_texts("#events .id", ["mug", "tea", "tea+1"])
        page.until_texts("#next .id", [f"tea+1+{rank}" for rank in range(1, TOP_K + 1)])
        page.click("#events li:nth-child(3) .remove")
        page.until_texts("#next .id", [f"tea+{rank}" for rank in range(1, TOP_K + 1)])
        assert page.texts("#events .id") == ["mug", "tea"]
        assert page.focused() == "Remove event 2, tea"
        page.click("#clear")
        page.until_texts("#next .id", [])
        assert page.one("#waiting").is_displayed()
        assert page.errors() == []


def test_options_change_the_answer(address: str) -> None:
    with opened(f"http://{address}/") as page:
        page.until(lambda: page.one("#exclude-seen").is_enabled())
        for row in (3, 2):
            page.click(f"#hits li:nth-child({row}) button")
        page.until_texts("#next .id", ["tea+1", "tea+2", "tea+3", "tea+4", "tea+5"])
        page.one("#exclude-seen").click()
        page.until_texts("#next .id", ["tea+2", "tea+3", "tea+4", "tea+5"])
        count = page.one("#top-k")
        count.send_keys(Keys.CONTROL + "a")
        count.send_keys("2")
        page.until_texts("#next .id", ["tea+2", "tea+3"])
        assert json.loads(page.one("#sent").get_attribute("textContent"))["exclude_seen"] is True
        assert page.errors() == []


def test_unknown_items_are_told_and_hostile_ones_stay_text(address: str) -> None:
    with opened(f"http://{address}/") as page:
        page.until(lambda: len(page.all("#hits li")) == len(ITEMS))
        page.click("#hits li:nth-child(5) button")
        page.until_texts("#next .id", [f"{HOSTILE}+{rank}" for rank in range(1, TOP_K + 1)])
        page.click("#hits li:nth-child(4) button")
        page.until_texts("#unknown", ["1 of 2 events shows an item that the model does not know."])
        assert page.texts("#events .id") == [HOSTILE, "?odd"]
        page.one("#search").send_keys("?<b>stranger</b>")
        page.until_texts("#hits .id", ["?<b>stranger</b>"])
        page.click("#hits button")
        page.until_texts("#unknown", ["2 of 3 events show items that the model does not know."])
        assert page.all("main img, main b.stranger, #events .id b") == []
        assert page.driver.title == "nextitem playground"
        assert page.errors() == []


def test_all_of_it_by_keyboard(address: str) -> None:
    with opened(f"http://{address}/", width=400) as page:
        page.until(lambda: page.all("#hits li"))
        page.type("/")
        assert page.focused() == "search"
        page.type("tea", Keys.ENTER)
        page.until_texts("#events .id", ["tea"])
        page.type(Keys.ARROW_DOWN)
        assert page.focused() == "Add tea, price 3"
        page.type(Keys.ARROW_DOWN, Keys.ENTER)
        page.until_texts("#events .id", ["tea", "tea+1"])
        page.until(lambda: page.texts("#said") == ["5 recommendations for 2 events, first tea+1+1"])
        wide = page.driver.execute_script("return document.documentElement.scrollWidth > window.innerWidth")
        assert not wide, "a narrow screen needs no scrolling sideways"
        unnamed = [field for field in page.all("button, input, select") if not field.accessible_name]
        assert unnamed == []


def test_triton_goes_and_comes_back(tmp_path: Path) -> None:
    repository = write_echo_repository(tmp_path / "model_repository")
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    with running(f"127.0.0.1:{ports['grpc_port']}") as address, opened(f"http://{address}/") as page:
        page.until(lambda: page.one("#problem").is_displayed())
        assert "No server answers at 127.0.0.1:" in page.one("#problem").text
        assert "start one with 'nextitem serve'" in page.one("#problem").text
        page.click("#hits li:nth-child(1) button")
        with TritonServer(repository, **ports):
            page.until_texts("#next .id", [f"mug+{rank}" for rank in range(1, TOP_K + 1)])
            assert not page.one("#problem").is_displayed()
            assert not page.one("#exclude-seen").is_enabled(), "an older export cannot"
            assert page.texts("#server-text")[0].startswith("Triton at 127.0.0.1:")
        page.click("#hits li:nth-child(2) button")
        page.until(lambda: page.one("#problem").is_displayed())
        assert page.texts("#server-text") == ["Triton is away"]
        assert page.texts("#events .id") == ["mug", "tea"]
