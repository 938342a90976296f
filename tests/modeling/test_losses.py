"""The chunked cross-entropy against torch's own, values and gradients."""

import pytest
import torch

from modeling.losses import cross_entropy as losses


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 40, 67])
def test_equals_torch(rows: int, with_bias: bool, smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CPU_CHUNK", 16 * 11)  # chunks of 16 rows
    monkeypatch.setattr(losses, "_MIN_ROWS", 1)
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, 5, dtype=torch.double), torch.randn(11, 5, dtype=torch.double)
    bias = torch.randn(11, dtype=torch.double) if with_bias else None
    target = torch.randint(0, 11, (rows,))
    parameters = [p.requires_grad_() for p in (hidden, weight, bias) if p is not None]
    loss = losses.linear_cross_entropy(hidden, weight, bias, target, smoothing)
    expected = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(hidden, weight, bias), target, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, expected)
    given, wanted = torch.autograd.grad(3 * loss, parameters), torch.autograd.grad(3 * expected, parameters)
    for a, b in zip(given, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_large_logits_in_single_precision() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 4) * 100, torch.randn(9, 4) * 10
    parameters = [hidden.requires_grad_(), weight.requires_grad_()]
    target = torch.randint(0, 9, (5,))
    loss = losses.linear_cross_entropy(hidden, weight, None, target, 0.1)
    exact = [p.detach().double().requires_grad_() for p in parameters]
    expected = torch.nn.functional.cross_entropy(exact[0] @ exact[1].T, target, label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
