"""ONNX: the file answers in ONNX Runtime as the model does in torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import modeling as tr
from common.errors import UserError
from modeling.evidence.module import ItemEvidence
from modeling.export import onnx

Batch = dict[str, torch.Tensor]


@pytest.mark.parametrize("cell", [("gpt2", "clm"), ("xlnet", "mlm")], ids="-".join)
def test_the_file_recommends_what_the_model_does(
    cell: tuple[str, str], make: Callable[..., Any], batch_of: Callable[..., Batch], tmp_path: Path
) -> None:
    model = make(*cell)
    if cell[0] == "gpt2":  # the file has the evidence of counts, too
        first = torch.arange(model.inputs.item.reserved, model.inputs.item.cardinality)
        weights = 0.1 + torch.rand(len(first), generator=torch.Generator().manual_seed(0))
        model.evidence = ItemEvidence.from_pairs(first, first.flip(0), weights, int(first[-1]) + 1, 3, 0.5)
    path = tr.export_onnx(model, tmp_path / "model.onnx", exclude="seen", top_k=6)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(path))
    for lengths in ([1], [7, 2], [3] * 20):
        columns = batch_of(lengths, seed=len(lengths))
        scores, ids = session.run(None, {name: column.numpy() for name, column in columns.items()})
        with torch.no_grad():
            wanted, expected = model(columns, top_k=6, exclude="seen")
        # float32, and two programs that add in different orders
        torch.testing.assert_close(torch.from_numpy(scores), wanted, rtol=1e-4, atol=1e-4)
        assert ids.tolist() == expected.tolist()


def test_what_cannot_be_written_says_why_and_leaves_nothing(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("gpt2", "clm")
    monkeypatch.setattr(onnx, "_TOLERANCE", 0.0)
    with pytest.raises(UserError, match="cannot be written as ONNX: RuntimeError: its scores differ"):
        tr.export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="extra 'onnx'"):
        tr.export_onnx(model, tmp_path / "model.onnx")
