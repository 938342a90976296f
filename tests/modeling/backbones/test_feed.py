"""What a backbone is told in training, where it may be told less, against what it is told in evaluation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from modeling.backbones.block import TransformerBlock
from modeling.backbones.precision import double, loud
from modeling.backbones.xlnet import StrictAttention
from modeling.masking.causal import CausalLanguageModeling
from modeling.masking.masked import MaskedLanguageModeling
from modeling.sequence import SessionStates

LENGTHS = torch.tensor([9, 1, 4, 7])


def block_of(name: str, causal: bool) -> Any:
    masking = CausalLanguageModeling(16) if causal else MaskedLanguageModeling(16)
    block = TransformerBlock.from_registry(name, 16, 2, 2, 12, masking=masking, dropout=0.0)
    return loud(block).double()


def outputs(block: Any, values: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of the events, and the gradient of a number made of them."""
    attend = torch.arange(9) < LENGTHS[:, None]
    values = values.clone().requires_grad_()
    with double():
        found = block(SessionStates(values, attend, LENGTHS - 1)).values[attend]
    (found.sin().sum()).backward()
    assert values.grad is not None
    return found.detach(), values.grad[attend]


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "sasrec", "xlnet"])
def test_training_without_dropout_is_evaluation(name: str) -> None:
    """With padding: networks that look back only get no mask of it in training."""
    block = block_of(name, causal=True)
    values = torch.randn(4, 9, 16, dtype=torch.double)
    in_training, in_evaluation = outputs(block.train(), values), outputs(block.eval(), values)
    torch.testing.assert_close(in_training, in_evaluation, rtol=1e-9, atol=1e-9)
    # What stands in the place of the padding is nobody's business.
    attend = torch.arange(9) < LENGTHS[:, None]
    other = torch.where(attend[..., None], values, torch.randn_like(values))
    torch.testing.assert_close(outputs(block.train(), other), in_training, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("causal", [True, False])
def test_xlnet_in_fewer_steps_is_hugging_faces(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    block = block_of("xlnet", causal).train()
    values = torch.randn(4, 9, 16, dtype=torch.double)
    ours = outputs(block, values)
    gradients = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    block.zero_grad(set_to_none=True)
    monkeypatch.delattr(StrictAttention, "forward")
    torch.testing.assert_close(outputs(block, values), ours, rtol=1e-9, atol=1e-9)
    for name, p in block.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(gradients[name], p.grad, rtol=1e-9, atol=1e-9)
