"""The exported model: lists of items, heads of one's own, and large catalogues."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from modeling.export.torchscript import export_torchscript, recommender
from modeling.schema import Feature

Batch = dict[str, torch.Tensor]
# A processor without integer products takes the float32 way only.
VNNI = bool(torch.cpu.get_capabilities().get("avx512_vnni"))


def exported(model: Any, path: Path, exclude: str = "none") -> Any:
    export_torchscript(model, path, exclude)
    return torch.jit.load(str(path))


def test_lists_of_items_mean_what_they_mean_in_python(
    make: Callable[..., Any], batch_of: Callable[..., Batch], tmp_path: Path
) -> None:
    model, columns = make("gpt2", "clm"), batch_of([5, 1, 3])
    script = exported(model, tmp_path / "model.pt", "last")
    excluded = torch.tensor([[4, 5, 0], [29, 29, 6], [0, 0, 0]])
    candidates = torch.tensor([[4, 7, 8], [2, 0, 0], [9, 9, 10]])
    nothing = torch.zeros(3, 0, dtype=torch.long)
    for lists in (
        (excluded, None),
        (None, candidates),
        (excluded, candidates),
        (excluded[0], candidates[0]),
        (nothing, None),
        (None, nothing),
        (None, torch.arange(30)),
    ):
        with torch.no_grad():
            scores, ids = script(columns, 6, *lists)
            wanted, expected = model(columns, top_k=6, exclude="last", excluded=lists[0], candidates=lists[1])
        torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-4)
        assert ids.tolist() == expected.tolist()
    with pytest.raises(Exception, match="not in the catalogue"):
        script(columns, 6, torch.tensor([30]))
    empty = {name: column[:0] for name, column in columns.items()}
    assert script(empty, 6, excluded[:0], None)[1].shape == (0, 6)


class Saturated(tr.NextItemPredictionTask):
    """Scores between -1 and 1: no product of vectors."""

    def scores(self, answers: torch.Tensor, item_vectors: torch.Tensor) -> torch.Tensor:
        scores = torch.tanh(super().scores(answers, item_vectors))
        scores[:, : self.reserved] = float("-inf")
        return scores


def test_a_head_that_scores_in_its_own_way_is_exported(batch_of: Callable[..., Batch], tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = tr.TabularSequenceFeatures([Feature("item_id", "categorical", 30, 3, True)], 8, masking="clm", d_output=16)
    config = tr.transformer_registry["gpt2"].build(16, 2, 1, 8)
    model = config.to_torch_model(inputs, Saturated(weight_tying=True)).eval()
    columns = {"item_id": batch_of([4, 1])["item_id"]}
    script = exported(model, tmp_path / "model.pt")
    for lists in ((None, None), (torch.tensor([7, 8]), torch.tensor([[6, 7, 9], [5, 0, 0]]))):
        with torch.no_grad():
            wanted, expected = model(columns, top_k=5, excluded=lists[0], candidates=lists[1])
        scores, ids = script(columns, 5, *lists)
        torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-4)
        assert ids.tolist() == expected.tolist()
        assert scores.max() <= 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    torch.manual_seed(0)
    features = [Feature("item_id", "categorical", 60_000, 3, True)]
    inputs = tr.TabularSequenceFeatures(
        features, 8, masking="clm", d_output=16, embedding_dim_default=16, item_embedding_std=1
    )
    config = tr.transformer_registry["gpt2"].build(16, 2, 1, 8)
    model = config.to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True)).eval()
    path = tmp_path_factory.mktemp("large") / "model.pt"
    export_torchscript(model, path, "seen")
    return model, path


@pytest.mark.skipif(not VNNI, reason="needs a processor with AVX-512 VNNI")
def test_a_large_catalogue_is_bounded_and_written_once(large: tuple[Any, Path]) -> None:
    model, path = large
    script, eager = torch.jit.load(str(path)), recommender(model, "seen")
    assert script.ranker.bounds.ready()
    # Vectors in float32 and in 8 bits, a scale an item, and the small rest.
    assert path.stat().st_size < 60_000 * (16 * 4 + 16 + 4) + 400_000
    for batch in (1, 3, 40):
        items = torch.randint(3, 60_000, (batch, 11), generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            (scores, ids), (wanted, expected) = script({"item_id": items}, 10), eager({"item_id": items}, 10)
        torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-4)
        assert (ids == expected).float().mean() > 0.99  # but for ties


def test_a_large_catalogue_loads_with_torch_alone(large: tuple[Any, Path], tmp_path: Path) -> None:
    code = (
        "import sys, torch; m = torch.jit.load(sys.argv[1]); i = torch.tensor([[5, 6], [7, 0]]);"
        "_, ids = m({'item_id': i}, 10); assert ids.shape == (2, 10) and ids.min() >= 3;"
        "print(sorted({'transformers', 'modeling', 'merlin'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(large[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
