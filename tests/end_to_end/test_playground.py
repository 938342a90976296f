"""`nextitem playground` before a live server: what the page shows is what the client gets."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from serving.client import NextItemClient
from tests.browser import opened

COMMAND = Path(sys.executable).parent / "nextitem"


@contextmanager
def playing(*arguments):
    """The command as a person starts it; gives the address it prints and what it says."""
    command = [str(COMMAND), "playground", *map(str, arguments), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | {"COLUMNS": "200"}, **pipes)
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.stderr.read()
        yield address, process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address(shop, server):
    with playing("--features", shop / "features", "--url", server.addresses["grpc"]) as (address, said):
        assert "200 items from" in said
        assert "events.parquet" in said
        yield address


def shown(page):
    return [entry.get_attribute("data-item") for entry in page.all("#next button")]


def asked(page, server):
    """What the client gets for the request that the page says it sent."""
    sent = json.loads(page.one("#sent").get_attribute("textContent"))
    with NextItemClient(server.addresses["grpc"]) as client:
        return client.recommend(sent.pop("events"), **sent)


def agrees(page, server, events):
    page.until(lambda: f"for {events} event" in page.texts("#said")[0])
    answer = asked(page, server)
    assert shown(page) == answer.item_id[0]
    scores = [float(text) for text in page.texts("#next .score")]
    np.testing.assert_allclose(scores, answer.score[0], atol=0.005 + 1e-4)
    return shown(page)


def test_the_page_shows_what_the_client_gets(address, server, events):
    with opened(address) as page:
        page.until(lambda: page.all("#hits li"))
        counts = pc.value_counts(events["item_id"]).to_pylist()
        most = max(counts, key=lambda pair: pair["counts"])["values"]
        assert page.texts("#hits .id")[0] == most, "the most popular item comes first"

        page.click("#hits li:nth-child(1) button")
        first = agrees(page, server, 1)
        assert len(first) == 10
        page.one("#search").send_keys("category-03")
        page.until(lambda: all("category-03" in text for text in page.texts("#hits .features")))
        page.click("#hits li:nth-child(2) button")
        second = agrees(page, server, 2)
        assert second != first

        chosen = page.all("#next button")[2]
        page.driver.execute_script("arguments[0].click()", chosen)
        agrees(page, server, 3)
        assert page.texts("#events .id")[2] == second[2]
        latest = events.filter(pc.equal(events["item_id"], second[2])).sort_by("time").to_pylist()[-1]
        told = page.texts("#events .features")[2]
        assert latest["category"] in told
        assert f"{latest['price']:.6g}" in told

        page.one("#search").clear()
        page.one("#search").send_keys("sku-of-another-shop")
        page.until_texts("#hits .id", ["sku-of-another-shop"])
        page.click("#hits button")
        page.until_texts("#unknown", ["1 of 4 events shows an item that the model does not know."])
        agrees(page, server, 4)
        assert page.errors() == []


def test_the_type_of_a_click_counts(address, server):
    with opened(address) as page:
        page.until(lambda: page.all("#hits li"))
        page.click("#hits li:nth-child(3) button")
        agrees(page, server, 1)
        scores = page.texts("#next .score")
        page.driver.execute_script(
            "const kind = document.querySelector('#events select'); kind.value = 'cart';"
            "kind.dispatchEvent(new Event('change'))"
        )
        page.until(lambda: page.texts("#next .score") != scores)
        agrees(page, server, 1)
        assert '"event_type": ["cart"]' in page.one("#sent").get_attribute("textContent")


def test_options(address, server):
    with opened(address) as page:
        page.until(lambda: page.all("#hits li"))
        page.until(lambda: page.one("#server").get_attribute("class") == "ready")
        page.click("#real")
        page.until(lambda: page.all("#next button"))
        page.driver.execute_script(
            "const count = document.querySelector('#top-k'); count.value = '20';count.dispatchEvent(new Event('input'))"
        )
        page.until(lambda: len(page.all("#next button")) == 20)
        assert shown(page) == asked(page, server).item_id[0]
        if not page.one("#exclude-seen").is_enabled():
            pytest.skip("the served model does not take exclude_seen")
        page.one("#exclude-seen").click()
        page.until(lambda: '"exclude_seen": true' in page.one("#sent").get_attribute("textContent"))
        assert shown(page) == asked(page, server).item_id[0]
        assert set(shown(page)).isdisjoint(page.texts("#events .id"))


def test_items_from_the_sample_where_the_events_are_elsewhere(shop, server, sample, tmp_path, monkeypatch):
    import shutil
    import urllib.request

    shutil.copytree(shop / "features", tmp_path / "features")
    monkeypatch.chdir(tmp_path)
    with playing("--url", server.addresses["grpc"]) as (address, said):
        count = len(set(sample["item_id"]))
        assert f"{count} items from features/sample.parquet" in said
        with urllib.request.urlopen(f"{address}api/catalogue") as reply:
            assert json.load(reply)["items"] == count


def test_mistakes_get_one_line(shop, tmp_path):
    for arguments, message in (
        (["--features", tmp_path], "run 'nextitem preprocess' first"),
        (["--features", shop / "features", "--events", "none/*.csv"], "no file matches 'none/*.csv'"),
        (["--features", shop / "features", "--host", "203.0.113.1"], "choose another --port"),
    ):
        command = [str(COMMAND), "playground", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "200"})
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
