"""Networks of our own against their papers' formulas, step by step, and against Hugging Face's where it is right."""

import math
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.backbones.mamba2 import recurrence
from modeling.backbones.registry import backbone, transformer_registry


def loud(name: str, causal: bool, layers: int = 2, total: int = 8, **options: Any) -> Any:
    torch.manual_seed(2)
    network = backbone(transformer_registry[name].build(16, 2, layers, total, **options), causal)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return network.double().eval()


def vectors(batch: int, length: int) -> Tensor:
    return torch.randn(batch, length, 16, dtype=torch.double, generator=torch.Generator().manual_seed(6))


def answer(network: Any, values: Tensor) -> Tensor:
    with torch.no_grad():
        mask = torch.ones(values.shape[:2], dtype=torch.long)
        return network(inputs_embeds=values, attention_mask=mask, return_dict=False)[0]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("pre", "untie"), [(False, True), (True, True), (False, False)])
def test_transformer_xl_follows_the_paper(pre: bool, untie: bool) -> None:
    network = loud("transfo-xl", True, pre_lnorm=pre, untie_r=untie, hidden_act="relu")
    heads, width, length = 2, 8, 5
    values = vectors(1, length)
    x = values[0]
    for layer in network.layers:
        attention, (norm1, norm2) = layer.attention, layer.norms
        u, v = attention.biases if untie else network.biases
        w_q, w_k, w_v = attention.qkv.weight.view(3, heads, width, 16)
        w_r = attention.distance.weight.view(heads, width, 16)
        source = norm1(x) if pre else x
        rows = []
        for i in range(length):
            head_values = []
            for h in range(heads):
                q = w_q[h] @ source[i]
                scores = []
                for j in range(i + 1):
                    frequencies = [(i - j) / 10000 ** (2 * t / 16) for t in range(8)]
                    waves = [math.sin(f) for f in frequencies] + [math.cos(f) for f in frequencies]
                    r = torch.tensor(waves, dtype=torch.double)
                    score = (q + u[h]) @ (w_k[h] @ source[j]) + (q + v[h]) @ (w_r[h] @ r)
                    scores.append(score / math.sqrt(width))
                weights = torch.stack(scores).softmax(0)
                head_values.append(sum(weights[j] * (w_v[h] @ source[j]) for j in range(i + 1)))
            rows.append(attention.output.weight @ torch.cat(head_values))
        x = x + torch.stack(rows)
        first, last = layer.inner[0], layer.inner[3]
        x = x if pre else norm1(x)
        x = x + last(first(norm2(x) if pre else x).relu())
        x = x if pre else norm2(x)
    close(answer(network, values)[0], (network.norm(x) if pre else x).detach())


def test_mamba2_is_its_recurrence() -> None:
    torch.manual_seed(0)
    x, b, c = (torch.randn(2, 7, 3, n, dtype=torch.double) for n in (4, 5, 5))
    step, decay = torch.rand(2, 7, 3, dtype=torch.double), -torch.rand(3, dtype=torch.double)
    found = recurrence(x, step, decay, b, c)
    state = torch.zeros(2, 3, 4, 5, dtype=torch.double)
    for t in range(7):
        kept = (step[:, t] * decay).exp()[..., None, None]
        state = kept * state + step[:, t, :, None, None] * x[:, t, :, :, None] * b[:, t, :, None, :]
        close(found[:, t], (state * c[:, t, :, None, :]).sum(-1))


def test_mamba2_survives_long_steps() -> None:
    """What is left of the future would overflow, and its gradient with it."""
    x = torch.randn(1, 40, 1, 2, requires_grad=True)
    b = torch.randn(1, 40, 1, 3)
    result = recurrence(x, torch.full((1, 40, 1), 30.0), torch.tensor([-16.0]), b, b)
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert torch.isfinite(x.grad).all()


def hugging_face(model: Any, network: Any, **changes: Any) -> Any:
    """Hugging Face's own model with the weights of ours; what ours does without is zero."""
    config = type(network.config)(**{**network.config.to_dict(), **changes})
    other = model(config).double().eval()
    weights = {name: torch.zeros_like(value) for name, value in other.state_dict().items()}
    ours = {name: value for name, value in network.state_dict().items() if name in weights}
    other.load_state_dict({**weights, **ours})
    return other


@pytest.mark.parametrize("groups", [1, 2])
def test_mamba2_is_hugging_faces(groups: int) -> None:
    network = loud("mamba2", True, n_groups=groups)
    other = hugging_face(transformers.Mamba2Model, network, chunk_size=4)
    close(answer(network, vectors(3, 8)), answer(other, vectors(3, 8)), 1e-4)  # theirs computes in single precision


def test_convbert_is_hugging_faces_without_padding() -> None:
    network = loud("convbert", False)
    close(answer(network, vectors(3, 7)), answer(hugging_face(transformers.ConvBertModel, network), vectors(3, 7)))


@pytest.mark.parametrize("window", [4, 8])
def test_longformer_is_hugging_faces_at_whole_windows(window: int) -> None:
    network = loud("longformer", False, attention_window=window)
    other = hugging_face(transformers.LongformerModel, network)
    close(answer(network, vectors(3, 8)), answer(other, vectors(3, 8)), 1e-5)  # theirs computes in single precision


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_funnel_is_hugging_faces_at_whole_blocks(layers: int) -> None:
    network = loud("funnel", False, layers=layers)
    other = hugging_face(transformers.FunnelModel, network)
    close(answer(network, vectors(3, 8)), answer(other, vectors(3, 8)), 1e-5)  # theirs computes in single precision


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk", [2, 8])
def test_reformer_is_hugging_faces_with_its_streams_together(causal: bool, chunk: int) -> None:
    network = loud("reformer", causal, local_attn_chunk_length=chunk)
    other = hugging_face(transformers.ReformerModel, network)
    together: nn.Linear = network.together
    both = answer(other, vectors(3, 8))
    close(answer(network, vectors(3, 8)), F.linear(both, together.weight, together.bias).detach())


@pytest.mark.parametrize("causal", [False, True])
def test_xlnet_is_hugging_faces(causal: bool) -> None:
    network = loud("xlnet", causal)
    other, values = hugging_face(transformers.XLNetModel, network), vectors(3, 8)
    ahead = torch.ones(3, 8, 8, dtype=torch.double).triu(1) if causal else None
    with torch.no_grad():
        close(answer(network, values), other(inputs_embeds=values, perm_mask=ahead, use_mems=False)[0])


def test_xlnet_predicts_from_what_comes_before_in_the_permutation() -> None:
    """The query stream: not from the item itself, nor, for the first of all, from an average of everything."""
    network = loud("xlnet", False)
    turn = [3, 0, 4, 1, 2]
    hidden = torch.tensor([[[turn[j] >= turn[i] for j in range(5)] for i in range(5)]]).double()

    def queries(values: Tensor) -> Tensor:
        with torch.no_grad():
            return network(
                inputs_embeds=values,
                attention_mask=torch.ones(1, 5),
                perm_mask=hidden,
                target_mapping=torch.eye(5, dtype=torch.double)[None],
            )[0][0]

    values = vectors(1, 5)
    before = queries(values)
    for place in range(5):
        other = values.clone()
        other[0, place] = values[0, place].flip(0)
        moved = (queries(other) - before).abs().amax(-1)
        assert [bool(m > 1e-6) for m in moved] == [turn[place] < turn[i] for i in range(5)]
        assert all(moved[i] == 0 for i in range(5) if turn[place] >= turn[i])


@pytest.mark.parametrize("causal", [False, True])
def test_longformer_sees_its_window_only(causal: bool) -> None:
    network = loud("longformer", causal, layers=1, attention_window=4)
    values = vectors(1, 8)
    for place in range(8):
        other = values.clone()
        other[0, place] = values[0, place].flip(0)
        moved = (answer(network, values) - answer(network, other)).abs().amax(-1)[0] > 1e-6
        assert moved.tolist() == [abs(i - place) <= 2 and (i >= place or not causal) for i in range(8)]


def test_funnel_averages_events_only() -> None:
    """A last event without a neighbour is pooled as it is, and later blocks still see it."""
    network = loud("funnel", False)
    hidden, mask = vectors(1, 4), torch.tensor([[1.0, 1, 1, 0]]).double()
    pooled = network._halved(hidden, mask)
    close(pooled[0, 0], hidden[0, :2].mean(0))
    close(pooled[0, 1], hidden[0, 2])
