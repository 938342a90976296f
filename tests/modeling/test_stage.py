"""The stage: features/ in, model/ out, and its evaluation."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from common.artefacts import identity, read_manifest
from common.errors import UserError
from common.settings import validate
from modeling import fitting, training
from modeling.backbones.objectives import SUPPORTED
from modeling.compute import pick_device
from modeling.data import Sessions, read_sessions
from modeling.schema import Feature

QUICK = {"d_model": 16, "n_head": 2, "n_layer": 1, "epochs": 2, "batch_size": 64, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module", params=["gpt2", "xlnet"])
def trained(request: pytest.FixtureRequest, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("stage") / "model"
    settings = tr.ModelSettings(architecture=request.param, **QUICK)
    return output, tr.train(features, output, settings)


def test_the_folder_follows_the_contract(trained: Any, features: Path) -> None:
    output, report = trained
    files = {path.name for path in output.iterdir()}
    assert files == {"manifest.json", "model.json", "model.safetensors", "model.pt", "history.jsonl", "report.html"}
    manifest = read_manifest(output, "model", "nextitem train")
    assert manifest["inputs"] == {"features": identity(features)}
    assert manifest["report"] == json.loads(json.dumps(report))
    described = json.loads((output / "model.json").read_text())
    assert described["inputs"] == [
        {"name": "item_id", "dtype": "int64"},
        {"name": "shop (a.b)", "dtype": "int64"},
        {"name": "price", "dtype": "float32"},
    ]
    assert (described["max_sequence_length"], described["catalogue_size"], described["top_k"]) == (8, 12, 12)
    lines = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert report["epochs"] == 2
    # The lines are of the network alone; counts were added after them, as they helped.
    assert report["evidence"]["before"] == max(line["ndcg@20"] for line in lines)
    assert report["valid"] == report["evidence"]["valid"]
    assert report["valid"]["ndcg@20"] > report["evidence"]["before"]
    assert report["train_sessions_per_s"] > 0


def padded(features: Path, model: Any) -> dict[str, torch.Tensor]:
    sessions = read_sessions(features, "test", model.inputs.features)
    return sessions.padded(torch.arange(len(sessions)), 8)


def test_torchscript_answers_as_the_model_does_offline(trained: Any, features: Path) -> None:
    output, _ = trained
    columns = padded(features, tr.Model.load(output))
    scores, ids = torch.jit.load(str(output / "model.pt"))(columns, 5)
    expected, expected_ids = tr.recommend(output, columns, 5)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert (ids == expected_ids).float().mean() > 0.99
    last = columns["item_id"].gather(1, (columns["item_id"] != 0).sum(1, keepdim=True) - 1)
    assert not (ids == last).any()  # the default exclusion


def test_torchscript_loads_with_torch_alone(trained: Any, tmp_path: Path) -> None:
    output, _ = trained
    code = (
        "import sys, torch; m = torch.jit.load(sys.argv[1]); i = torch.tensor([[5, 6], [7, 0]]);"
        "s, k = m({'item_id': i, 'shop (a.b)': i.clamp(max=5), 'price': i / 10}, 3);"
        "assert s.dtype == torch.float32 and k.dtype == torch.int64 and k.shape == (2, 3) and k.min() >= 3;"
        "print(sorted({'transformers', 'modeling', 'merlin'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(output / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_evaluation_equals_ranking_what_the_served_model_recommends(trained: Any, features: Path) -> None:
    """The figure that is reported is found again from the exported file, session by session."""
    output, _ = trained
    result = tr.evaluate(output, features, device="cpu")
    assert (result["sessions"], result["unknown_targets"], result["exclude"]) == (80, 0, "last")
    assert set(result["metrics"]) == {"model", "popularity", "cooccurrence"}
    exported = torch.jit.load(str(output / "model.pt"))
    columns = padded(features, tr.Model.load(output))
    hits, ranks = 0, []
    for row in range(80):
        n = int((columns["item_id"][row] != 0).sum())
        past = {name: values[row : row + 1, : n - 1] for name, values in columns.items()}
        ids = exported(past, 12)[1][0].tolist()
        target = int(columns["item_id"][row, n - 1])
        hits += target in ids[:10]
        ranks.append(ids.index(target) + 1)
    assert result["metrics"]["model"]["recall@10"] == pytest.approx(hits / 80)
    assert result["metrics"]["model"]["mrr@20"] == pytest.approx(sum(1 / r for r in ranks) / 80, rel=1e-3)


def test_the_same_seed_gives_the_same_model(features: Path, tmp_path: Path) -> None:
    settings = tr.ModelSettings(**{**QUICK, "epochs": 1, "seed": 5})
    for name in ("a", "b"):
        tr.train(features, tmp_path / name, settings)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert one == two


def test_an_interrupted_training_leaves_the_previous_model(
    trained: Any, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = trained
    before = identity(output)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "export_torchscript", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tr.train(features, output, tr.ModelSettings(**{**QUICK, "epochs": 1}))
    assert identity(output) == before
    read_manifest(output, "model", "nextitem train")
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_early_stopping_keeps_the_best_epoch(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = iter([0.3, 0.5, 0.4, 0.2, 0.9])
    weights: list[torch.Tensor] = []

    def ranks(model: Any, *_: Any, **__: Any) -> torch.Tensor:
        weights.append(model.inputs.item_table.weight.detach().clone())
        return torch.tensor([1.0 if i < 10 * share else 99.0 for share in [next(quality)] for i in range(10)])

    monkeypatch.setattr(fitting, "ranks", ranks)
    report = tr.train(
        features, tmp_path / "model", tr.ModelSettings(**{**QUICK, "epochs": 5, "patience": 2, "evidence": False})
    )
    assert (report["epochs"], report["best_epoch"]) == (4, 2)
    assert report["valid"]["recall@20"] == 0.5
    assert torch.equal(tr.Model.load(tmp_path / "model").inputs.item_table.weight, weights[1])


def test_a_time_budget_ends_training(features: Path, tmp_path: Path) -> None:
    settings = tr.ModelSettings(**{**QUICK, "epochs": 1000, "patience": 1000, "max_minutes": 0.02})
    assert 1 <= tr.train(features, tmp_path / "model", settings)["epochs"] < 1000


def test_ids_only_leaves_side_features_out(features: Path, tmp_path: Path) -> None:
    tr.train(features, tmp_path / "model", tr.ModelSettings(**{**QUICK, "epochs": 1, "features": "ids"}))
    assert json.loads((tmp_path / "model" / "model.json").read_text())["inputs"] == [
        {"name": "item_id", "dtype": "int64"}
    ]


def test_unusable_features_are_told(write: Callable[..., Path], schema_of: Callable[..., Any], tmp_path: Path) -> None:
    some = [[3, 4, 5]] * 4
    settings = tr.ModelSettings(**{**QUICK, "epochs": 1})

    def train(name: str, windows: dict[str, list[list[int]]], **options: Any) -> None:
        tr.train(write(tmp_path / name, windows, 4, **options), tmp_path / "model", settings)

    with pytest.raises(UserError, match="nextitem preprocess"):
        tr.train(tmp_path / "nowhere", tmp_path / "model", settings)
    with pytest.raises(UserError, match=r"valid holds no sessions"):
        train("a", {"train": some, "valid": []})
    with pytest.raises(UserError, match="exactly one column as item_id"):
        train("b", {"train": some, "valid": some}, schema=schema_of(4, 8, item_tag=False))
    with pytest.raises(UserError, match="known item to predict"):
        train("c", {"train": [[2, 2]], "valid": some})
    assert not (tmp_path / "model").exists()


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="did you mean 'dropout'"):
        validate({"droput": 0.1}, tr.ModelSettings, "x.yaml")
    with pytest.raises(UserError, match="must divide"):
        validate({"d_model": 30, "n_head": 4}, tr.ModelSettings, "x.yaml")
    for wrong, message in (
        ({"masking": "mlm"}, "gpt2 does not support masking 'mlm'"),
        ({"architecture": "gpt3"}, "must be one of gpt2, "),
        ({"loss": "gbce", "label_smoothing": 0.1}, "label_smoothing is for the loss 'cross-entropy'"),
    ):
        with pytest.raises(UserError, match=message):
            validate(wrong, tr.ModelSettings, "x.yaml")
    # What only the backbone knows is told when the model is built.
    odd = tr.ModelSettings(architecture="roformer", d_model=30, n_head=10)
    with pytest.raises(UserError, match=r"model settings: .*even"):
        tr.build_model([Feature("item_id", "categorical", 9, 3, True)], 8, odd)


ITEM = Feature("item_id", "categorical", 7, 3, True)


def held_out(*rows: list[int]) -> Sessions:
    lengths = torch.tensor([0] + [len(row) for row in rows])
    return Sessions({"item_id": torch.tensor([i for row in rows for i in row])}, lengths.cumsum(0))


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_ranks_by_hand(batch_size: int) -> None:
    sessions = held_out([3, 4, 5], [6, 2], [5, 3], [4], [6, 6], [3, 4, 3])

    def scores(past: dict[str, torch.Tensor]) -> torch.Tensor:
        # 6 before 5 before 4 before 3, whatever came.
        return torch.arange(7.0).repeat(len(past["item_id"]), 1).index_fill(1, torch.arange(3), float("-inf"))

    def found(exclude: str) -> list[float]:
        ranks = tr.ranks(scores, sessions, ITEM, 8, exclude, batch_size)
        return [-1 if rank != rank else rank for rank in ranks.tolist()]

    # The second target is unknown, the fourth session has nothing to predict from.
    assert found("none") == [2, -1, 4, -1, 1, 4]
    assert found("last") == [2, -1, 3, -1, float("inf"), 3]
    assert found("seen") == [2, -1, 3, -1, float("inf"), float("inf")]


def test_evaluation_reports_unknown_targets(
    trained: Any, write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, _ = trained
    other = write(tmp_path / "f", {"train": [[3, 4], [4, 5]], "test": [[3, 4], [3, 2], [4, 5], [7]]}, 12)
    result = tr.evaluate(output, other, device="cpu")
    assert (result["sessions"], result["unknown_targets"]) == (2, 1)
    assert "made anew" in capsys.readouterr().err
    # After 3 came 4, after 4 came 5.
    assert result["metrics"]["cooccurrence"]["mrr@10"] == 1


def test_evaluation_refuses_other_features(trained: Any, write: Callable[..., Path], tmp_path: Path) -> None:
    output, _ = trained
    other = write(tmp_path / "f", {"train": [[3, 4]], "test": [[3, 4]]}, 13)
    with pytest.raises(UserError, match="another 'item_id'"):
        tr.evaluate(output, other)
    with pytest.raises(UserError, match="nextitem train"):
        tr.evaluate(tmp_path / "nothing", other)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(UserError, match="no GPU"):
        pick_device("cuda")


WAYS = [{"architecture": a, "masking": m} for a, objectives in SUPPORTED.items() for m in objectives]
WAYS += [{"loss": name} for name in ("sampled-softmax", "gbce", "bpr-max", "top1-max")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
def test_every_architecture_and_loss_goes_through_the_stage(
    way: dict[str, str], features: Path, tmp_path: Path
) -> None:
    report = tr.train(features, tmp_path / "model", tr.ModelSettings(**{**QUICK, **way, "epochs": 1}))
    metrics = tr.evaluate(tmp_path / "model", features)["metrics"]
    assert report["epochs"] == 1
    # 12 items: chance alone has each among the first 20.
    assert metrics["model"]["recall@20"] == 1
    assert metrics["model"]["ndcg@20"] > 0.25
