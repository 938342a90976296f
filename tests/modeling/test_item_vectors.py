"""Vectors that items had before training: frozen, saved and exported with the model, looked up by the item's code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

import modeling as tr
from common.artefacts import new_folder
from common.errors import UserError
from common.settings import validate
from modeling.inputs.item_vectors import ItemVectors, read_vectors
from modeling.schema import Feature, features_of
from modeling.serialization import describe, restore
from preprocessing.settings import Dataset
from preprocessing.vectors import write_vectors

ITEM = Feature("item_id", "categorical", 6, 3, True)
QUICK = {"d_model": 16, "n_head": 2, "n_layer": 1, "epochs": 2, "batch_size": 64, "threads": 1, "device": "cpu"}


def test_a_lookup_by_hand() -> None:
    module = ItemVectors(ITEM, {"text": 2, "image": 1})
    text, image = torch.arange(12.0).reshape(6, 2), torch.arange(6.0)[:, None]
    module.fill({"text": text, "image": image})
    found = module({"item_id": torch.tensor([[3, 5, 0]])})
    assert found["text"].tolist() == [[[6, 7], [10, 11], [0, 1]]]
    assert found["image"].tolist() == [[[3], [5], [0]]]
    assert module.widths == {"text": 2, "image": 1}
    assert not list(module.parameters()), "nothing to learn without a projection"
    projected = ItemVectors(ITEM, {"text": 2}, pretrained_output_dims=4)
    assert projected.widths == {"text": 4}
    assert {name for name, _ in projected.named_parameters()} == {
        "projected.projections.f_text.weight", "projected.projections.f_text.bias",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"'text' are \[6, 2\] and must be \[6, 3\]"):
        ItemVectors(ITEM, {"text": 3}).fill({"text": text})
    with pytest.raises(ValueError, match="'text' are missing"):
        ItemVectors(ITEM, {"text": 3}).fill({})


def test_it_is_rebuilt_from_its_description() -> None:
    module = ItemVectors(ITEM, {"text": 2}, pretrained_output_dims=4, normalizer="layer-norm")
    module.fill({"text": torch.randn(6, 2)})
    again = restore(json.loads(json.dumps(describe(module))))
    again.load_state_dict(module.state_dict())
    columns = {"item_id": torch.tensor([[3, 4]])}
    torch.testing.assert_close(again(columns)["text"], module(columns)["text"])
    with pytest.raises(ValueError, match="there is a feature 'item_id' already"):
        tr.TabularSequenceFeatures([ITEM], 8, item_vectors={"item_id": 2})


def stage(folder: Path, output: Path, **settings: Any) -> Any:
    tr.train(folder, output, tr.ModelSettings(**(QUICK | settings)))
    return tr.Model.load(output)


@pytest.fixture
def with_vectors(write: Callable[..., Path], tmp_path: Path) -> Path:
    """12 items, every other with a vector; items 3 and 4 never occur in training."""
    rng = np.random.default_rng(0)
    rows = [[int(item) for item in rng.integers(5, 15, 6)] for _ in range(300)]
    folder = write(tmp_path / "features", {"train": rows, "valid": rows[:40], "test": rows[:40]}, 12)
    matrix = np.zeros((15, 5), np.float32)
    matrix[3::2] = rng.normal(0, 7, (6, 5))
    matrix[4] = rng.normal(0, 7, 5)
    with new_folder(tmp_path / "with_vectors", "features", {}) as new:
        shutil.copytree(folder, new.path, ignore=shutil.ignore_patterns("manifest.json"), dirs_exist_ok=True)
        (new.path / "vectors").mkdir()
        save_file({"vectors": matrix}, new.path / "vectors" / "text.safetensors")
    return tmp_path / "with_vectors"


def columns_of(*rows: list[int]) -> dict[str, torch.Tensor]:
    codes = torch.tensor(rows)
    return {"item_id": codes, "shop (a.b)": codes.clamp(max=5), "price": codes / 10}


WAYS = [{"architecture": "gpt2"}, {"architecture": "xlnet", "masking": "mlm"}]
WAYS += [{"architecture": "electra", "masking": "rtd"}, {"architecture": "xlnet", "masking": "plm"}]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
def test_the_stage_keeps_vectors_inside_the_model(with_vectors: Path, tmp_path: Path, way: dict[str, str]) -> None:
    model = stage(with_vectors, tmp_path / "model", **way)
    given = load_file(with_vectors / "vectors" / "text.safetensors")["vectors"]
    kept = model.inputs.to_merge["item_vectors_module"].table("text").numpy()
    present = given[(given != 0).any(1)]
    np.testing.assert_allclose(kept, given / np.sqrt((present**2).mean()), rtol=1e-6)
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    assert [column["name"] for column in described["inputs"]] == ["item_id", "shop (a.b)", "price"], "no further input"
    exported = torch.jit.load(str(tmp_path / "model" / "model.pt"))
    columns = columns_of([3, 4, 9, 11], [14, 2, 5, 0], [7, 0, 0, 0])
    scores, ids = exported(columns, 12)
    expected, expected_ids = tr.recommend(tmp_path / "model", columns, 12)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert (ids == expected_ids).float().mean() > 0.95
    tr.export_onnx(model, tmp_path / "model.onnx")  # which refuses a file that answers otherwise


def test_vectors_matter(with_vectors: Path, tmp_path: Path) -> None:
    """Two items that are alike but for their vectors are answered alike only once their vectors are the same."""
    model = stage(with_vectors, tmp_path / "model")
    with torch.no_grad():
        model.inputs.item_table.weight[4] = model.inputs.item_table.weight[3]
    one, other = columns_of([5, 6, 3]), columns_of([5, 6, 3])
    other["item_id"] = torch.tensor([[5, 6, 4]])
    with torch.no_grad():
        # Scores of items 5 on: the two items themselves are struck out in one case each.
        apart = (model(one) - model(other))[:, 5:].abs().max()
        table = model.inputs.to_merge["item_vectors_module"].table("text")
        table[4] = table[3]
        together = (model(one) - model(other))[:, 5:].abs().max()
    assert together < 1e-6 < 1e-3 < apart


def test_training_changes_the_projection_and_not_the_vectors(with_vectors: Path, tmp_path: Path) -> None:
    settings = tr.ModelSettings(**QUICK)
    features = features_of(tr.read_schema(with_vectors))
    vectors = read_vectors(with_vectors)
    torch.manual_seed(settings.seed)
    before = tr.build_model(features, 8, settings, vectors).inputs.to_merge["item_vectors_module"]
    after = stage(with_vectors, tmp_path / "model").inputs.to_merge["item_vectors_module"]
    assert torch.equal(before.table("text"), after.table("text"))
    name = "projected.projections.f_text.weight"
    assert not torch.equal(before.state_dict()[name], after.state_dict()[name])


def test_ids_only_leaves_vectors_out(with_vectors: Path, tmp_path: Path) -> None:
    model = stage(with_vectors, tmp_path / "model", features="ids", epochs=1)
    assert set(model.inputs.to_merge) == {"categorical_module"}


def test_damaged_vectors_are_told(tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "text.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"text.safetensors cannot be read .* run 'nextitem preprocess' again"):
        read_vectors(tmp_path)
    assert read_vectors(tmp_path / "elsewhere") == {}


# What preprocessing writes


def describe_shop(root: Path, **vectors: Any) -> Dataset:
    content = {
        "name": "shop",
        "data_root": str(root),
        "events": {"files": "events.parquet", "session": "visit", "item": "sku", "time": "at"},
        "features": {"vectors": [{"name": "text", "files": "text.parquet", "column": "embedding"} | vectors]},
    }
    return validate(content, Dataset, "shop.yaml")


def written(root: Path, table: dict[str, Any], items: list[Any], **vectors: Any) -> tuple[Any, Any]:
    pq.write_table(pa.table(table), root / "text.parquet")
    report = write_vectors(describe_shop(root, **vectors), pa.array(items), 3, root)
    return load_file(root / "vectors" / "text.safetensors")["vectors"], report


def test_vectors_by_item_code(tmp_path: Path) -> None:
    table = {"sku": ["mug", "unsold", "tea"], "embedding": [[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]]}
    matrix, report = written(tmp_path, table, ["tea", "cup", "mug"])
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[0, 0], [0, 0], [0, 0], [3, 4], [0, 0], [1, 2]]
    assert report == {"text": {"width": 2, "items": 2, "missing": 1}}
    halves = pa.FixedSizeListArray.from_arrays(pa.array(np.array([1, 2, 3, 4], np.float16)), 2)
    fixed = {"id": [8, 7], "embedding": halves}
    matrix, _ = written(tmp_path, fixed, [7, 8, 9], on="id")
    assert matrix[3:].tolist() == [[3, 4], [1, 2], [0, 0]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sku": ["tea", "mug"], "embedding": [[1.0], [1.0, 2.0]]}, "vectors of 1 and 2 numbers"),
        ({"sku": ["tea", "mug"], "embedding": [[1.0], None]}, "has missing vectors"),
        ({"sku": ["tea", "mug"], "embedding": [[1.0], [None]]}, "missing or infinite"),
        ({"sku": ["tea", "mug"], "embedding": [["a"], ["b"]]}, "vectors are lists of numbers"),
        ({"sku": ["tea", "mug"], "embedding": [1.0, 2.0]}, "vectors are lists of numbers"),
        ({"sku": ["tea", "tea"], "embedding": [[1.0], [2.0]]}, "'sku' is there more than once"),
        ({"sku": ["x", "y"], "embedding": [[1.0], [2.0]]}, "no item of the events has a vector"),
        ({"sku": [1, 2], "embedding": [[1.0], [2.0]]}, "holds numbers where the events hold text"),
        ({"sku": ["tea", "mug"], "vector": [[1.0], [2.0]]}, "has no column 'embedding'"),
    ],
)
def test_unusable_vectors_are_told(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        written(tmp_path, table, ["tea", "mug"])
