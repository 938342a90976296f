"""What every registered network keeps, whichever way it looks: the past, the padding, the neighbours in the batch.

Double precision and noise on every weight: what may not matter differs by rounding, what matters by 1e-4 and more.
"""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modeling.backbones.registry import SUPPORTED, backbone, transformer_registry

TOTAL, WIDTH = 9, 16
TOLERANCE = 1e-9
# Settings with another way through the code, beside every architecture as it is built by default.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "longformer-narrow": ("longformer", {"attention_window": 4, "layers": 3}),
    "reformer-chunks": ("reformer", {"local_attn_chunk_length": 2}),
    "reformer-two-chunks": ("reformer", {"local_attn_chunk_length": 5}),
    "funnel-three-blocks": ("funnel", {"layers": 4}),
    "funnel-one-block": ("funnel", {"layers": 1}),
    "transfo-xl-pre": ("transfo-xl", {"pre_lnorm": True, "untie_r": False}),
    "mamba2-groups": ("mamba2", {"n_groups": 2}),
    "modernbert-narrow": ("modernbert", {"local_attention": 4, "layers": 4}),
    "llama-grouped": ("llama", {"num_key_value_heads": 1}),
    "albert-groups": ("albert", {"num_hidden_groups": 2}),
    **{f"{name}-weights": (name, {"log_attention_weights": True}) for name in SUPPORTED if name != "mamba2"},
}
CASES = [
    (name, causal)
    for name in [*SUPPORTED, *VARIANTS]
    for causal in sorted({objective == "clm" for objective in SUPPORTED[VARIANTS.get(name, (name,))[0]]})
]
# Deliberate: positions of XLNet that nobody asks permutations about, and sines that are not learnt.
NOT_TRAINED = {"xlnet": {"mask_emb"}, "roformer": {"encoder.embed_positions.weight"}}


def loud_network(name: str, causal: bool, dropout: float = 0.37) -> nn.Module:
    architecture, options = VARIANTS.get(name, (name, {}))
    options = dict(options)
    torch.manual_seed(5)
    config = transformer_registry[architecture].build(
        WIDTH, 2, options.pop("layers", 2), TOTAL, dropout=dropout, **options
    )
    network = backbone(config, causal)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.double().eval()


def vectors(batch: int, length: int, seed: int = 3) -> Tensor:
    return torch.randn(batch, length, WIDTH, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def real(lengths: list[int], width: int) -> Tensor:
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()


def answer(network: nn.Module, values: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.long)
    return network(inputs_embeds=values, attention_mask=mask, return_dict=False)[0]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'causal' if case[1] else 'both'}")
def case(request: pytest.FixtureRequest) -> tuple[str, bool]:
    return request.param


@pytest.fixture
def network(case: tuple[str, bool]) -> nn.Module:
    return loud_network(*case)


def change(network: nn.Module, place: int) -> Tensor:
    """How much another vector at one place of the first of two sessions moves each answer [2, L]."""
    values = vectors(2, TOTAL)
    other = values.clone()
    other[0, place] = vectors(1, 1, seed=4)[0, 0]
    with torch.no_grad():
        return (answer(network, values) - answer(network, other)).abs().amax(-1)


def test_who_sees_whom(case: tuple[str, bool], network: nn.Module) -> None:
    name, causal = case
    narrow = "narrow" in name or "chunks" in name
    for place in range(TOTAL):
        moved = change(network, place)
        assert moved[1].eq(0).all(), "a session sees its neighbour in the batch"
        assert moved[0, place] > 1e-4
        if causal:
            assert moved[0, :place].eq(0).all(), f"positions before {place} see it"
        if not narrow:
            assert moved[0, place:].min() > 1e-4
            assert causal or moved[0].min() > 1e-4
        elif not causal and 0 < place < TOTAL - 1:
            assert moved[0, place - 1] > 1e-4 or moved[0, place + 1] > 1e-4


def test_padding_and_batch_mates_do_not_matter(network: nn.Module) -> None:
    lengths = [6, 1, 4, 5, 3]
    values = vectors(5, TOTAL)
    with torch.no_grad():
        usual = answer(network, values[:, :6], real(lengths, 6))
        wider = answer(network, values, real(lengths, TOTAL))
        noise = values.masked_fill(real(lengths, TOTAL).eq(0)[..., None], 7.5)
        assert usual.shape == (5, 6, WIDTH)
        for row, n in enumerate(lengths):
            alone = answer(network, values[row : row + 1, :n])[0]
            torch.testing.assert_close(usual[row, :n], alone, rtol=TOLERANCE, atol=TOLERANCE)
            torch.testing.assert_close(wider[row, :n], alone, rtol=TOLERANCE, atol=TOLERANCE)
        noisy = answer(network, noise, real(lengths, TOTAL))
        kept = real(lengths, TOTAL).bool()
        torch.testing.assert_close(noisy[kept], wider[kept], rtol=TOLERANCE, atol=TOLERANCE)
        assert torch.isfinite(wider).all()


class _Bare(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        return answer(self.network, values, mask)


def test_a_trace_is_right_at_other_shapes(network: nn.Module) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = torch.jit.trace(_Bare(network), (vectors(3, 4), real([4, 2, 3], 4)), check_trace=False)
        for batch, length in ((1, 1), (5, TOTAL), (2, 3), (3, 4), (7, 8)):
            lengths = [1 + (3 * row + length) % length for row in range(batch)]
            lengths[0] = length
            given = (vectors(batch, length, seed=length), real(lengths, length))
            torch.testing.assert_close(trace(*given), answer(network, *given), rtol=TOLERANCE, atol=TOLERANCE)


def test_training_reaches_every_weight(case: tuple[str, bool], network: nn.Module) -> None:
    network.train()
    torch.manual_seed(0)
    mask = real([9, 3, 6], TOTAL)
    values = vectors(3, TOTAL).requires_grad_()
    result = answer(network, values, mask)
    (result[mask.bool()] ** 2).sum().backward()
    idle = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert idle == NOT_TRAINED.get(VARIANTS.get(case[0], case)[0], set())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert torch.isfinite(values.grad).all()
    assert values.grad[mask == 0].abs().max() == 0, "the padding is trained"


def test_only_training_is_random(case: tuple[str, bool], network: nn.Module) -> None:
    values = vectors(2, 5)
    with torch.no_grad():
        assert torch.equal(answer(network, values), answer(network, values))
        network.train()
        assert not torch.equal(answer(network, values), answer(network, values))
        surely = loud_network(*case, dropout=0.0).train()
        evaluated = answer(loud_network(*case), values)
        torch.testing.assert_close(answer(surely, values), evaluated, rtol=TOLERANCE, atol=TOLERANCE)


def test_mixed_precision(network: nn.Module) -> None:
    network.float().train()
    values, mask = vectors(3, TOTAL).float().requires_grad_(), real([9, 1, 4], TOTAL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = answer(network, values, mask)
    (result[mask.bool()].float() ** 2).sum().backward()
    assert torch.isfinite(result).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    evaluated = answer(network.eval(), values, mask)[mask.bool()]
    halved = answer(network.bfloat16(), values.bfloat16(), mask)[mask.bool()].float()
    assert (evaluated - halved).norm() < 0.05 * evaluated.norm()


@pytest.mark.parametrize("name", list(SUPPORTED))
def test_single_precision_and_one_event(name: str) -> None:
    for causal in {objective == "clm" for objective in SUPPORTED[name]}:
        network = backbone(transformer_registry[name].build(WIDTH, 2, 1, 1), causal).train()
        values = torch.randn(3, 1, WIDTH, requires_grad=True)
        result = answer(network, values)
        result.sum().backward()
        assert result.shape == (3, 1, WIDTH)
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()
        assert torch.isfinite(values.grad).all()
