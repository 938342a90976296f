"""The chunked cross-entropy against torch's own, values and gradients."""

import pytest
import torch

from modeling.losses import cross_entropy as losses


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 40, 67])
def test_equals_torch(rows: int, with_bias: bool, smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CPU_CHUNK", 16 * 11)  # chunks of 16 rows
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
