"""A training window that does not fit into memory is streamed, and makes as good a model."""

import json
from pathlib import Path

import pytest

import modeling as tr
from modeling import fitting
from modeling.loading.stream import SessionStream

SETTINGS = {"d_model": 16, "n_head": 2, "n_layer": 1, "epochs": 3, "batch_size": 32, "threads": 1, "device": "cpu"}


def test_large_windows_are_streamed(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tr.ModelSettings(learning_rate=0.01, **SETTINGS)
    in_memory = tr.train(features, tmp_path / "memory", settings)
    monkeypatch.setattr(fitting, "IN_MEMORY_BYTES", 0)
    passes = []
    begin = SessionStream.__iter__
    monkeypatch.setattr(SessionStream, "__iter__", lambda stream: passes.append(stream) or begin(stream))
    streamed = tr.train(features, tmp_path / "streamed", settings)
    assert len(passes) == streamed["epochs"] == 3
    assert [feature.name for feature in passes[0].features] == ["item_id", "shop (a.b)", "price"]
    assert streamed["sessions"] == in_memory["sessions"] == 600
    best = []
    for name in ("memory", "streamed"):
        lines = (tmp_path / name / "history.jsonl").read_text().splitlines()
        best.append(max(json.loads(line)["ndcg@20"] for line in lines))
    assert best[1] > 0.8 * best[0] > 0.4
