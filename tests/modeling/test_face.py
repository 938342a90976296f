"""Programs written for Transformers4Rec run after changing the import."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import modeling as tr
from common.errors import UserError


def small_batch() -> dict[str, torch.Tensor]:
    items = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    return {"item_id": items, "shop (a.b)": items.clamp(max=5), "price": items / 10}


def assemble(schema: Any, *between: torch.nn.Module, masking: str = "mlm") -> tuple[Any, Any]:
    inputs = tr.TabularSequenceFeatures.from_schema(
        schema, max_sequence_length=8, continuous_projection=16, aggregation="concat", masking=masking
    )
    metrics = [tr.NDCGAt(top_ks=[2, 4], labels_onehot=True), tr.RecallAt(top_ks=[2, 4], labels_onehot=True)]
    task = tr.NextItemPredictionTask(weight_tying=True, metrics=metrics)
    body = tr.SequentialBlock(inputs, tr.MLPBlock([16]), *between)
    return inputs, tr.Model(tr.Head(body, task, inputs=inputs))


@pytest.mark.parametrize("masking", ["causal", "mlm"])
def test_the_sample_program(masking: str, schema_of: Callable[..., Any], tmp_path: Path) -> None:
    config = tr.XLNetConfig.build(d_model=16, n_head=2, n_layer=1, total_seq_length=8)
    _, model = assemble(schema_of(12, 8), tr.TransformerBlock(config, masking=None), masking=masking)
    result = model(small_batch(), training=True)
    result["loss"].backward()
    assert torch.isfinite(result["loss"])
    model.eval()
    tested = model(small_batch(), testing=True)
    assert tested["labels"].tolist() == [6, 8]
    for metric in model.head.task.metrics:
        assert metric(tested["predictions"], tested["labels"]).shape == (2,)
    model.top_k = 3
    _, ids = model(small_batch())
    assert ids.shape == (2, 3)
    assert ids.min() >= 3
    model.save(tmp_path)
    assert torch.equal(tr.Model.load(tmp_path)(small_batch())[1], ids)


def test_to_torch_model_projects_where_widths_differ(schema_of: Callable[..., Any]) -> None:
    inputs = tr.TabularSequenceFeatures.from_schema(schema_of(12, 8), masking="clm")
    model = tr.GPT2Config.build(16, 2, 1, 8).to_torch_model(inputs, tr.NextItemPredictionTask(weight_tying=True))
    assert model(small_batch()).shape == (2, 15)


def test_an_rnn_is_a_block(schema_of: Callable[..., Any], tmp_path: Path) -> None:
    gru = tr.Block(torch.nn.GRU(16, 16, batch_first=True), [None, 8, 16])
    _, model = assemble(schema_of(12, 8), gru, masking="causal")
    model(small_batch(), training=True)["loss"].backward()
    with pytest.raises(UserError, match="Block cannot be saved"):
        model.save(tmp_path)


def test_every_backbone_applies_its_dropout_everywhere() -> None:
    for name, config in tr.transformer_registry.items():
        block = tr.TransformerBlock(config.build(16, 2, 2, 8, dropout=0.37))
        rates = {m.p for m in block.modules() if isinstance(m, torch.nn.Dropout)}
        assert rates == {0.37}, name
        widths = {p.shape[0] for n, p in block.named_parameters() if n.endswith("bias")}
        assert 64 in widths, f"{name} has no inner layer of four times d_model"


def test_unknown_backbones_and_broken_heads_are_refused(schema_of: Callable[..., Any]) -> None:
    import transformers

    with pytest.raises(ValueError, match="'t5' are not supported"):
        tr.TransformerBlock(transformers.T5Config())
    inputs = tr.TabularSequenceFeatures.from_schema(schema_of(12, 8))
    with pytest.raises(ValueError, match="objective"):
        tr.Head(tr.SequentialBlock(inputs), tr.NextItemPredictionTask())
    with pytest.raises(ValueError, match="uni"):
        tr.XLNetConfig.build(16, 2, 1, 8, attn_type="uni")


def test_loading_a_broken_model_is_told(make: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.json"):
        tr.Model.load(tmp_path)
    make("gpt2", "clm").save(tmp_path)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"part": "Head"', '"part": "os.system"'))
    with pytest.raises(UserError, match=r"part 'os\.system'"):
        tr.Model.load(tmp_path)
    (tmp_path / "model.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be loaded"):
        tr.Model.load(tmp_path)


def test_importing_costs_nothing() -> None:
    heavy = {"torch", "transformers", "merlin", "dask", "preprocessing", "serving"}
    code = f"import sys, modeling; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no_such_name"):
        tr.no_such_name  # noqa: B018
    assert set(tr.__all__) <= set(dir(tr))
