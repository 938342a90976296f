"""The benchmark of preprocessing: its events, and the program as a whole."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.engines import data


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "FILE_EVENTS", 30_000)
    data.make(tmp_path / "log", 100_000)
    return tmp_path / "log"


def test_events(log):
    files = data.paths(log)
    tables = [pq.read_table(path) for path in files]
    assert len(tables) == 4
    events = pa.concat_tables(tables).to_pandas()
    assert len(events) == 100_000
    assert events["time"].is_monotonic_increasing
    assert events.groupby("item_id")["category"].nunique(dropna=False).max() == 1
    sizes = events.groupby("session_id").size()
    assert 7 < sizes.mean() < 9
    assert sizes.min() == 1
    assert sizes.max() > 20
    assert 0.005 < events["price"].isna().mean() < 0.015
    sessions = [set(table["session_id"].to_pylist()) for table in tables]
    assert any(one & following for one, following in itertools.pairwise(sessions)), (
        "no session goes on in the next file"
    )
    ties = events.groupby("session_id")["time"].diff() == np.timedelta64(0)
    assert ties.any()


def test_events_are_made_once(log):
    before = [path.stat().st_mtime_ns for path in data.paths(log)]
    data.make(log, 100_000)
    assert [path.stat().st_mtime_ns for path in data.paths(log)] == before
    with pytest.raises(FileExistsError, match="name another --data"):
        data.make(log, 90_000)


def _run(*arguments):
    command = [sys.executable, "-m", "benchmarks.preprocessing", "--events", "2000", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_program():
    done = _run("--engines", "read,pandas,polars", "--json")
    assert done.returncode == 0, done.stderr
    engines = {one.pop("engine"): one for one in json.loads(done.stdout)["engines"]}
    assert list(engines)[:2] == ["read", "pandas"]
    for one in engines.values():
        assert set(one) == {"events", "wall_s", "cpu_s", "peak_gib"}
        assert one["events"] == 2000
        assert 0 < one["wall_s"] < 60
        assert 0 < one["peak_gib"] < 2


def test_an_engine_over_the_limit():
    done = _run("--engines", "pandas", "--json", "--limit-s", "0.05")
    (engine,) = json.loads(done.stdout)["engines"]
    assert engine["timed_out"] is True
    assert engine["wall_s"] is None
    assert "stopped after" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engines", "spark"], "no engine 'spark'"),
        (["--events", "10"], "at least 1,000"),
        (["--runs", "0"], "--runs"),
    ],
)
def test_mistakes(arguments, said):
    done = _run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
