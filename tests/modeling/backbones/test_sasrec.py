"""SASRec and eSASRec against their formulas, one head and one event at a time."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import modeling as tr
from modeling.backbones.registry import backbone
from modeling.settings import ModelSettings

HEADS, WIDTH, TOTAL = 2, 8, 6


def loud(name: str, **options: Any) -> Any:
    torch.manual_seed(2)
    network = backbone(tr.transformer_registry[name].build(HEADS * WIDTH, HEADS, 2, TOTAL, **options), True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return network.double().eval()


def session(length: int) -> Tensor:
    return torch.randn(length, HEADS * WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(6))


def attended(attention: Any, x: Tensor) -> Tensor:
    w_q, w_k, w_v = attention.qkv.weight.view(3, HEADS, WIDTH, -1)
    rows = []
    for i in range(len(x)):
        parts = []
        for h in range(HEADS):
            scores = [(w_q[h] @ x[i]) @ (w_k[h] @ x[j]) / math.sqrt(WIDTH) for j in range(i + 1)]
            weights = torch.stack(scores).softmax(0)
            parts.append(sum(weights[j] * (w_v[h] @ x[j]) for j in range(i + 1)))
        rows.append(attention.output(torch.cat(parts)))
    return torch.stack(rows)


@pytest.mark.parametrize("weights", [False, True])
def test_sasrec_follows_its_formula(weights: bool) -> None:
    network = loud("sasrec", hidden_act="relu", log_attention_weights=weights)
    values = session(5)
    x = values + network.positions[:5]
    for layer in network.layers:
        first, second = layer.norms
        x = x + attended(layer.attention, first(x))
        wide, _, narrow = layer.inner
        x = x + narrow(wide(second(x)).relu())
    with torch.no_grad():
        found = network(inputs_embeds=values[None])[0][0]
    torch.testing.assert_close(found, network.norm(x).detach(), rtol=1e-9, atol=1e-9)


def test_esasrec_follows_its_formula() -> None:
    network = loud("esasrec")
    values = session(5)
    x = values + network.positions[:5]
    for layer in network.layers:
        (first, second), (one, two) = layer.norms, layer.gates
        x = x + attended(layer.attention, first(x)) / (1 + torch.exp(-one(x)))
        w_gate, w_up = layer.inner.up.weight.chunk(2)
        normed = second(x)
        inner = (F.silu(normed @ w_gate.T) * (normed @ w_up.T)) @ layer.inner.down.weight.T
        x = x + inner / (1 + torch.exp(-two(x)))
    with torch.no_grad():
        found = network(inputs_embeds=values[None])[0][0]
    torch.testing.assert_close(found, network.norm(x).detach(), rtol=1e-9, atol=1e-9)


def test_a_closed_gate_leaves_the_vectors_alone() -> None:
    network = loud("esasrec")
    with torch.no_grad():
        for layer in network.layers:
            for gate in layer.gates:
                gate.bias.fill_(-1e4)
        values = session(4)
        found = network(inputs_embeds=values[None])[0][0]
        torch.testing.assert_close(found, network.norm(values + network.positions[:4]))


@pytest.mark.parametrize("name", ["sasrec", "esasrec", "hstu"])
def test_first_weights_are_small_and_norms_begin_as_they_are(name: str) -> None:
    network = backbone(tr.transformer_registry[name].build(64, 4, 1, TOTAL, initializer_range=0.02), True)
    for label, parameter in network.named_parameters():
        if parameter.dim() > 1 and parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), label
        elif parameter.dim() == 1:
            assert parameter.unique().tolist() == [0.0 if label.endswith("bias") else 1.0], label


def test_sessions_longer_than_the_table_are_refused() -> None:
    with pytest.raises(RuntimeError, match="size"):
        loud("sasrec")(inputs_embeds=session(TOTAL + 1)[None])


@pytest.mark.parametrize(("architecture", "loss"), [("sasrec", "gbce"), ("esasrec", "sampled-softmax")])
def test_the_losses_that_make_gsasrec_and_esasrec(architecture: str, loss: str) -> None:
    """One step of training under each lowers that session's loss."""
    settings = ModelSettings(architecture=architecture, loss=loss, d_model=16, n_head=2, dropout=0.0)
    assert settings.objective == "clm"
    torch.manual_seed(0)
    features = [tr.schema.Feature("item", "categorical", 30, 3, True)]
    model = tr.build_model(features, TOTAL, settings)
    batch = {"item": torch.tensor([[3, 4, 5, 6, 7, 8]])}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> float:
        torch.manual_seed(1)  # the same negatives
        loss = model(batch, training=True)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    losses = [step() for _ in range(5)]
    assert losses[-1] < losses[0]
