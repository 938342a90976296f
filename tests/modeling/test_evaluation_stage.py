"""The evaluation stage on a trained model: its figures agree with each other, and with the file of sessions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import modeling as tr
import nextitem
import screens
from common.errors import UserError
from modeling.baselines import Popularity, TrainingWindow
from modeling.data import read_sessions
from modeling.evaluation import all_ranks, read_table
from modeling.evaluation.sessions_file import compare, read_session_ids
from modeling.schema import Feature

QUICK = {"d_model": 16, "n_head": 2, "n_layer": 1, "epochs": 1, "batch_size": 64, "threads": 1, "device": "cpu"}
MODELS = ["model", "popularity", "cooccurrence"]


@pytest.fixture(scope="module")
def model(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("evaluated") / "model"
    tr.train(features, output, tr.ModelSettings(**QUICK))
    return output


@pytest.fixture(scope="module")
def result(model: Path, features: Path) -> Any:
    sessions_file = model.parent / "sessions.parquet"
    return tr.evaluate(model, features, ks=(1, 4), device="cpu", all_next=True, sessions_file=sessions_file)


@pytest.fixture(scope="module")
def file(model: Path, result: Any) -> Path:
    return model.parent / "sessions.parquet"


def test_the_result_is_json_of_the_documented_shape(result: Any) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result) == [
        *("window", "exclude", "sessions", "unknown_targets", "struck_targets", "metrics", "intervals", "differences"),
        *("by_length", "by_popularity", "lists", "all_next"),
    ]
    assert list(result["metrics"]) == list(result["intervals"]) == MODELS
    assert list(result["metrics"]["model"]) == [f"{name}@{k}" for k in (1, 4) for name in ("recall", "ndcg", "mrr")]
    assert (result["sessions"], result["unknown_targets"], result["struck_targets"]) == (80, 0, 0)


@pytest.mark.parametrize("part", ["last", "all"])
def test_intervals_hold_the_metrics(result: Any, part: str) -> None:
    own = result if part == "last" else result["all_next"]
    for name in MODELS:
        assert list(own["intervals"][name]) == [f"{m}@{k}" for k in (1, 4) for m in ("recall", "ndcg", "mrr", "map")]
        for metric, mean in own["metrics"][name].items():
            figure = own["intervals"][name][metric]
            assert figure["mean"] == pytest.approx(mean)
            assert figure["low"] <= figure["mean"] <= figure["high"]
        assert own["intervals"][name]["map@4"] == pytest.approx(own["intervals"][name]["mrr@4"])
    assert own["intervals"]["model"]["ndcg@4"]["low"] < own["intervals"]["model"]["ndcg@4"]["high"]


@pytest.mark.parametrize("groups", ["by_length", "by_popularity"])
@pytest.mark.parametrize("part", ["last", "all"])
def test_groups_make_up_the_whole(result: Any, groups: str, part: str) -> None:
    own = result if part == "last" else result["all_next"]
    total = own["sessions"] if part == "last" else own["targets"]
    assert sum(group["targets"] for group in own[groups].values()) == total
    for name in MODELS:
        for metric, mean in own["metrics"][name].items():
            of_groups = [g["targets"] * g["intervals"][name][metric]["mean"] for g in own[groups].values()]
            assert sum(of_groups) / total == pytest.approx(mean)


def test_all_next_items_are_all_but_the_first(result: Any, features: Path) -> None:
    rows = pq.read_table(features / "test").column("item_id").to_pylist()
    assert result["all_next"]["targets"] == sum(len(row) - 1 for row in rows)
    assert result["all_next"]["sessions"] == len(rows)
    # Here sessions of 4 to 8 events: every session has one target after one event.
    assert result["all_next"]["by_length"]["1"]["targets"] == len(rows)
    assert set(result["by_length"]) == {"3-4", "5-9"}


def test_every_session_weighs_the_same_in_by_session(result: Any, features: Path) -> None:
    item = Feature("item_id", "categorical", 15, 3, True)
    window = read_sessions(features, "test", [item])
    baseline = Popularity(TrainingWindow(read_sessions(features, "train", [item]), "item_id", 15, 3))
    found = all_ranks(lambda past: baseline.scores(past["item_id"]), window, item, 8, "last")
    means = [float((own <= 4).double().mean()) for own in found.split((window.lengths - 1).tolist())]
    figure = result["all_next"]["by_session"]["popularity"]["recall@4"]
    assert figure["mean"] == pytest.approx(sum(means) / 80)
    assert figure["mean"] != pytest.approx(result["all_next"]["metrics"]["popularity"]["recall@4"])


@pytest.mark.parametrize("part", ["last", "all"])
def test_differences_are_those_of_the_metrics(result: Any, part: str) -> None:
    own = result if part == "last" else result["all_next"]
    assert list(own["differences"]) == MODELS[1:]
    for baseline, metrics in own["differences"].items():
        for metric, mean in own["metrics"]["model"].items():
            assert metrics[metric]["mean"] == pytest.approx(mean - own["metrics"][baseline][metric])


def test_lists_of_the_most_popular(result: Any) -> None:
    # The only best-seller is shown to all, except after itself: then the second.
    assert result["lists"]["popularity"]["coverage@1"] == pytest.approx(2 / 12)
    assert result["lists"]["popularity"]["popularity@1"] > result["lists"]["clicked"]["popularity"]
    assert result["lists"]["model"]["gini@4"] < result["lists"]["popularity"]["gini@4"]
    assert set(result["lists"]) == {"clicked", *MODELS}


def test_the_sessions_file_holds_what_was_measured(result: Any, features: Path, file: Path) -> None:
    table = read_table(file)
    rows = pq.read_table(features / "test").to_pylist()
    assert table.column("session_id").to_pylist() == [row["session_id"] for row in rows]
    assert table.column("item").to_pylist() == [row["item_id"][-1] for row in rows]
    assert table.column("events_seen").to_pylist() == [len(row["item_id"]) - 1 for row in rows]
    for name in MODELS:
        for metric, mean in result["metrics"][name].items():
            values = table.column(f"{name}.{metric}").to_pylist()
            assert sum(values) / len(values) == pytest.approx(mean)


def with_ranks(table: pa.Table, ranks: list[float | None]) -> pa.Table:
    return table.set_column(table.column_names.index("model.rank"), "model.rank", pa.array(ranks, pa.float64()))


def test_a_model_does_not_differ_from_itself(file: Path) -> None:
    found = compare(read_table(file), read_table(file), [1, 10])
    assert found["sessions"] == 80
    assert all(figure == {"mean": 0, "low": 0, "high": 0} for figure in found["differences"].values())


def test_another_model_is_compared_session_by_session(
    model: Path, features: Path, file: Path, result: Any, tmp_path: Path
) -> None:
    table = read_table(file)
    pq.write_table(with_ranks(table, [1.0, 3.0] * 40), tmp_path / "other.parquet")
    other = str(tmp_path / "other.parquet")
    found = tr.evaluate(model, features, ks=(4,), device="cpu", against=[other])["against"][other]
    assert found["sessions"] == 80
    assert list(found["differences"]) == ["recall@4", "ndcg@4", "mrr@4", "map@4"]
    recall = found["differences"]["recall@4"]
    assert recall["low"] <= recall["mean"] <= recall["high"] <= 0  # the other has all among its first 4
    mine = result["metrics"]["model"]["ndcg@4"]
    assert found["differences"]["ndcg@4"]["mean"] == pytest.approx(mine - 0.75)


def test_only_the_same_sessions_are_compared(file: Path, tmp_path: Path) -> None:
    table = read_table(file)
    for wrong in (table.slice(1), table.set_column(0, "session_id", pa.array(range(1, 81), pa.int64()))):
        with pytest.raises(UserError, match="not of the same sessions"):
            compare(table, wrong)
    assert compare(table, with_ranks(table, [None, *[1.0] * 79]))["sessions"] == 79
    with pytest.raises(UserError, match="measured none"):
        compare(table, with_ranks(table, [None] * 80))
    (tmp_path / "a.parquet").write_text("no parquet")
    pq.write_table(table.select(["item"]), tmp_path / "b.parquet")
    for name, message in (("a", "as parquet"), ("b", "not written by"), ("c", "cannot be read")):
        with pytest.raises(UserError, match=message):
            read_table(tmp_path / f"{name}.parquet")


def test_sessions_without_ids_and_unknown_targets(model: Path, write: Callable[..., Path], tmp_path: Path) -> None:
    windows = {"train": [[3, 4], [4, 5]], "test": [[3, 4], [3, 2], [4, 5], [7], [4, 4], [3, 2, 4]]}
    folder = write(tmp_path / "f", windows, 12)
    result = tr.evaluate(model, folder, device="cpu", all_next=True, sessions_file=tmp_path / "s.parquet")
    assert (result["sessions"], result["unknown_targets"], result["struck_targets"]) == (4, 1, 1)
    # Measured are 4, 5, 4 and 4; in training 4 makes half of the events, 3 and 5 a quarter each.
    assert {name: group["targets"] for name, group in result["by_popularity"].items()} == {"head": 3, "mid": 1}
    assert result["lists"]["clicked"]["coverage"] == pytest.approx(2 / 12)
    every = result["all_next"]
    assert (every["targets"], every["sessions"], every["unknown_targets"]) == (4, 4, 2)
    table = read_table(tmp_path / "s.parquet")
    assert [rank is None for rank in table.column("model.rank").to_pylist()] == [False, True, False, True, False, False]
    assert table.column("model.rank").to_pylist()[4] == float("inf")
    assert table.column("model.recall@10").to_pylist()[3:5] == [None, 0]
    for path in (folder / "test").iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["session_id"]), path)
    assert read_session_ids(folder, "test") is None


def test_files_are_written_whole_or_not_at_all(model: Path, features: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        tr.evaluate(model, features, device="cpu", sessions_file=tmp_path / "no" / "s.parquet")
    assert not any(tmp_path.iterdir())


def test_the_command_shows_all_of_it(
    model: Path, features: Path, file: Path, result: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = nextitem.evaluate(model, features, all_next=True, against=[file])
    capsys.readouterr()
    screens.show_evaluate(found)
    shown = capsys.readouterr().out
    figure = found["intervals"]["cooccurrence"]["ndcg@20"]
    assert f"{figure['mean']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})" in shown
    for text in ("80 sessions", "model minus popularity", "5-9", "tail", "coverage@20", "clicked", str(file)):
        assert text in shown
    assert "Every item but the first" in shown
    del found["all_next"], found["against"]
    screens.show_evaluate(found)
    assert "Every item but the first" not in capsys.readouterr().out
