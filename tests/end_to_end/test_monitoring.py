"""What Prometheus and the dashboard ask for is there: on a server under a little load.

With `prometheus` and `promtool` on the machine (NEXTITEM_PROMETHEUS may name their folder) they run: each expression of
the dashboard and of the rules has a value, and made-up numbers raise the alerts that they should. Without them the
names in the expressions are looked up among the metrics of the live server.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import UserError
from serving.client import NextItemClient
from serving.ports import free_ports
from serving.server import TritonServer

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]]
ON_PANELS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALERTS = {rule["alert"]: rule["expr"] for rule in RULES if "alert" in rule}

Samples = dict[str, dict[str, float]]


def scrape(server: TritonServer) -> Samples:
    """Metric -> its labels as text -> value."""
    with urllib.request.urlopen(f"http://{server.addresses['metrics']}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    found: Samples = {}
    for line in lines:
        if parts := re.fullmatch(r"(\w+)(\{.*\})? (\S+)", line):
            found.setdefault(parts[1], {})[parts[2] or ""] = float(parts[3])
    return found


def ask(server: TritonServer, sample: dict[str, Any], requests: int) -> float:
    """Ask one after the other, a tenth with unknown items and as many refused; the seconds that the rest took."""
    one = {name: values[:3] for name, values in sample.items()}
    seconds = 0.0
    with NextItemClient(server.addresses["grpc"]) as client:
        for number in range(requests):
            if number % 10 == 1:
                with pytest.raises(UserError, match="time"):
                    client.recommend(one | {"time": ["some day"] * 3})
                continue
            began = time.perf_counter()
            client.recommend(one | ({"item_id": ["never seen"] * 3} if number % 10 == 2 else {}))
            seconds += time.perf_counter() - began
    return seconds


def metric(found: Samples, name: str) -> float:
    """The value of a metric that has one."""
    (value,) = found[name].values()
    return value


@pytest.fixture(scope="module")
def asked(shop: Path, sample: dict[str, Any]) -> Iterator[tuple[TritonServer, float]]:
    """A server of its own that has answered 36 requests and refused 4, and the seconds that the 36 took."""
    with TritonServer(shop / "model_repository", http_port=0, grpc_port=0, metrics_port=0) as server:
        seconds = ask(server, sample, 40)
        deadline = time.monotonic() + 30
        while metric(scrape(server), "nextitem_requests_total") < 36 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield server, seconds


@pytest.fixture(scope="module")
def first(asked: tuple[TritonServer, float]) -> Samples:
    """The metrics after those requests alone."""
    time.sleep(1.5)  # numbers are told once a second
    return scrape(asked[0])


def test_what_is_counted(first: Samples, asked: tuple[TritonServer, float], sample: dict[str, Any]) -> None:
    counted = {name: metric(first, f"nextitem_{name}_total") for name in ("requests", "refused", "failed", "batches")}
    assert counted == {"requests": 36, "refused": 4, "failed": 0, "batches": 36}
    assert metric(first, "nextitem_sessions_total") == 36 * len(set(sample["session_id"][:3]))
    assert metric(first, "nextitem_events_total") == 36 * 3
    assert metric(first, "nextitem_unknown_events_total") >= 4 * 3
    assert metric(first, "nextitem_waiting") == 0
    assert 100 < metric(first, "nextitem_items") <= 200
    assert metric(first, "nextitem_resident_bytes") > 50_000_000
    assert 0 < metric(first, "nextitem_cpu_seconds_total") < 600


def test_durations_are_a_histogram_of_what_clients_wait_for(first: Samples, asked: tuple[TritonServer, float]) -> None:
    buckets = {}
    for labels, count in first["nextitem_request_seconds_bucket"].items():
        le = re.search(r'le="([^"]+)"', labels)
        assert le is not None
        buckets[float(le[1])] = count
    counts = [buckets[bound] for bound in sorted(buckets)]
    assert counts == sorted(counts)
    assert buckets[math.inf] == metric(first, "nextitem_request_seconds_count") == 36
    total = metric(first, "nextitem_request_seconds_sum")
    assert 0 < total < asked[1], "the clients, who asked one after the other, waited longer"
    # No duration is longer than the bound of its bucket, and none shorter than the bound below.
    bounds = [0.0, *sorted(buckets)]
    each = [high - low for low, high in itertools.pairwise([0.0, *counts])]
    assert sum(bound * count for bound, count in zip(bounds, each, strict=False)) <= total
    assert total <= sum(bound * count for bound, count in zip(bounds[1:], each, strict=True) if count)


def test_reasons_of_refusals_are_in_the_log_but_not_each(asked: tuple[TritonServer, float]) -> None:
    lines = [line for line in asked[0].log_text().splitlines() if "request refused: 'time' in event 0" in line]
    assert 1 <= len(lines) <= 4
    assert all(line.startswith("W") for line in lines)


def test_every_metric_that_is_asked_for_exists(first: Samples) -> None:
    expressions = [*ON_PANELS, *RECORDED.values(), *ALERTS.values()]
    names = {name for text in expressions for name in re.findall(r"(?<![:\w])(?:nextitem|nv)_\w+(?!:)", text)}
    assert len(names) > 10
    assert names <= set(first)
    recorded = {name for text in expressions for name in re.findall(r"\bnextitem:[\w:]+", text)}
    assert recorded <= set(RECORDED)
    others = set(re.findall(r"\b[a-z]\w+(?=\{)", " ".join(expressions))) - names
    assert others <= {"up"}


def test_the_dashboard_is_one_that_the_provisioned_data_source_serves() -> None:
    source = yaml.safe_load((MONITORING / "datasource.yml").read_text())["datasources"][0]
    assert {(panel["datasource"]["type"], panel["datasource"]["uid"]) for panel in DASHBOARD["panels"]} == {
        (source["type"], source["uid"])
    }
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in DASHBOARD["panels"]]
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(cells) == len(set(cells)), "no panel lies on another"
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert source["url"] == "http://prometheus:9090"
    targets = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    host, port = targets[0]["targets"][0].split(":")
    assert any(published.endswith(f":{port}") for published in compose[host]["ports"])


def program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("NEXTITEM_PROMETHEUS") or os.environ["PATH"])
    if found is None:
        pytest.skip(f"there is no {name} on this machine")
    return found


def test_promtool_accepts_the_files_and_the_alerts_ring() -> None:
    promtool = program("promtool")
    for arguments in (
        ["check", "config", str(MONITORING / "prometheus.yml")],
        ["check", "rules", "--lint-fatal", str(MONITORING / "rules.yml")],
        ["test", "rules", str(Path(__file__).parent / "alerts.yml")],
    ):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(
    asked: tuple[TritonServer, float], first: Samples, sample: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A Prometheus that has watched the server for some seconds of load, with our rules; its address."""
    server, folder = asked[0], tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / "rules.yml")]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [server.addresses["metrics"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program("prometheus"), *options, f"--web.listen-address={address}"], stdout=log, stderr=log
        )
    try:
        until = threading.Event()

        def load() -> None:
            while not until.wait(0.2):
                ask(server, sample, 10)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not watched(address):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        finally:
            until.set()
            thread.join()
        yield address
    finally:
        process.terminate()
        process.wait(30)


def query(address: str, expression: str) -> list[float]:
    """The values of an expression now."""
    question = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{question}", timeout=10) as reply:
        answer = json.load(reply)
    assert answer["status"] == "success"
    return [float(one["value"][1]) for one in answer["data"]["result"]]


def watched(address: str) -> bool:
    """Whether Prometheus has seen the counters grow a few times."""
    try:
        return query(address, "changes(nextitem_refused_total[1m]) > bool 4") == [1.0]
    except OSError:
        return False


@pytest.mark.parametrize("expression", [*ON_PANELS, *RECORDED, *RECORDED.values()])
def test_every_expression_has_a_value(prometheus: str, expression: str) -> None:
    values = query(prometheus, expression.replace("$__rate_interval", "1m"))
    assert values, expression
    assert all(math.isfinite(value) and value >= 0 for value in values)


def test_values_are_those_of_the_load(prometheus: str) -> None:
    assert query(prometheus, "nextitem:refused:share") == pytest.approx([0.1], abs=0.06)
    (p99,) = query(prometheus, "nextitem:request_seconds:p99")
    assert 0 < p99 <= 10
    assert query(prometheus, "nextitem:failed:share") == [0.0]
    assert query(prometheus, "nextitem:stuck:requests") == [0.0]
    assert query(prometheus, 'up{job="nextitem"}') == [1.0]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_compares_something_that_has_a_value(prometheus: str, name: str) -> None:
    value, compared, bound = re.split(r" (>|==) (?=[\d.]+$)", ALERTS[name])
    assert compared
    assert float(bound) >= 0
    assert query(prometheus, value)
