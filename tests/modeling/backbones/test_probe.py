"""Experiments tell which way a network looks, and what it cannot do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modeling.backbones.feed import fit_length
from modeling.backbones.precision import double, loud
from modeling.backbones.probe import probe

WIDTH = 8


class Toy(nn.Module):
    """Any function of the vectors; weights as small as those of a fresh network."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], start: float = 1e-8) -> None:
        super().__init__()
        self.config = type("Config", (), {"hidden_size": WIDTH})()
        self.weight = nn.Parameter(torch.full((WIDTH, WIDTH), start))
        self.function = function

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask[..., None].to(inputs_embeds.dtype)
        return (inputs_embeds + self.function(inputs_embeds @ self.weight, mask),)


def back(x: Tensor, mask: Tensor) -> Tensor:
    return x.cumsum(1)


def around(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum(1, keepdim=True).expand_as(x)


def careless(x: Tensor, mask: Tensor) -> Tensor:
    return x.mean(1, keepdim=True).expand_as(x)


def mates(x: Tensor, mask: Tensor) -> Tensor:
    return x.cumsum(1) + x[:, :1].mean(0)


def alone(x: Tensor, mask: Tensor) -> Tensor:
    return x.tanh()


def chance(x: Tensor, mask: Tensor) -> Tensor:
    return x.cumsum(1) * torch.rand(())


def infinite(x: Tensor, mask: Tensor) -> Tensor:
    return x / 0


def summary(x: Tensor, mask: Tensor) -> Tensor:
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("function", "ahead", "fixed", "objectives"),
    [
        (back, False, False, ("clm",)),
        (around, True, False, ("mlm", "rtd")),
        (careless, True, True, ("mlm", "rtd")),
    ],
)
def test_what_a_network_does_is_found_out(
    function: Callable[[Tensor, Tensor], Tensor], ahead: bool, fixed: bool, objectives: tuple[str, ...]
) -> None:
    network = Toy(function)
    found = probe(network)
    assert (found.looks_back, found.looks_ahead, found.fixed, found.width) == (True, ahead, fixed, WIDTH)
    assert found.objectives == objectives
    assert torch.equal(network.weight, torch.full((WIDTH, WIDTH), 1e-8))


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (mates, "other sessions of a batch"),
        (alone, "does not depend on the events before"),
        (chance, "differently each time"),
        (infinite, "not finite"),
        (summary, "cannot be fed with vectors: RuntimeError: no"),
    ],
)
def test_useless_networks_are_refused_with_the_reason(function: Callable[[Tensor, Tensor], Tensor], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        probe(Toy(function))


def test_what_takes_ids_only_is_refused() -> None:
    with pytest.raises(ValueError, match="does not say how wide"):
        probe(nn.Linear(WIDTH, WIDTH))


def test_double_computes_in_double_precision_whatever_is_asked() -> None:
    values = torch.randn(4, 5, dtype=torch.float64)
    with double():
        for found in (
            values.float(), values.to(torch.float32), values.softmax(-1, dtype=torch.float32),
            values.type(torch.float32), torch.arange(3, dtype=torch.float32), torch.zeros(2),
            values.to(dtype=torch.bfloat16),
        ):  # fmt: skip
            assert found.dtype == torch.float64
        assert torch.arange(3).dtype == torch.int64
    assert torch.zeros(2).dtype == values.float().dtype == torch.float32


def test_loud_disturbs_every_weight_but_the_padding_row() -> None:
    network = nn.Sequential(nn.Embedding(5, 8, padding_idx=0), nn.Linear(8, 8), nn.LayerNorm(8))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    loud(network)
    for old, new in zip(before, network.parameters(), strict=True):
        changed = (old != new).double().mean()
        assert changed == 1 if old.shape[0] != 5 else changed == 0.8


def test_one_length_whatever_comes() -> None:
    values, attend = torch.randn(2, 3, WIDTH), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    longer, attended = fit_length(values, attend, 5)
    assert longer.shape == (2, 5, WIDTH)
    assert torch.equal(longer[0, :3], values[0])
    assert torch.equal(longer[1, :1], values[1, :1])
    assert longer[0, 3:].eq(0).all()
    assert longer[1, 1:].eq(0).all()
    assert attended.tolist() == [[True, True, True, False, False], [True, False, False, False, False]]
