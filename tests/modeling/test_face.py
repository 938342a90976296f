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


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
def test_an_rnn_is_a_block(kind: str, schema_of: Callable[..., Any], tmp_path: Path) -> None:
    module = getattr(torch.nn, kind)
    _, model = assemble(schema_of(12, 8), tr.Block(module(16, 16, batch_first=True), [None, 8, 16]), masking="causal")
    model(small_batch(), training=True)["loss"].backward()
    model.eval().save(tmp_path)
    with torch.no_grad():
        assert torch.equal(tr.Model.load(tmp_path)(small_batch()), model(small_batch()))
    for broken, message in (({}, "batch_first=True"), ({"batch_first": True, "bidirectional": True}, "padding")):
        with pytest.raises(ValueError, match=message):
            tr.Block(module(16, 16, **broken), 16)
    with pytest.raises(ValueError, match="width 8, not 16"):
        assemble(schema_of(12, 8), tr.Block(module(8, 16, batch_first=True), 16), masking="causal")


def test_other_modules_are_blocks_that_cannot_be_saved(schema_of: Callable[..., Any], tmp_path: Path) -> None:
    _, model = assemble(schema_of(12, 8), tr.Block(torch.nn.Sequential(torch.nn.Linear(16, 4)), 4), masking="causal")
    model(small_batch(), training=True)["loss"].backward()
    with pytest.raises(ValueError, match="Block of Sequential cannot be saved"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_blocks_are_chained(schema_of: Callable[..., Any]) -> None:
    inputs = tr.TabularSequenceFeatures.from_schema(schema_of(12, 8), masking="causal")
    config = tr.GPT2Config.build(16, 2, 1, 8)
    body = inputs >> tr.MLPBlock([16]) >> tr.TransformerBlock(config)
    kinds = [tr.TabularSequenceFeatures, tr.MLPBlock, tr.TransformerBlock]
    assert [type(block) for block in body.blocks] == kinds
    assert body.blocks[2].causal
    assert tr.Model(tr.Head(body, tr.NextItemPredictionTask())).eval()(small_batch()).shape == (2, 15)


def test_unknown_backbones_and_broken_heads_are_refused(schema_of: Callable[..., Any]) -> None:
    import transformers

    with pytest.raises(ValueError, match="ViTModel takes no inputs_embeds"):
        tr.TransformerBlock(transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
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
