"""The requests of the benchmark, as perf_analyzer reads them: sessions of the test window that the model never saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.server import FEATURES, MANY, MAX_LENGTH
from benchmarks.server.repositories import model_inputs, request_of
from serving.columns import convert_events
from serving.loadtest import input_data, split_sessions

ONE, LARGE = "one.json", "many.json"
_LARGE_REQUESTS, _LARGE_STEP = 16, 23


def write_requests(engine: str, folder: Path, target: Path) -> None:
    """Write the requests for an engine: one session each, and 128 sessions each.

    Parameters
    ----------
    engine : str
        ``"model"`` gets encoded sessions, the others raw events.
    folder : Path
        What `benchmarks.server.build` made.
    target : Path
        Gets `ONE` and `LARGE`.
    """
    one, large = _encoded(folder) if engine == "model" else _raw(folder)
    for name, requests in ((ONE, one), (LARGE, large)):
        (target / name).write_text(json.dumps(input_data(requests), ensure_ascii=False), encoding="utf-8")


def sessions_of(folder: Path) -> list[dict[str, Any]]:
    """Raw events of each test session in the sample, in the types that travel."""
    types = {column["name"]: column["type"] for column in request_of(folder)["columns"]}
    columns = convert_events(pq.read_table(folder / FEATURES / "sample.parquet").to_pydict(), types)
    return list(split_sessions(columns, "session_id", limit=10_000))


def joined(sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """The events of several sessions as one request."""
    return {name: np.concatenate([session[name] for session in sessions]) for name in sessions[0]}


def _raw(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    sessions = sessions_of(folder)
    turns = [
        np.arange(start, start + MANY) % len(sessions) for start in range(0, _LARGE_REQUESTS * _LARGE_STEP, _LARGE_STEP)
    ]
    return sessions, [joined([sessions[number] for number in turn]) for turn in turns]


def _encoded(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The same sessions encoded; those of large requests padded, since perf_analyzer only stacks equal shapes."""
    sample = {int(session["session_id"][0]) for session in sessions_of(folder)}
    inputs = model_inputs(folder)
    table = pq.read_table(folder / FEATURES / "test", columns=["session_id", *inputs])
    rows = [row for row in table.to_pylist() if row["session_id"] in sample]
    one = [{name: np.array(row[name], dtype=kind) for name, kind in inputs.items()} for row in rows]
    large = [{name: np.pad(column, (0, MAX_LENGTH - len(column))) for name, column in row.items()} for row in one]
    return one, large
