"""The way to Transformers4Rec: its environment, processes that are asked, and the schema it reads."""

import json
import sys

import pytest

from benchmarks.t4r import environment
from benchmarks.t4r.process import ask
from benchmarks.t4r.schema import schema_of
from common.errors import UserError
from modeling.schema import Feature, features_of, max_length_of, read_schema

FEATURES = [
    Feature("item_id", "categorical", 12, 3, True),
    Feature("country", "categorical", 5, 3, sequence=False),
    Feature("price", "continuous"),
]


def test_schema_says_what_the_features_say(tmp_path):
    picture = Feature("picture", "embedding", width=4)
    (tmp_path / "schema.json").write_text(json.dumps(schema_of([*FEATURES, picture], 20)))
    schema = read_schema(tmp_path / "schema.json")
    assert max_length_of(schema) == 20
    # Transformers4Rec has no word for reserved codes but padding.
    found = [(f.name, f.kind, f.cardinality, f.item, f.sequence) for f in features_of(schema)]
    assert found == [(f.name, f.kind, f.cardinality, f.item, f.sequence) for f in FEATURES]


def _uv(tmp_path, monkeypatch, script):
    """Stands for uv, first beside no interpreter and then in the search path."""
    tool = tmp_path / "uv"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(environment, "_uv", lambda: str(tool))
    return tmp_path / "venv"


def test_environment_is_made_once(tmp_path, monkeypatch):
    # Writes down what it is called with, away from the project, and makes the folder.
    log = tmp_path / "calls"
    folder = _uv(tmp_path, monkeypatch, f'pwd >> "{log}"; echo "$@" >> "{log}"; mkdir -p "$VIRTUAL_ENV/bin"')
    assert not environment.ready(folder)
    assert environment.python(folder) == folder / "bin" / "python"
    places, calls = log.read_text().splitlines()[::2], log.read_text().splitlines()[1::2]
    assert [call.split()[:2] for call in calls] == [["venv", "--quiet"], ["pip", "install"]]
    assert calls[1].endswith(" ".join(environment.PINS))
    assert not any(place.startswith(str(environment.ROOT)) for place in places)
    environment.python(folder)
    assert len(log.read_text().splitlines()) == 4
    monkeypatch.setattr(environment, "PINS", (*environment.PINS, "one-more"))
    assert not environment.ready(folder)


def test_environment_that_cannot_be_made_is_told_in_a_line(tmp_path, monkeypatch):
    folder = _uv(tmp_path, monkeypatch, 'echo "no such\nindex" >&2; mkdir -p "$VIRTUAL_ENV"; exit 2')
    with pytest.raises(UserError, match=r"Transformers4Rec 23\.12 cannot .* into venv: no such index") as found:
        environment.python(folder)
    assert "\n" not in str(found.value)
    assert not environment.ready(folder)


def test_failing_process_is_told_in_a_line():
    with pytest.raises(UserError, match=r"benchmarks\.nowhere failed: .*No module named") as found:
        ask(sys.executable, "benchmarks.nowhere", {})
    assert "\n" not in str(found.value)
