"""TransformerBlock around registered architectures, around other networks, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import modeling as tr
from modeling.backbones.block import TransformerBlock, TransformerPrepare
from modeling.checks import cell_maker, run_checks
from modeling.masking.registry import masking_from
from modeling.serialization import describe, restore

WIDTH = 16


def masking(name: str) -> Any:
    return masking_from(name, WIDTH, 1)


def gemma() -> Any:
    return transformers.GemmaConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, vocab_size=4, max_position_embeddings=32, pad_token_id=0, attention_dropout=0.0,
    )  # fmt: skip


def ernie() -> Any:
    return transformers.ErnieConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=4,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip


def fnet() -> Any:
    return transformers.FNetConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, vocab_size=4, max_position_embeddings=32,
        hidden_dropout_prob=0.0,
    )  # fmt: skip


def t5() -> Any:
    return transformers.MT5Config(
        d_model=WIDTH, d_ff=32, d_kv=8, num_layers=2, num_heads=2, vocab_size=4, dropout_rate=0.0
    )


OTHERS = [(gemma, "clm"), (ernie, "mlm"), (fnet, "mlm"), (t5, "rtd")]


@pytest.mark.parametrize(("config", "objective"), OTHERS)
def test_any_backbone_passes_the_checks(config: Any, objective: str) -> None:
    names = ("no_leak", "padding", "batch_mates", "evaluation_is_inference", "most_recent", "exports")
    results = run_checks(cell_maker(lambda limit: config(), objective, WIDTH), names)
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize(
    ("config", "objective", "why"),
    [
        (gemma, "mlm", "gemma cannot serve masking 'mlm': it cannot look ahead; use clm"),
        (ernie, "clm", "ernie cannot serve masking 'clm': it looks ahead"),
        (ernie, "plm", "ernie cannot serve masking 'plm': it has no query stream"),
        (t5, "clm", "mt5 cannot serve masking 'clm'"),
    ],
)
def test_objectives_are_refused_with_the_reason(config: Any, objective: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TransformerBlock(config(), masking(objective))
    block = TransformerBlock(config())
    assert block.causal == (config is gemma)
    with pytest.raises(ValueError, match=why):
        block.use_masking(masking(objective))


@pytest.mark.parametrize("config", [gemma, ernie, fnet, t5])
def test_saved_and_restored_without_another_experiment(config: Any) -> None:
    block = TransformerBlock(config())
    again = restore(json.loads(json.dumps(describe(block))))
    again.load_state_dict(block.state_dict())
    assert again.probe == block.probe
    assert type(again.transformer) is type(block.transformer)
    for one in (block, again):
        one.use_length(6)
    values = torch.randn(2, 5, WIDTH)
    assert torch.equal(block.eval()(values), again.eval()(values))


def test_only_networks_of_the_library_are_restored() -> None:
    described = describe(TransformerBlock(gemma()))
    described["args"]["architecture"] = "GenerationMixin"
    with pytest.raises(ValueError, match="no network of the transformers library"):
        restore(described)

    class Own(transformers.GemmaModel):
        pass

    with pytest.raises(ValueError, match="Own cannot be saved"):
        describe(TransformerBlock(Own(gemma())))


def test_a_network_may_be_given(tmp_path: Path) -> None:
    network = transformers.GemmaModel(gemma())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    block = TransformerBlock(network, masking("clm"))
    assert block.transformer is network
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(ValueError, match="has no configuration"):
        describe(TransformerBlock(Running()))


class Running(nn.Module):
    """No transformer at all, and no configuration but a width."""

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"hidden_size": WIDTH})()
        self.gru = nn.GRU(WIDTH, 24, batch_first=True)

    def forward(self, inputs_embeds: Tensor) -> tuple[Tensor]:
        return (self.gru(inputs_embeds)[0],)


def test_any_module_that_takes_vectors_will_do() -> None:
    block = TransformerBlock(Running(), masking("clm"))
    assert (block.causal, block.input_dim, block.output_dim) == (True, WIDTH, 24)
    assert block(torch.randn(2, 3, WIDTH)).shape == (2, 3, 24)
    with pytest.raises(ValueError, match="expects vectors of width 16, its input has 8"):
        block.build(8)


def test_from_registry() -> None:
    block = TransformerBlock.from_registry("gpt2", WIDTH, 2, 2, 8, masking("clm"))
    assert (block.model_type, block.causal, block.output_dim) == ("gpt2", True, WIDTH)
    with pytest.raises(ValueError, match="no transformer is registered as 'gpt9'"):
        TransformerBlock.from_registry("gpt9", WIDTH, 2, 2, 8)
    with pytest.raises(ValueError, match=r"bert.*clm"):
        TransformerBlock.from_registry("bert", WIDTH, 2, 2, 8, masking("clm"))


@pytest.mark.parametrize(("objective", "causal"), [("clm", True), ("mlm", False), ("plm", False)])
def test_a_block_is_told_its_objective_later(objective: str, causal: bool) -> None:
    block = TransformerBlock(tr.XLNetConfig.build(WIDTH, 2, 2, 8, dropout=0.0))
    block.use_masking(masking(objective))
    assert block.causal is causal
    values = torch.randn(1, 6, WIDTH)
    other = values.clone()
    other[:, 5] += 1
    with torch.no_grad():
        change = (block.eval()(values) - block(other))[:, :5].abs().max()
    assert (float(change) == 0) == causal


@pytest.mark.parametrize("name", ["gpt2", "xlnet", "funnel", "bert"])
def test_networks_of_the_registry_may_be_given_and_saved(name: str) -> None:
    network = tr.transformer_registry[name].build(WIDTH, 2, 2, 8, dropout=0.0).to_huggingface_torch_model()
    block = TransformerBlock(network)
    again = restore(json.loads(json.dumps(describe(block))))
    again.load_state_dict(block.state_dict())
    values = torch.randn(2, 5, WIDTH)
    assert again.causal == block.causal == (name == "gpt2")
    torch.testing.assert_close(block.eval()(values), again.eval()(values))


class Scaled(TransformerPrepare):
    def forward(self, inputs_embeds: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert isinstance(self.transformer, nn.Module)
        return {**kwargs, "inputs_embeds": 2 * inputs_embeds}


@pytest.mark.parametrize("hook", [Scaled, lambda vectors, kwargs: {**kwargs, "inputs_embeds": 2 * vectors}])
def test_prepare_hooks_change_the_arguments(hook: Any) -> None:
    network = transformers.GemmaModel(gemma()).eval()
    hooked, plain = TransformerBlock(network, prepare_module=hook), TransformerBlock(network)
    values = torch.randn(2, 4, WIDTH)
    with torch.no_grad():
        assert torch.equal(hooked(values), plain(2 * values))
    with pytest.raises(ValueError, match="cannot be saved"):
        hooked.config()


def test_the_output_may_be_chosen() -> None:
    network = transformers.GemmaModel(gemma()).eval()
    block = TransformerBlock(network, output_fn=lambda output: -output.last_hidden_state)
    values = torch.randn(2, 4, WIDTH)
    with torch.no_grad():
        assert torch.equal(block(values), -TransformerBlock(network)(values))
    with pytest.raises(ValueError, match="cannot be saved"):
        block.config()


def test_a_fixed_length_must_be_known() -> None:
    block = TransformerBlock(fnet(), masking("mlm"))
    assert block.probe is not None
    assert block.probe.fixed
    with pytest.raises(ValueError, match="fixed length"):
        block(torch.randn(1, 3, WIDTH))
