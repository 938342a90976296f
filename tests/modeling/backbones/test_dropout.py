"""Dropout by 16 bits a value: its mean, its independence, its seed, and where it is put."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.backbones.dropout import ATTENTION, Dropout, attend, dropout, quick
from modeling.backbones.registry import backbone, transformer_registry

SHAPE = (400, 1001)  # not a multiple of four values


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_share_scale_and_independence(rate: float) -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(SHAPE), rate)
    kept = found != 0
    count = kept.numel()
    # Five standard deviations of a share.
    bound = 5 * (rate * (1 - rate) / count) ** 0.5
    assert abs(kept.float().mean().item() - (1 - rate)) < bound
    assert found.max().item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    assert found.unique().numel() == 2
    assert abs(found.mean().item() - 1) < bound / (1 - rate)
    # Neighbours along both axes, and the four values of one draw, know nothing of each other.
    for one, other in ((kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1]), (kept[:, 3:], kept[:, :-3])):
        both = (one & other).float().mean().item()
        assert abs(both - (1 - rate) ** 2) < 3 * bound


def test_the_seed_decides() -> None:
    values = torch.randn(7, 5)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(dropout(values, 0.5))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_stop_where_values_did(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(50, 3, dtype=dtype, requires_grad=True)
    found = dropout(values, 0.25)
    found.sum().backward()
    assert found.dtype == dtype
    assert values.grad is not None
    assert torch.equal(values.grad, found)


def test_the_ends() -> None:
    values = torch.randn(9)
    assert dropout(values, 0.0) is values
    assert dropout(values, 1e-6) is values  # less than half of 1/65536
    assert dropout(values, 1.0).abs().max() == 0
    layer = Dropout(0.5).eval()
    assert layer(values) is values


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float"])
def test_attention_is_that_of_torch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mask of weights that drops nothing, every way to hide something agrees with torch's function."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, dtype=torch.double) for _ in range(3))
    hidden = torch.rand(2, 1, 5, 5) < 0.3
    hidden[..., 0] = False
    masks = {"bool": ~hidden, "float": torch.zeros(2, 1, 5, 5, dtype=torch.double).masked_fill(hidden, -1e9)}
    mask = masks.get(kind)
    expected = F.scaled_dot_product_attention(query, key, value, mask, 0.0, kind == "causal", scale=0.3)
    monkeypatch.setattr("modeling.backbones.dropout.dropout", lambda weights, rate: weights)
    torch.testing.assert_close(attend(query, key, value, 0.5, kind == "causal", mask, 0.3), expected)
    torch.testing.assert_close(attend(query, key, value, 0.0, kind == "causal", mask, 0.3), expected)


def test_weights_of_attention_are_dropped() -> None:
    torch.manual_seed(0)
    query = key = torch.zeros(1, 1, 3, 2)
    value = torch.eye(3)[None, None].expand(1, 1, 3, 3)
    found = attend(query, key, value, 0.5)  # weights of a third each, doubled or dropped
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 2 / 3]))


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "xlnet", "sasrec", "hstu"])
def test_registered_backbones_have_it(name: str) -> None:
    """... and are random in training only, by torch's seed."""
    config = transformer_registry[name].build(16, 2, 1, 8, dropout=0.3)
    network = backbone(config, causal=name not in ("bert", "xlnet"))
    assert not [m for m in network.modules() if type(m) is nn.Dropout]
    vectors, real = torch.randn(2, 8, 16), torch.ones(2, 8, dtype=torch.long)

    def output(seed: int) -> Tensor:
        torch.manual_seed(seed)
        found: Tensor = network(inputs_embeds=vectors, attention_mask=real, return_dict=False)[0]
        return found

    assert torch.equal(output(1), output(1))
    assert not torch.equal(output(1), output(2))
    network.eval()
    assert torch.equal(output(1), output(2))


def test_grouped_keys_with_dropout() -> None:
    """Llama with fewer heads of keys: in training, the mean of many draws is close to the answer without dropout."""
    config: Any = transformer_registry["llama"].build(16, 4, 1, 8, dropout=0.1)
    config.num_key_value_heads = 2
    network = backbone(config, causal=True)
    made: Any = network
    assert made.config._attn_implementation == ATTENTION
    vectors = torch.randn(1, 8, 16)
    with torch.no_grad():
        torch.manual_seed(0)
        many = network(inputs_embeds=vectors.expand(2000, -1, -1), return_dict=False)[0].mean(0)
        network.eval()
        once = network(inputs_embeds=vectors, return_dict=False)[0][0]
    assert (many - once).abs().max() < 0.1
    assert (many - once).abs().max() > 0


def test_quick_leaves_other_kinds_alone() -> None:
    class Other(nn.Dropout):
        pass

    network = nn.Sequential(nn.Dropout(0.1), Other(0.2), nn.Linear(2, 2))
    assert quick(network) is network
    assert [type(m) for m in network] == [Dropout, Other, nn.Linear]
