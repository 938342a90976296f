"""Several seeds of one way of training: the mean of the models, and how much a seed matters."""

import statistics
from pathlib import Path
from typing import Any

import pytest

import modeling as tr
import nextitem
import screens
from common.errors import UserError
from modeling.evaluation import read_table

QUICK = {"d_model": 16, "n_head": 2, "n_layer": 1, "epochs": 1, "batch_size": 64, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def models(features: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("seeds")
    for seed in (0, 1):
        tr.train(features, folder / str(seed), tr.ModelSettings(**QUICK, seed=seed))
    return [folder / "0", folder / "1"]


@pytest.fixture(scope="module")
def result(models: list[Path], features: Path) -> Any:
    return nextitem.evaluate(models, features)


def test_means_and_spread_are_those_of_the_models(result: Any, models: list[Path], features: Path) -> None:
    alone = [tr.evaluate(model, features, sessions_file=model.parent / f"{model.name}.parquet") for model in models]
    assert [own["seed"] for own in result["models"].values()] == [0, 1]
    assert list(result["models"]) == [str(model) for model in models]
    for name, figure in result["seeds"].items():
        means = [one["intervals"]["model"][name]["mean"] for one in alone]
        assert figure["mean"] == pytest.approx(sum(means) / 2)
        assert figure["spread"] == pytest.approx(statistics.stdev(means), abs=1e-12)
        assert figure["runs"] == 2
        assert figure["low"] <= figure["mean"] <= figure["high"]
    assert result["seeds"]["ndcg@10"]["spread"] > 0
    assert result["baselines"]["popularity"] == alone[0]["intervals"]["popularity"]
    assert result["sessions"] == alone[0]["sessions"] == 80


def test_differences_are_of_the_mean_session_by_session(result: Any, models: list[Path], features: Path) -> None:
    file = models[0].parent / "s.parquet"
    tr.evaluate(models[0], features, sessions_file=file)
    base = sum(read_table(file).column("cooccurrence.ndcg@20").to_pylist()) / 80
    difference = result["differences"]["cooccurrence"]["ndcg@20"]
    assert difference["mean"] == pytest.approx(result["seeds"]["ndcg@20"]["mean"] - base)
    assert difference["low"] < difference["mean"] < difference["high"]


def test_the_command_shows_it(result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    screens.show_evaluate(result)
    shown = capsys.readouterr().out
    figure = result["seeds"]["ndcg@20"]
    assert f"{figure['mean']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})" in shown
    for text in ("between seeds", "seed 0", "seed 1", "80 sessions", "model minus cooccurrence"):
        assert text in shown


def test_one_model_in_a_list_is_one_model(models: list[Path], features: Path) -> None:
    assert nextitem.evaluate(models[:1], features) == nextitem.evaluate(models[0], features)


def test_only_models_that_differ_in_their_seed_are_averaged(models: list[Path], features: Path, tmp_path: Path) -> None:
    settings = tr.ModelSettings(**QUICK, dropout=0.3, seed=2)
    tr.train(features, tmp_path / "other", settings)
    with pytest.raises(UserError, match="differ in settings: dropout;"):
        nextitem.evaluate([models[0], tmp_path / "other"], features)
    tr.train(features, tmp_path / "days", tr.ModelSettings(**QUICK, seed=4), window="valid")
    with pytest.raises(UserError, match="differ in windows: train;"):
        nextitem.evaluate([models[0], tmp_path / "days"], features)
    with pytest.raises(UserError, match="names the same folder twice"):
        nextitem.evaluate([models[0], models[0]], features)
    tr.train(features, tmp_path / "again", settings)
    with pytest.raises(UserError, match="has the seed 2 that another"):
        nextitem.evaluate([tmp_path / "other", tmp_path / "again"], features)
    with pytest.raises(UserError, match="go with a single --model"):
        nextitem.evaluate(models, features, all_next=True)
