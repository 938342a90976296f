"""The benchmark of serving: its data, its counting, its words, and the program as a whole."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.server import check, data, drive, report, requests, workflow
from common.errors import UserError
from preprocessing.preprocess import load_workflow, preprocess

ITEMS = 1500


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A folder with the events of a small catalogue, their description, and the features."""
    folder = tmp_path_factory.mktemp("catalogue")
    dataset = data.make(folder, ITEMS)
    preprocess(dataset, folder / "features")
    return folder, dataset


def test_every_item_is_known(catalogue):
    folder, dataset = catalogue
    events = pq.read_table(folder / data.EVENTS).to_pandas()
    assert events["time"].is_monotonic_increasing
    assert events.groupby("session_id").size().min() >= 2
    assert events.groupby("item_id")["category"].nunique().max() == 1
    train = data.training_events(folder, dataset).to_pandas()
    assert train["item_id"].nunique() == ITEMS == events["item_id"].nunique()
    starts, valid = events.groupby("session_id")["time"].min(), dataset.split.valid_from.timestamp() * 1000
    assert set(train["session_id"]) == set(starts.index[starts < valid])
    manifest = json.loads((folder / "features" / "manifest.json").read_text())
    assert manifest["report"]["items"] == ITEMS
    assert manifest["report"]["windows"]["train"]["sessions"] == train["session_id"].nunique()


def test_stock_operators_make_the_same_features(catalogue, tmp_path):
    folder, dataset = catalogue
    ours = load_workflow(folder / "features")
    stock = workflow.fit(ours, data.training_events(folder, dataset), tmp_path)
    sample = pq.read_table(folder / "features" / "sample.parquet").to_pandas()
    expected = ours.transform(sample.assign(time=sample["time"] * 1_000_000)).sort_values("session_id")
    found = stock.transform(sample)
    assert len(found) == len(expected) > 100
    for name in ("item_id", "category", "price", "hour_sin", "hour_cos"):
        for one, other in zip(expected[name], found[name], strict=True):
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=1e-5)


def test_requests_are_whole_sessions(catalogue):
    folder, _ = catalogue
    sessions = requests.sessions_of(folder)
    assert len(sessions) >= 128
    assert all(len(np.unique(session["session_id"])) == 1 for session in sessions)
    both = requests.joined(sessions[:2])
    assert len(both["item_id"]) == len(sessions[0]["item_id"]) + len(sessions[1]["item_id"])
    assert both["item_id"].dtype == np.object_


def test_cpu_time_of_a_group(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    # pid (name) state parent group session tty tpgid flags minflt cminflt majflt cmajflt utime stime ...
    lines = {
        "10": f"10 (tritonserver) S 1 10 10 0 -1 0 1 2 3 4 {3 * ticks} {1 * ticks} 9 9 20 0",
        "11": f"11 (a stub) (1) 7 10) R 10 10 10 0 -1 0 1 2 3 4 {2 * ticks} {ticks // 2} 9 9 20 0",
        "12": f"12 (other) S 1 12 12 0 -1 0 1 2 3 4 {50 * ticks} 0 9 9 20 0",
    }
    for pid, line in lines.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(line + "\n")
    (tmp_path / "13").mkdir()  # a process that ended before it was read
    (tmp_path / "self").mkdir()
    assert drive.cpu_seconds(10, tmp_path) == 6.5
    assert drive.cpu_seconds(99, tmp_path) == 0


def test_cpu_time_of_a_group_is_that_of_its_processes():
    # A group of its own: in that of the tests others end, and take their time with them.
    spin = "import os, sys\nsys.stdin.readline()\nwhile sum(os.times()[:2]) < 0.5: pass\n"
    spin += "print(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-S", "-c", spin]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert drive.cpu_seconds(child.pid) < 0.3
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        assert 0.45 <= drive.cpu_seconds(child.pid) < 0.7
        child.stdin.close()


def test_requests_are_counted_over_versions_refusals_too():
    versions = [
        {"inference_stats": {"success": {"count": "40", "ns": "1"}, "fail": {"count": 2}}},
        {"inference_stats": {"success": {"count": 8}, "fail": {}}},
    ]
    assert drive.count_of({"model_stats": versions}) == 50


def test_answers_are_compared_but_for_ties():
    ours = {7: check.Answer(["a", "b", "c"], [3.0, 2.0, 1.0]), 8: check.Answer(["a", "b", "c"], [3.0, 2.0, 2.0])}
    swapped = {**ours, 8: check.Answer(["a", "c", "b"], [3.0, 2.0, 2.0])}
    cut = {**ours, 8: check.Answer(["a", "b", "d"], [3.0, 2.0, 2.0])}
    other = {**ours, 7: check.Answer(["a", "c", "b"], [3.0, 2.0, 1.0])}
    scores = {**ours, 7: check.Answer(["a", "b", "c"], [3.0, 2.5, 1.0])}
    for same in (ours, swapped, cut):
        assert check.compare(ours, same) == "the same items for all 2 sessions"
    assert check.compare(ours, other) == "other items for 1 of 2 sessions, such as 7; 100% of theirs are common"
    assert check.compare(ours, scores).startswith("other items for 1 of 2")
    assert check.compare(ours, {7: ours[7]}) == "other sessions: 2 and 1 were answered"


def _row(rate, p99, cpu):
    return {"req_per_s": rate, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": p99, "cpu_ms_per_req": cpu}


RESULTS = {
    "items": 10_000,
    "nextitem": {"c1": _row(500.0, 2.0, 1.5), "c16": _row(1000.0, 20.0, 1.0), "http": {"c1": _row(400.0, 3.0, 2.0)}},
    "stock": {"c1": _row(20.0, 60.0, 40.0), "c16": _row(25.0, 1000.0, 40.0)},
    "model": {"c16": _row(1500.0, 15.0, 0.8)},
    "noop": {"failure": "it did not start"},
}


def test_results_are_put_into_words():
    assert report.rows_of(RESULTS, "nextitem", "http") == {"c1": RESULTS["nextitem"]["http"]["c1"]}
    assert list(report.rows_of(RESULTS, "nextitem", "grpc")) == ["c1", "c16"]
    assert report.rows_of(RESULTS, "noop", "grpc") == report.rows_of(RESULTS, "stock", "http") == {}
    assert [report.words(load) for load in ("c1", "c16", "b128", "r200")] == [
        "1 client",
        "16 clients",
        "128 sessions a request",
        "200 requests/s",
    ]
    assert report.sentences(RESULTS) == [
        "At 16 clients nextitem answers 40.0 times the requests of stock, its p99 is 1/50.0, its CPU a request 1/40.0.",
        "Its CPU a request is 1.25 times that of the TorchScript model alone.",
        "noop: it did not start",
    ]
    report.show(RESULTS)


def _run(*arguments, **environment):
    command = [sys.executable, "-m", "benchmarks.serving", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ, **environment})


@pytest.mark.slow
def test_program(tmp_path):
    sizes = ("--items", "1000", "--seconds", "1", "--clients", "1,2")
    done = _run(*sizes, "--engines", "noop", "--json", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    results = json.loads(line)
    assert set(results) == {"items", "noop"}
    assert results["items"] == 1000
    assert set(results["noop"]) == {"c1", "c2", "b128", "http"}
    assert set(results["noop"]["http"]) == {"c1", "c2", "b128"}
    for one in (results["noop"], results["noop"]["http"]):
        for load in ("c1", "c2", "b128"):
            row = one[load]
            assert set(row) == {"req_per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_req"}
            assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
            # A request takes CPU time of the server, and not more than two cores have.
            assert 0.01 < row["cpu_ms_per_req"] * row["req_per_s"] / 1000 <= (os.cpu_count() or 1)
    assert not [path for path in tmp_path.iterdir() if "torchinductor" not in path.name]  # which torch leaves


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engines", "tensorflow"], "no 'tensorflow'"),
        (["--protocols", "smtp"], "no 'smtp'"),
        (["--items", "10"], "at least 1,000"),
        (["--clients", "0"], "above zero"),
        (["--clients", "many"], "numbers with commas"),
        (["--seconds", "0"], "--seconds"),
    ],
)
def test_mistakes(arguments, said):
    from benchmarks.serving import _options

    with pytest.raises(UserError, match=said):
        _options(arguments)
