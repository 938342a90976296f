"""Names, objectives and configurations."""

import json
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from modeling.backbones.configs import T4RecConfig
from modeling.backbones.registry import SUPPORTED, backbone, check_pair, transformer_registry

# The support matrix of Transformers4Rec's documentation, and what goes beyond it.
MATRIX = {
    "albert": "mlm rtd", "bert": "mlm rtd", "convbert": "mlm rtd", "deberta": "mlm rtd", "deberta-v2": "mlm rtd",
    "distilbert": "mlm rtd", "gpt2": "clm", "longformer": "mlm clm rtd", "megatron-bert": "mlm rtd",
    "mpnet": "mlm rtd", "roberta": "mlm rtd", "roformer": "mlm clm rtd", "transfo-xl": "clm",
    "xlnet": "mlm clm plm rtd", "electra": "mlm rtd", "reformer": "mlm clm rtd", "funnel": "mlm rtd", "llama": "clm",
    "qwen3": "clm", "modernbert": "mlm rtd", "mamba2": "clm",
    "sasrec": "clm", "esasrec": "clm", "hstu": "clm",
}  # fmt: skip
NO_ATTENTION = {"mamba2"}


def built(name: str, **arguments: Any) -> Any:
    return transformer_registry[name].build(16, 2, 2, 9, **arguments)


def network(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return backbone(built(name, **arguments), SUPPORTED[name][0] == "clm").eval()


def answer(module: nn.Module) -> tuple[Any, ...]:
    values = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return module(inputs_embeds=values, attention_mask=torch.ones(2, 6, dtype=torch.long), return_dict=False)


def test_the_matrix_is_supported() -> None:
    assert {name: " ".join(objectives) for name, objectives in SUPPORTED.items()} == MATRIX
    assert set(transformer_registry) == {*MATRIX, "gtp2"}
    assert transformer_registry["gtp2"] is transformer_registry["gpt2"]
    for name in MATRIX:
        config = transformer_registry[name]()
        assert isinstance(config, T4RecConfig)
        assert config.model_type == name


@pytest.mark.parametrize("masking", ["clm", "mlm", "plm", "rtd"])
@pytest.mark.parametrize("name", list(MATRIX))
def test_pairs_outside_are_refused_by_name(name: str, masking: str) -> None:
    if masking in MATRIX[name].split():
        check_pair(name, masking)
        return
    reason = {"clm": "sees the items", "mlm": "look ahead", "rtd": "look ahead", "plm": "second stream"}[masking]
    with pytest.raises(ValueError, match=rf"{name} does not support masking '{masking}' \(.*{reason}.*\): use "):
        check_pair(name, masking)
    if masking == "clm":
        with pytest.raises(ValueError, match=f"{name} does not support masking 'clm'"):
            backbone(built(name), causal=True)


def test_unknown_names_are_told_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'t5' are not supported: use one of .*xlnet"):
        check_pair("t5", "mlm")
    with pytest.raises(ValueError, match="'t5' are not supported"):
        backbone(transformers.T5Config(), causal=False)
    with pytest.raises(ValueError, match=r"'xlmnet' are not supported: use one of .*xlnet"):
        transformer_registry.parse("xlmnet")
    with pytest.raises(ValueError, match=r"'foo' \(the objectives are clm, mlm, plm, rtd\)"):
        check_pair("bert", "foo")
    assert transformer_registry.parse("bert") is transformer_registry["bert"]
    assert transformer_registry.parse(transformer_registry["bert"]) is transformer_registry["bert"]


@pytest.mark.parametrize("name", list(MATRIX))
def test_every_dropout_is_set(name: str) -> None:
    rates = set()
    for module in network(name, dropout=0.37).modules():
        if isinstance(module, nn.Dropout):
            rates.add(module.p)
        else:
            rates |= {v for k, v in vars(module).items() if "dropout" in k and isinstance(v, float)}
    assert rates == {0.37}


@pytest.mark.parametrize("name", list(MATRIX))
def test_the_inner_width_is_four_times_the_outer(name: str) -> None:
    inner = 32 if name == "mamba2" else 64  # Mamba-2's own: it expands by two, on either side of its gate
    shapes = {tuple(p.shape) for n, p in network(name).named_parameters() if p.dim() == 2}
    assert (16, inner) in shapes or (inner, 16) in shapes
    assert max(max(shape) for shape in shapes) <= 130  # no 512 positions, no 3072


@pytest.mark.parametrize("name", list(MATRIX))
def test_the_activation_is_the_one_asked_for(name: str) -> None:
    one, other = network(name, hidden_act="gelu", initializer_range=0.5), network(name, hidden_act="relu")
    other.load_state_dict(one.state_dict())
    assert (answer(one)[0] - answer(other)[0]).abs().max() > 1e-4


@pytest.mark.parametrize("name", list(MATRIX))
def test_no_table_of_words(name: str) -> None:
    module = network(name, pad_token=3)
    assert not [n for n, _ in module.named_parameters() if "word" in n or ("tok" in n and "token_type" not in n)]
    assert not any(m.num_embeddings == 4 for m in module.modules() if isinstance(m, nn.Embedding))
    assert torch.isfinite(answer(module)[0]).all()


@pytest.mark.parametrize("name", list(MATRIX))
def test_settings_survive_as_json(name: str) -> None:
    module = network(name, dropout=0.2)
    for config in (built(name, dropout=0.2), module.config):
        settings = json.loads(json.dumps(config.to_diff_dict(), allow_nan=False))
        settings.pop("transformers_version", None)
        assert settings.pop("model_type") == name
        again = backbone(transformer_registry[name](**settings), SUPPORTED[name][0] == "clm").eval()
        again.load_state_dict(module.state_dict())
        assert torch.equal(answer(module)[0], answer(again)[0])
        assert {m.p for m in again.modules() if isinstance(m, nn.Dropout)} <= {0.2}


@pytest.mark.parametrize("name", sorted(set(MATRIX) - NO_ATTENTION))
def test_attention_weights_on_request(name: str) -> None:
    module = network(name)
    logging = network(name, log_attention_weights=True)
    assert not any(isinstance(more, tuple) for more in answer(module))
    logging.load_state_dict(module.state_dict())
    values, *more = answer(logging)
    weights = next(each for each in more if isinstance(each, tuple) and each)
    torch.testing.assert_close(values, answer(module)[0], rtol=1e-4, atol=1e-5)
    assert len(weights) == (4 if name == "funnel" else 2)  # Funnel's decoder has two layers more
    for layer in weights:
        if name != "hstu":  # its weights are sums on purpose
            torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer.sum(-1)))
        assert layer.shape[:2] == (2, 1 if name == "convbert" else 2)


def test_a_recurrence_has_no_attention_weights() -> None:
    with pytest.raises(ValueError, match="mamba2 has no attention weights"):
        network("mamba2", log_attention_weights=True)


@pytest.mark.parametrize("name", list(MATRIX))
def test_wrong_sizes_are_refused(name: str) -> None:
    build = transformer_registry[name].build
    with pytest.raises(ValueError, match="d_model=16 must be a multiple of n_head=3"):
        build(16, 3, 2, 9)
    with pytest.raises(ValueError, match="n_layer must be at least 1, not 0"):
        build(16, 2, 0, 9)
    with pytest.raises(ValueError, match="total_seq_length must be at least 1, not -1"):
        build(16, 2, 2, -1)


@pytest.mark.parametrize("name", ["llama", "qwen3", "modernbert", "roformer", "convbert"])
def test_sizes_that_cannot_be_halved_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be even, not 3: "):
        transformer_registry[name].build(3, 1, 1, 9)


def test_what_an_architecture_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="uni"):
        built("xlnet", attn_type="uni")
    with pytest.raises(ValueError, match="mem_len=5: a session has no memory"):
        built("xlnet", mem_len=5)
    with pytest.raises(ValueError, match=r"'lsh' layers .* give attn_layers"):
        backbone(built("reformer", attn_layers=["local", "lsh"]), causal=False)
    with pytest.raises(ValueError, match="axial positions"):
        backbone(built("reformer", axial_pos_embds=True), causal=False)
    with pytest.raises(ValueError, match=r"attention_window .* even"):
        backbone(built("longformer", attention_window=3), causal=False)
    with pytest.raises(ValueError, match=r"Funnel is supported with .* FunnelConfig\.build"):
        backbone(transformers.FunnelConfig(), causal=False)


def test_the_configuration_given_is_left_alone() -> None:
    config = built("roformer")
    before = config.to_dict()
    assert backbone(config, causal=True).config.is_decoder
    assert config.to_dict() == before
    assert not backbone(config, causal=False).config.is_decoder


def test_plain_configurations_of_hugging_face_are_taken() -> None:
    config = transformers.BertConfig(
        vocab_size=1, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    assert answer(backbone(config, causal=False).eval())[0].shape == (2, 6, 16)


def test_bare_backbones_from_their_configuration() -> None:
    assert isinstance(built("gpt2").to_huggingface_torch_model(), transformers.GPT2Model)
    assert not built("roformer").to_huggingface_torch_model().config.is_decoder
