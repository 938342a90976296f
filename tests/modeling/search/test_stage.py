"""The stage on a small shop: features/ in, search/ out, and the best settings trained with as they are."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modeling as tr
import nextitem
import screens
from common.artefacts import identity
from common.errors import UserError
from modeling import search
from modeling.ranking_metric import GOAL
from modeling.search.page import write_page_of
from modeling.search.space import DEFAULT, Range
from modeling.search.stage import JOURNAL
from modeling.search.trials import Trial, best_of
from modeling.settings import ModelSettings
from pipeline import load_settings

YAML = """
model: {d_model: 16, n_head: 2, n_layer: 1, epochs: 2, batch_size: 64, threads: 1, device: cpu, learning_rate: 0.02}
search:
  learning_rate: {low: 0.0001, high: 0.1, log: true}
  features: [all, ids]
  architecture: [gpt2, sasrec]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "shop.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def found(features: Path, config: Path) -> Any:
    return nextitem.search(features, config.parent / "found", config, trials=4)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def test_the_folder_holds_what_was_found(found: Any, config: Path) -> None:
    folder = config.parent / "found"
    assert found["output"] == str(folder)
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "best.yaml", "trials.jsonl", "report.html", JOURNAL),
    }
    trials = lines(folder)
    assert sum(found["trials"].values()) == len(trials) == 4
    whole = [trial["goal"] for trial in trials if trial["state"] == "complete"]
    assert found["best"][GOAL] == max(whole)
    assert found["first"] == trials[0]["goal"]
    assert trials[0]["settings"] == {"learning_rate": 0.02, "features": "all", "architecture": "gpt2"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_best_settings_are_trained_with_as_they_are(found: Any, features: Path, config: Path) -> None:
    best = config.parent / "found" / "best.yaml"
    settings = load_settings(best, ["model.device=cpu", "model.threads=1"]).model
    report = tr.train(features, config.parent / "model", settings)
    assert report["valid"][GOAL] == pytest.approx(found["best"][GOAL], abs=1e-6)
    assert report["architecture"] == found["best"]["settings"]["architecture"]


def test_more_trials_are_added_to_those_that_are_there(found: Any, features: Path, config: Path) -> None:
    folder = config.parent / "found"
    before = lines(folder)
    more = nextitem.search(features, folder, config, trials=5)
    assert lines(folder)[:4] == before
    assert sum(more["trials"].values()) == 5
    with pytest.raises(UserError, match="is of a search with other search"):
        nextitem.search(features, folder, config, ["search.dropout=[0.0, 0.1]"])
    assert len(lines(folder)) == 5


def test_the_test_window_is_neither_needed_nor_allowed(
    write: Callable[..., Path], features: Path, config: Path, tmp_path: Path
) -> None:
    rows = [[3 + (i + j) % 6 for j in range(5)] for i in range(60)]
    without = write(tmp_path / "features", {"train": rows, "valid": rows[:20]}, 6)
    assert nextitem.search(without, tmp_path / "s", config, trials=1)["trials"]["complete"] == 1
    with pytest.raises(UserError, match="the test window is for 'nextitem evaluate'"):
        nextitem.search(features, tmp_path / "t", config, valid_window="test")
    assert not (tmp_path / "t").exists()


def test_a_folder_of_something_else_is_left_alone(features: Path, config: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_ada.txt").write_text("Dear Ada")
    with pytest.raises(UserError, match="is not a search folder"):
        nextitem.search(features, tmp_path / "letters", config)
    with pytest.raises(UserError, match="nextitem preprocess"):
        nextitem.search(tmp_path / "none", tmp_path / "s", config)


def test_an_interruption_leaves_the_folder_and_keeps_the_trials(
    found: Any, features: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent / "found"
    before = identity(folder)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search.stage, "fit_with_evidence", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nextitem.search(features, folder, config, trials=9)
    assert identity(folder) == before
    assert "the same command goes on from there" in capsys.readouterr().err


def test_the_command_tells_how_to_go_on(found: Any, capsys: pytest.CaptureFixture[str]) -> None:
    screens.show_search(found)
    shown = capsys.readouterr().out
    assert f"{found['best'][GOAL]:.4f}" in shown
    assert f"nextitem train --config {Path(found['output']) / 'best.yaml'}" in shown


def trial(number: int, state: str, **facts: Any) -> Trial:
    settings = {"learning_rate": 0.001 * number, "dropout": 0.1, "d_model": 32, "n_layer": 1, "batch_size": 64}
    goal = facts.pop("goal", None)
    return Trial(number, state, settings, goal, [goal] if goal else [], 1.0, **facts)


def test_the_page_needs_nothing_and_shows_every_trial(tmp_path: Path) -> None:
    trials = [
        trial(1, "complete", goal=0.5),
        trial(2, "failed", error="<script>alert(1)</script>"),
        trial(3, "pruned", goal=0.25),
        trial(4, "complete", goal=0.75),
        trial(5, "complete", goal=0.75, same_as=4),
    ]
    best = best_of(trials)
    assert best == trials[3]
    report = {
        "windows": {"train": "train", "valid": "valid"},
        "trials": {"complete": 3, "pruned": 1, "failed": 1},
        "first": 0.5,
        "seconds": 90.0,
    }
    space = DEFAULT | {"dropout": Range(low=0.0, high=0.5)}
    write_page_of(tmp_path / "r.html", trials, best, space, ModelSettings(), report)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!#)", html.replace("xlink:href", "href"))
    assert html.count("<svg") == 2 + len(space)
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    for text in ("failed: &lt;script&gt;", "as trial 4", "cut off", "Too few trials to tell", "0.004"):
        assert text in words
