"""Tasks with a target column: values by hand, what is ignored, what is refused, and that they learn."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import UserError
from modeling.blocks.mlp import MLPBlock
from modeling.schema import _merlin
from modeling.sequence import SessionStates
from modeling.serialization import describe, restore
from modeling.tasks.classification import BinaryClassificationTask, MultiClassClassificationTask
from modeling.tasks.metrics import Accuracy, MeanSquaredError, Precision, Recall, named_values
from modeling.tasks.regression import RegressionTask
from modeling.tasks.targets import tasks_of

NAN = float("nan")
TASKS: dict[str, Callable[..., Any]] = {
    "binary": lambda **options: BinaryClassificationTask("click", **options),
    "classes": lambda **options: MultiClassClassificationTask("click", n_classes=3, **options),
    "number": lambda **options: RegressionTask("click", **options),
}


def states_of(lengths: list[int], columns: int, width: int = 4, padding: float = 0.0, seed: int = 0) -> SessionStates:
    n = torch.tensor(lengths)
    attend = torch.arange(columns) < n[:, None]
    # Drawn at one length, so that the same events have the same vectors with more padding.
    values = torch.randn(len(n), 16, width, generator=torch.Generator().manual_seed(seed))[:, :columns]
    return SessionStates(values.masked_fill(~attend[..., None], padding), attend, n - 1)


def built(task: Any, width: int = 4) -> Any:
    torch.manual_seed(0)
    task.build(None, width)
    return task


def weights(task: Any, *values: float) -> Any:
    with torch.no_grad():
        task.output.weight.copy_(torch.tensor(values).reshape(task.output.weight.shape))
        task.output.bias.zero_()
    return task


TWO = SessionStates(
    torch.tensor([[[1.0], [2.0]], [[-1.0], [NAN]]]), torch.tensor([[True, True], [True, False]]), torch.tensor([1, 0])
)


def test_binary_by_hand() -> None:
    task = weights(built(BinaryClassificationTask("click"), 1), 1.0)
    p = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))]
    assert task.predict(TWO, None).tolist() == pytest.approx(p)
    loss, count = task.loss(TWO, None, torch.tensor([1, 0]))
    assert count == 2
    assert loss.item() == pytest.approx(-(math.log(p[0]) + math.log(1 - p[1])) / 2)
    torch.testing.assert_close(loss, nn.BCELoss()(task.predict(TWO, None), torch.tensor([1.0, 0.0])))


def test_binary_is_stable_where_it_is_sure() -> None:
    task = weights(built(BinaryClassificationTask("click"), 1), 1e4)
    loss, _ = task.loss(TWO, None, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx((2e4 + 1e4) / 2)
    loss.backward()
    assert task.output.weight.grad.isfinite().all()


def test_regression_by_hand() -> None:
    task = weights(built(RegressionTask("price"), 1), 3.0)
    assert task.predict(TWO, None).tolist() == pytest.approx([6, -3])
    assert task.loss(TWO, None, torch.tensor([5.0, -1.0]))[0].item() == pytest.approx((1 + 4) / 2)
    mae = weights(built(RegressionTask("price", loss="mae"), 1), 3.0)
    assert mae.loss(TWO, None, torch.tensor([5, -1]))[0].item() == pytest.approx((1 + 2) / 2)


def test_classes_by_hand() -> None:
    task = weights(built(MultiClassClassificationTask("kind", n_classes=3), 1), 1.0, 0.0, -1.0)
    first = math.exp(2) / (math.exp(2) + 1 + math.exp(-2))
    assert task.predict(TWO, None).sum(1).tolist() == pytest.approx([1, 1])
    assert task.predict(TWO, None)[0, 0].item() == pytest.approx(first)
    assert task.loss(TWO, None, torch.tensor([0, -100]))[0].item() == pytest.approx(-math.log(first))
    assert task.loss(TWO, None, torch.tensor([0, -100]))[1] == 1


@pytest.mark.parametrize("summary_type", ["first", "last", "mean", "cls_index", None])
@pytest.mark.parametrize("kind", TASKS)
def test_padding_changes_nothing(kind: str, summary_type: str | None) -> None:
    task = built(TASKS[kind](summary_type=summary_type))
    few, many = states_of([3, 1, 4], 4), states_of([3, 1, 4], 9, padding=NAN)
    targets = torch.tensor([1, 0, 1]) if summary_type else torch.randint(0, 2, (3, 4))
    more = targets if summary_type else nn.functional.pad(targets, [0, 5], value=1)
    (loss, count), (same, same_count) = task.loss(few, None, targets), task.loss(many, None, more)
    torch.testing.assert_close(loss, same)
    assert count == same_count == (3 if summary_type else 8)
    gradient = torch.autograd.grad(same, task.output.weight)[0]
    assert gradient.isfinite().all()
    predictions = task.predict(many, None)
    if summary_type is None:
        assert torch.equal(predictions.isnan().reshape(3, 9, -1).any(2), ~many.attend)
        torch.testing.assert_close(predictions[:, :4], task.predict(few, None), equal_nan=True)
    else:
        torch.testing.assert_close(predictions, task.predict(few, None))
        assert predictions.shape == ((3, 3) if kind == "classes" else (3,))


def test_a_target_an_event_where_training_and_inference_differ_by_a_position() -> None:
    task = weights(built(RegressionTask("price", summary_type=None), 1), 1.0)
    states = states_of([3, 2], 3, width=1)
    targets = torch.zeros(2, 3)
    whole, count = task.loss(states, None, targets)
    # One position more in the targets, or in the states, is left out.
    for other, fewer in ((targets[:, :2], 4), (nn.functional.pad(targets, [0, 1]), 5)):
        loss, found = task.loss(states, None, other)
        assert found == fewer
    torch.testing.assert_close(loss, whole)
    assert count == 5


@pytest.mark.parametrize("kind", TASKS)
def test_missing_targets_and_shapes(kind: str) -> None:
    task = built(TASKS[kind]())
    states = states_of([3, 1, 4], 4)
    some, count = task.loss(states, None, torch.tensor([1.0, NAN, 0.0]))
    assert count == 2
    two = SessionStates(states.values[[0, 2]], states.attend[[0, 2]], states.read[[0, 2]])
    torch.testing.assert_close(some, task.loss(two, None, torch.tensor([[1], [0]]))[0])
    none, count = task.loss(states, None, torch.full((3,), NAN))
    assert count == 0
    assert none.item() == 0
    assert none.requires_grad == states.values.requires_grad
    with pytest.raises(ValueError, match="needs targets"):
        task.loss(states, None, None)
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        task.loss(states, None, torch.ones(3, 4))
    with pytest.raises(ValueError, match="a value an event"):
        built(TASKS[kind](summary_type=None)).loss(states, None, torch.ones(3))


def test_no_targets_leave_the_graph_whole() -> None:
    states = states_of([2], 2)
    states = states.with_values(states.values.requires_grad_())
    loss, _ = built(RegressionTask("price")).loss(states, None, torch.tensor([NAN]))
    assert not torch.autograd.grad(loss, states.values)[0].any()


def test_targets_out_of_range() -> None:
    states = states_of([1, 1], 1)
    with pytest.raises(ValueError, match="0 or 1, found 2"):
        built(BinaryClassificationTask("click")).loss(states, None, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="below n_classes, found 3"):
        built(MultiClassClassificationTask("kind", n_classes=3)).loss(states, None, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="n_classes"):
        MultiClassClassificationTask("kind")


def test_names_and_defaults() -> None:
    assert BinaryClassificationTask("click").task_name == "click/binary_classification_task"
    assert RegressionTask("price").task_name == "price/regression_task"
    assert MultiClassClassificationTask("a.b", n_classes=2).task_name == "a.b/multi_class_classification_task"
    assert RegressionTask("price", "mine").task_name == "mine"
    assert [type(m) for m in BinaryClassificationTask("click").metrics] == [Precision, Recall, Accuracy]
    assert [type(m) for m in RegressionTask("price").metrics] == [MeanSquaredError]
    # Each task counts for itself.
    assert BinaryClassificationTask("a").metrics[0] is not BinaryClassificationTask("b").metrics[0]
    assert not BinaryClassificationTask("click").held_out


@pytest.mark.parametrize("kind", TASKS)
def test_learns_and_is_saved(kind: str) -> None:
    torch.manual_seed(0)
    task = built(TASKS[kind](task_block=MLPBlock([16]), summary_type="mean"))
    states = states_of([3, 1, 4, 2, 5, 3, 3, 2] * 4, 6, seed=1)
    mean = states.values.sum(1) / states.attend.sum(1, keepdim=True)
    targets = mean[:, 0] ** 2 if kind == "number" else (mean[:, 0] > 0).long()
    optimizer = torch.optim.Adam(task.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss(states, None, targets)[0].backward()
        optimizer.step()
    task.calculate_metrics(task.predict(states, None), targets)
    metrics = task.compute_metrics()
    if kind == "number":
        assert metrics["click/regression_task/mean_squared_error"] < 0.05 * targets.var()
    else:
        assert metrics[f"{task.task_name}/accuracy"] == 1
    content = json.loads(json.dumps(describe(task)))
    again = built(restore(content))
    again.load_state_dict(task.state_dict())
    assert describe(again) == content
    torch.testing.assert_close(again.predict(states, None), task.predict(states, None), rtol=0, atol=0)


def test_losses_of_torch() -> None:
    assert BinaryClassificationTask("click", loss=nn.BCELoss()).loss_name == "binary-cross-entropy"
    assert RegressionTask("price", loss=nn.MSELoss()).loss_name == "mse"
    own = built(RegressionTask("price", loss=nn.HuberLoss(delta=0.5)), 1)
    weights(own, 1.0)
    expected = nn.HuberLoss(delta=0.5)(torch.tensor([2.0, -1.0]), torch.tensor([0.0, 0.0]))
    torch.testing.assert_close(own.loss(TWO, None, torch.tensor([0.0, 0.0]))[0], expected)
    for task in (own, RegressionTask("price", loss=nn.MSELoss(reduction="sum"))):
        with pytest.raises(UserError, match="cannot be saved"):
            describe(task)
    weighted = BinaryClassificationTask("click", loss=nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)))
    assert weighted.loss_name is None
    with pytest.raises(ValueError, match="BCEWithLogitsLoss"):
        BinaryClassificationTask("click", loss=nn.BCELoss(weight=torch.ones(2)))
    with pytest.raises(ValueError, match="'hinge'"):
        RegressionTask("price", loss="hinge")


def test_metrics_by_hand() -> None:
    preds, target = torch.tensor([0.9, 0.8, 0.3, 0.2, 0.6]), torch.tensor([1, 0, 1, 0, 1])
    by_hand = {
        Precision: 2 / 3,
        Recall: 2 / 3,
        Accuracy: 3 / 5,
        MeanSquaredError: (0.01 + 0.64 + 0.49 + 0.04 + 0.16) / 5,
    }
    for cls, expected in by_hand.items():
        metric = cls()
        metric.update(preds[:2], target[:2])
        metric.update(preds[2:], target[2:])
        assert float(metric.compute()) == pytest.approx(expected)
        assert float(cls()(preds, target)) == pytest.approx(expected)
        metric.reset()
        assert metric.compute().isnan()
    classes = Accuracy()
    classes.update(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]]), torch.tensor([1, 2]))
    assert named_values(classes) == {"accuracy": 0.5}


def test_metrics_equal_torchmetrics() -> None:
    from torchmetrics.functional import classification

    torch.manual_seed(0)
    preds, target = torch.rand(200), torch.randint(0, 2, (200,))
    for cls, theirs in (
        (Precision, classification.binary_precision),
        (Recall, classification.binary_recall),
        (Accuracy, classification.binary_accuracy),
    ):
        assert float(cls()(preds, target)) == pytest.approx(float(theirs(preds, target)), abs=1e-6)


def test_metrics_of_torchmetrics_are_taken_too() -> None:
    from torchmetrics.regression import MeanAbsoluteError

    task = built(RegressionTask("price", metrics=[MeanAbsoluteError()]))
    task.calculate_metrics(torch.tensor([1.0, 2.0]), torch.tensor([0.0, NAN]))
    assert task.compute_metrics("eval") == {"eval/price/regression_task/mean_absolute_error": 1.0}
    task.reset_metrics()
    assert describe(task)["args"]["metrics"] == []


def test_tasks_of_a_schema() -> None:
    merlin = _merlin()
    tags, column = merlin.Tags, merlin.ColumnSchema
    columns = [
        column("price", dtype=np.float32, tags=[tags.TARGET, tags.REGRESSION]),
        column(
            "kind", dtype=np.int64, tags=[tags.MULTI_CLASS_CLASSIFICATION], properties={"domain": {"min": 0, "max": 4}}
        ),
        column("user", dtype=np.int64, tags=[tags.USER_ID]),
        column("click", dtype=np.int64, tags=[tags.BINARY_CLASSIFICATION, tags.TARGET]),
    ]
    tasks = tasks_of(merlin.Schema(columns), summary_type="mean")
    assert [(type(task), task.target_name) for task in tasks] == [
        (RegressionTask, "price"),
        (MultiClassClassificationTask, "kind"),
        (BinaryClassificationTask, "click"),
    ]
    assert tasks[1].n_classes == 5
    assert all(task.summary.summary_type == "mean" for task in tasks)
    with pytest.raises(ValueError, match="'kind' has no domain"):
        tasks_of(merlin.Schema([column("kind", tags=[tags.MULTI_CLASS_CLASSIFICATION])]))
    with pytest.raises(ValueError, match="two tasks"):
        tasks_of(merlin.Schema([column("both", tags=[tags.BINARY_CLASSIFICATION, tags.REGRESSION])]))
