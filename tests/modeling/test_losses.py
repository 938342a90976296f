"""The exact cross-entropy in blocks against torch's own, values and gradients, in full and in mixed precision."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modeling.losses import blocks
from modeling.losses.cross_entropy import linear_cross_entropy


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 targets or fewer, blocks of 4 items or fewer."""
    monkeypatch.setattr(blocks, "_CPU_BUFFER", 16 * 11)
    monkeypatch.setattr(blocks, "_MIN_ROWS", 1)
    monkeypatch.setattr(blocks, "_MIN_ITEMS", 1)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 16 * 4 * 8)


def example(
    rows: int, classes: int = 11, width: int = 5, scale: float = 1.0, dtype: torch.dtype = torch.float
) -> list[Tensor]:
    """Vectors, a table, biases."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, width, dtype=dtype) * scale, torch.randn(classes, width, dtype=dtype)
    return [p.requires_grad_() for p in (hidden, weight, torch.randn(classes, dtype=dtype))]


def expected(parameters: list[Tensor], target: Tensor, smoothing: float = 0.0) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Torch's loss and its gradients, in double precision."""
    exact = [p.detach().double().requires_grad_() for p in parameters]
    bias = exact[2] if len(exact) > 2 else None
    loss = F.cross_entropy(F.linear(exact[0], exact[1], bias), target, label_smoothing=smoothing)
    return loss, torch.autograd.grad(loss, exact)


def given(
    parameters: list[Tensor], target: Tensor, smoothing: float = 0.0, reserved: int = 0, mixed: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Ours."""
    bias = parameters[2] if len(parameters) > 2 else None
    loss = linear_cross_entropy(parameters[0], parameters[1], bias, target, smoothing, reserved, mixed)
    return loss, torch.autograd.grad(loss, parameters)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 40, 67])
def test_equals_torch(rows: int, with_bias: bool, smoothing: float) -> None:
    parameters = example(rows, dtype=torch.double)[: 3 if with_bias else 2]
    target = torch.randint(0, 11, (rows,))
    (loss, found), (wanted_loss, wanted) = given(parameters, target, smoothing), expected(parameters, target, smoothing)
    torch.testing.assert_close(loss, wanted_loss)
    torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("gap", [30.0, 300.0, 30_000.0])
def test_an_item_far_above_the_target_overflows_nothing(gap: float) -> None:
    """Powers relative to the target's score are too large for single precision then."""
    parameters = example(20)
    with torch.no_grad():
        parameters[2][3] = gap
    target = torch.randint(0, 11, (20,))
    (loss, found), (wanted_loss, wanted) = given(parameters, target), expected(parameters, target)
    torch.testing.assert_close(loss.double(), wanted_loss, rtol=1e-5, atol=0)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-6)


def test_large_logits_in_single_precision() -> None:
    parameters = example(5, 9, 4, scale=1000)
    target = torch.randint(0, 9, (5,))
    (loss, found), (wanted_loss, wanted) = given(parameters, target, 0.1), expected(parameters, target, 0.1)
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_reserved_rows_are_no_classes(smoothing: float) -> None:
    parameters = example(30, dtype=torch.double)
    target = torch.randint(3, 11, (30,))
    loss, found = given(parameters, target, smoothing, 3)
    sliced = [parameters[0], parameters[1][3:], parameters[2][3:]]
    wanted_loss, wanted = expected(sliced, target - 3, smoothing)
    torch.testing.assert_close(loss, wanted_loss)
    torch.testing.assert_close((found[0], found[1][3:], found[2][3:]), wanted)
    assert found[1][:3].abs().max() == 0
    assert found[2][:3].abs().max() == 0


def test_the_backward_pass_scales_and_can_be_repeated() -> None:
    hidden, weight, bias = parameters = example(30, dtype=torch.double)
    target = torch.randint(0, 11, (30,))
    _, once = expected(parameters, target)
    loss = linear_cross_entropy(hidden, weight, bias, target)
    for _ in range(2):
        found = torch.autograd.grad(-0.5 * loss, parameters, retain_graph=True)
        torch.testing.assert_close(found, tuple(-0.5 * gradient for gradient in once))


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, bias = parameters = example(30)
    target = torch.randint(0, 11, (30,))
    with torch.no_grad():
        alone = linear_cross_entropy(hidden, weight, bias, target)
    assert not alone.requires_grad
    assert alone == given(parameters, target)[0]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("gap", [0.0, 300.0])
@pytest.mark.parametrize("with_bias", [True, False])
def test_mixed_precision_is_close_to_double(with_bias: bool, gap: float) -> None:
    """A factor in bfloat16 is wrong by 1/512 at most."""
    parameters = example(200)[: 3 if with_bias else 2]
    with torch.no_grad():
        parameters[0][0] *= 1 + gap
    target = torch.randint(0, 11, (200,))
    (loss, found), (wanted_loss, wanted) = given(parameters, target, mixed=True), expected(parameters, target)
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=2e-3)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() / b.norm() < 1e-2


def test_mixed_precision_of_what_is_learnt_is_not_below_zero() -> None:
    vectors = torch.randn(40, 16)
    vectors = 5 * F.normalize(vectors)
    loss = linear_cross_entropy(vectors, vectors, None, torch.arange(40), mixed=True)
    exact = F.cross_entropy(vectors @ vectors.T, torch.arange(40))
    assert loss >= 0
    assert loss.item() == pytest.approx(exact.item(), abs=1e-4)


def test_autocast_decides_where_nobody_does() -> None:
    hidden, weight, bias = parameters = example(30)
    target = torch.randint(0, 11, (30,))
    full, mixed = given(parameters, target, mixed=False)[0], given(parameters, target, mixed=True)[0]
    assert full != mixed
    with torch.autocast("cpu", torch.bfloat16):
        assert linear_cross_entropy(hidden, weight, bias, target) == mixed
        assert linear_cross_entropy(hidden, weight, bias, target, mixed=False) == full
        assert linear_cross_entropy(hidden.bfloat16(), weight, bias, target).dtype == torch.float32
    with torch.autocast("cpu", torch.float16):
        assert linear_cross_entropy(hidden, weight, bias, target) == full


def test_training_in_mixed_precision_gets_as_far() -> None:
    """Next items by a table: 200 steps from the same start end at the same loss, far below that of guessing."""
    following = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    ends = []
    for mixed in (False, True):
        torch.manual_seed(0)
        table, matrix = torch.nn.Embedding(300, 16), torch.nn.Linear(16, 16)
        optimizer = torch.optim.Adam([*table.parameters(), *matrix.parameters()], lr=0.02)
        for _ in range(200):
            seen = torch.randint(300, (64,))
            loss = linear_cross_entropy(matrix(table(seen)), table.weight, None, following[seen], mixed=mixed)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        every = torch.arange(300)
        ends.append(linear_cross_entropy(matrix(table(every)), table.weight, None, following, mixed=False).item())
    assert ends[0] < 0.5
    assert ends[1] == pytest.approx(ends[0], rel=0.1)
