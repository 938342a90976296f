"""The next item: what is learnt from, what is scored, and every loss under one task."""

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modeling as tr
from common.errors import UserError
from modeling.blocks.mlp import MLPBlock
from modeling.losses.cross_entropy import CrossEntropy
from modeling.losses.registry import loss_registry
from modeling.losses.sampled import SampledSoftmax
from modeling.losses.samplers import FrequencySampler
from modeling.ranking_metric import AvgPrecisionAt, NDCGAt, RecallAt
from modeling.schema import Feature
from modeling.sequence import SessionStates
from modeling.serialization import describe, restore
from modeling.tasks.next_item import NextItemPredictionTask

ITEMS, RESERVED, WIDTH = 12, 3, 6


def inputs_of(masking: str | None = None) -> Any:
    torch.manual_seed(0)
    features = [Feature("item_id", "categorical", ITEMS, RESERVED, True)]
    return tr.TabularSequenceFeatures(features, 8, embedding_dim_default=WIDTH, masking=masking)


def built(inputs: Any, width: int = WIDTH, **options: Any) -> NextItemPredictionTask:
    torch.manual_seed(1)
    task = NextItemPredictionTask(**options)
    task.build(inputs, width)
    return task


def training_states(width: int = WIDTH) -> SessionStates:
    values = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[5, 0, 11], [0, 3, 0]])
    return SessionStates(values, torch.ones(2, 3, dtype=torch.bool), torch.tensor([2, 2]), targets)


@pytest.mark.parametrize("options", [{}, {"weight_tying": True}, {"weight_tying": True, "label_smoothing": 0.2}])
@pytest.mark.parametrize("width", [WIDTH, 5])
def test_the_loss_is_the_cross_entropy_of_the_scores(width: int, options: dict[str, Any]) -> None:
    inputs = inputs_of()
    task = built(inputs, width, output_bias=True, softmax_temperature=0.5, **options)
    with torch.no_grad():
        task.bias.normal_()
    states = training_states(width)
    loss, count = task.loss(states, inputs)
    scores = task.scores(states.answers(), inputs.item_table.weight)
    assert scores.shape == (3, ITEMS)
    assert torch.equal(scores[:, :RESERVED], torch.full((3, RESERVED), -torch.inf))
    targets = torch.tensor([5, 11, 3]) - RESERVED
    smoothing = options.get("label_smoothing", 0.0)
    torch.testing.assert_close(loss, F.cross_entropy(scores[:, RESERVED:], targets, label_smoothing=smoothing))
    assert count == 3


def test_temperature_divides_the_scores() -> None:
    inputs = inputs_of()
    states = SessionStates(torch.randn(2, 3, WIDTH), torch.ones(2, 3, dtype=torch.bool), torch.tensor([2, 1]))
    plain, hot = built(inputs), built(inputs, softmax_temperature=4)
    torch.testing.assert_close(hot.predict(states, inputs) * 4, plain.predict(states, inputs))
    with pytest.raises(ValueError, match="softmax_temperature"):
        NextItemPredictionTask(softmax_temperature=0)


def test_targets_may_be_given_for_sessions_that_are_read_once() -> None:
    inputs = inputs_of()
    task = built(inputs, weight_tying=True)
    states = SessionStates(torch.randn(3, 4, WIDTH), torch.ones(3, 4, dtype=torch.bool), torch.tensor([3, 0, 2]))
    loss, count = task.loss(states, inputs, torch.tensor([[4], [2], [9]]))  # 2 is reserved
    scores = task.predict(states, inputs)[[0, 2]]
    assert count == 2
    torch.testing.assert_close(loss, F.cross_entropy(scores, torch.tensor([4, 9])))
    for bad in ((states, None), (training_states(), torch.tensor([4, 5]))):
        with pytest.raises(ValueError, match="either"):
            task.loss(bad[0], inputs, bad[1])


def test_no_target_is_no_loss() -> None:
    inputs = inputs_of()
    states = training_states()
    values = states.values.requires_grad_()
    states = SessionStates(values, states.attend, states.read, torch.zeros(2, 3, dtype=torch.long))
    loss, count = built(inputs).loss(states, inputs)
    assert (loss.item(), count) == (0, 0)
    assert not torch.autograd.grad(loss, values)[0].any()


@pytest.mark.parametrize("loss", [*loss_registry, "torch"])
@pytest.mark.parametrize("weight_tying", [True, False])
def test_every_loss_learns(loss: str, weight_tying: bool) -> None:
    inputs = inputs_of()
    chosen = nn.MultiMarginLoss() if loss == "torch" else loss
    if loss == "bpr-max":
        chosen = loss_registry[loss](regularization=0.1)  # type: ignore[call-arg]
    task = built(inputs, loss=chosen, weight_tying=weight_tying, output_bias=True)
    items = ITEMS - RESERVED
    values = nn.Parameter(torch.randn(items, 1, WIDTH) * 0.1)
    attend, read = torch.ones(items, 1, dtype=torch.bool), torch.zeros(items, dtype=torch.long)
    targets = torch.randperm(items)[:, None] + RESERVED
    before = inputs.item_table.weight[:RESERVED].clone()
    optimizer = torch.optim.Adam([values, *task.parameters(), inputs.item_table.weight], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        task.loss(SessionStates(values, attend, read, targets), inputs)[0].backward()
        optimizer.step()
    task.eval()
    scores = task.predict(SessionStates(values, attend, read), inputs)
    assert torch.equal(scores.argmax(1), targets[:, 0])
    assert scores[:, :RESERVED].eq(-torch.inf).all()
    assert torch.equal(inputs.item_table.weight[:RESERVED], before)


@pytest.mark.parametrize("loss", [*loss_registry])
def test_the_loss_sums_in_full_precision_under_autocast(loss: str) -> None:
    inputs = inputs_of()
    task = built(inputs, loss=loss, output_bias=True)
    states = training_states()

    def value_and_gradient(amp: bool) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            value, _ = task.loss(states, inputs)
        return value, torch.autograd.grad(value, task.weight)[0]  # type: ignore[arg-type]

    (half, half_gradient), (full, full_gradient) = value_and_gradient(True), value_and_gradient(False)
    assert half.dtype == half_gradient.dtype == torch.float32
    if task.objective.mixes_precision:  # it multiplies what is rounded to eight bits, and sums that
        assert 0 < abs(half - full) < 1e-3 * full
        assert 0 < (half_gradient - full_gradient).norm() < 1e-2 * full_gradient.norm()
    else:
        assert torch.equal(half, full)
        assert torch.equal(half_gradient, full_gradient)
    with torch.autocast("cpu", torch.bfloat16):  # as from a body in bfloat16
        half, _ = task.loss(states.with_values(states.values.bfloat16()), inputs)
    assert half.dtype == torch.float32


def test_arguments_of_transformers4rec() -> None:
    task = NextItemPredictionTask(sampled_softmax=True, max_n_samples=33)
    assert isinstance(task.objective, SampledSoftmax)
    assert (task.objective.n_samples, task.objective.sampler.name) == (33, "log-uniform")
    assert isinstance(NextItemPredictionTask(loss=nn.CrossEntropyLoss()).objective, CrossEntropy)
    task = NextItemPredictionTask()
    assert (task.task_name, task.target_name, task.held_out) == ("next-item", None, True)
    assert [(type(m), m.top_ks) for m in task.metrics] == [(m, [10, 20]) for m in (NDCGAt, AvgPrecisionAt, RecallAt)]
    for options in (
        {"sampled_softmax": True, "loss": "gbce"},
        {"sampled_softmax": True, "label_smoothing": 0.1},
        {"loss": "bpr-max", "label_smoothing": 0.1},
        {"loss": CrossEntropy(0.2), "label_smoothing": 0.1},
        {"padding_idx": 1},
        {"label_smoothing": 1.0},
    ):
        with pytest.raises(ValueError, match=r"label_smoothing|not both|padding_idx"):
            NextItemPredictionTask(**options)
    with pytest.raises(ValueError, match="target_dim is 5"):
        built(inputs_of(), target_dim=5)


def test_a_block_of_the_task_comes_first() -> None:
    inputs = inputs_of()
    task = built(inputs, 5, task_block=MLPBlock([9, WIDTH]), weight_tying=True)
    assert task.projection is None  # the block already ends at the items' width
    states = training_states(5)
    loss, _ = task.loss(states, inputs)
    answers = task.task_block(states.values)[states.targets != 0]
    scores = answers @ inputs.item_table.weight.T
    torch.testing.assert_close(loss, F.cross_entropy(scores[:, RESERVED:], torch.tensor([5, 11, 3]) - RESERVED))


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1, "weight_tying": True, "output_bias": True, "softmax_temperature": 2.0},
        {"loss": "gbce", "metrics": [RecallAt([3])], "task_name": "mine"},
        {"loss": SampledSoftmax(5, FrequencySampler(list(range(ITEMS)))), "task_block": MLPBlock([4])},
        {"loss": SampledSoftmax(5, "in-batch")},
    ],
)
def test_saved_and_restored(options: dict[str, Any]) -> None:
    inputs = inputs_of()
    task = built(inputs, **options)
    task.loss(training_states(), inputs)  # the in-batch sampler counts
    content = json.loads(json.dumps(describe(task)))
    again = restore(content)
    again.build(inputs, WIDTH)
    again.load_state_dict(task.state_dict())
    assert describe(again) == content
    states = SessionStates(torch.randn(2, 3, WIDTH), torch.ones(2, 3, dtype=torch.bool), torch.tensor([2, 1]))
    assert torch.equal(again.predict(states, inputs), task.predict(states, inputs))
    losses = []
    for one in (task, again):
        torch.manual_seed(5)
        losses.append(one.loss(training_states(), inputs)[0])
    assert losses[0] == losses[1]


def test_a_loss_of_somebody_else_is_not_saved() -> None:
    with pytest.raises(UserError, match="MultiMarginLoss cannot be saved"):
        describe(NextItemPredictionTask(loss=nn.MultiMarginLoss()))


def test_metrics_by_name_over_batches() -> None:
    inputs = inputs_of()
    task = built(inputs, metrics=[RecallAt([1, 2]), NDCGAt([2])])
    scores = torch.full((4, ITEMS), -1.0)
    scores[:, 7], scores[:, 4] = 2, 1
    task.calculate_metrics(scores[:2], torch.tensor([7, 2]))  # 2 is reserved: no target
    task.calculate_metrics(scores[2:], torch.tensor([4, 11]))
    task.calculate_metrics(scores[:1], torch.tensor([0]))
    found = task.compute_metrics()
    assert found["next-item/recall_at_1"] == pytest.approx(1 / 3)
    assert found["next-item/recall_at_2"] == pytest.approx(2 / 3)
    assert found["next-item/ndcg_at_2"] == pytest.approx((1 + 0.6309297535714575) / 3)
    assert set(task.compute_metrics("eval")) == {f"eval/{name}" for name in found}
    task.reset_metrics()
    assert all(value != value for value in task.compute_metrics().values())
