"""Losses by name, of torch, and as data."""

import json

import pytest
import torch
from torch import nn

from common.errors import UserError
from modeling.losses.base import Loss
from modeling.losses.cross_entropy import CrossEntropy
from modeling.losses.pairwise import BPRMax, TOP1Max
from modeling.losses.registry import LabelSmoothCrossEntropyLoss, TorchLoss, loss_from, loss_registry
from modeling.losses.sampled import GeneralisedBCE, SampledSoftmax
from modeling.losses.samplers import FrequencySampler
from modeling.serialization import describe, restore


def test_names() -> None:
    names = {"cross-entropy": CrossEntropy, "sampled-softmax": SampledSoftmax, "gbce": GeneralisedBCE}
    assert loss_registry == {**names, "bpr-max": BPRMax, "top1-max": TOP1Max}
    for name, cls in loss_registry.items():
        assert type(loss_from(name)) is cls
    with pytest.raises(ValueError, match="'hinge'"):
        loss_from("hinge")
    with pytest.raises(ValueError, match="a torch loss"):
        loss_from(3)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropy(0.1),
        SampledSoftmax(7, "in-batch", False),
        GeneralisedBCE(9, 0.5, "log-uniform"),
        BPRMax(11, 0.25, FrequencySampler([1.0, 2.0], 0.75)),
        TOP1Max(13),
    ],
)
def test_saved_as_data(loss: Loss) -> None:
    content = json.loads(json.dumps(describe(loss)))
    again = restore(content)
    assert type(again) is type(loss)
    assert describe(again) == content
    assert content["args"] == describe(loss.config())


def test_a_torch_loss_sees_the_items_alone() -> None:
    torch.manual_seed(0)
    answers, weight, bias = torch.randn(4, 3), torch.randn(9, 3), torch.randn(9)
    targets = torch.tensor([2, 8, 5, 3])
    loss = loss_from(nn.MultiMarginLoss(margin=0.5))
    expected = nn.MultiMarginLoss(margin=0.5)((answers @ weight.T + bias)[:, 2:], targets - 2)
    torch.testing.assert_close(loss(answers, weight, bias, targets, 2), expected)
    with pytest.raises(UserError, match="MultiMarginLoss cannot be saved"):
        describe(loss.config())


def test_plain_cross_entropy_of_torch_becomes_the_chunked_one() -> None:
    found = loss_from(nn.CrossEntropyLoss(label_smoothing=0.2))
    assert isinstance(found, CrossEntropy)
    assert found.label_smoothing == 0.2
    assert LabelSmoothCrossEntropyLoss(smoothing=0.2).config() == {"label_smoothing": 0.2}
    assert isinstance(loss_from(nn.CrossEntropyLoss(weight=torch.ones(5))), TorchLoss)
    assert isinstance(loss_from(nn.CrossEntropyLoss(reduction="sum")), TorchLoss)
    with pytest.raises(ValueError, match="reduction"):
        LabelSmoothCrossEntropyLoss(reduction="none")
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropy(1.0)
