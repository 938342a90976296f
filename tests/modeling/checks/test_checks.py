"""The checks pass what is right, and each finds the fault that it is for."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modeling as tr
from modeling.checks import CHECKS, Result, cell_maker, run_check, run_checks
from modeling.checks.learning import ITEMS, RESERVED, RULE_FEATURES, learns, walks
from modeling.checks.run import Maker

WIDTH = 16


def maker(module: Callable[[], nn.Module], masking: str = "clm", model: type[tr.Model] = tr.Model) -> Maker:
    """Models whose sessions are read by any module that takes vectors [B, L, 16]."""

    def make(features: Sequence[tr.Feature], limit: int) -> Any:
        inputs = tr.TabularSequenceFeatures(
            features, limit, continuous_projection=4, d_output=WIDTH, masking=masking, embedding_dim_default=WIDTH
        )
        body = tr.SequentialBlock(inputs, tr.Block(module(), WIDTH))
        return model(tr.Head(body, tr.NextItemPredictionTask(weight_tying=True)))

    return make


class Pair(nn.Module):
    """Each event with the one before it: all that is right."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(2 * WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, values: Tensor) -> Tensor:
        before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)
        return self.mix(torch.cat([values, before], dim=2))


class Wrapped(nn.Module):
    """Followed by something that must not be."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Pair()

    def forward(self, values: Tensor) -> Tensor:
        return self.spoil(self.inner(values), values)

    def spoil(self, found: Tensor, values: Tensor) -> Tensor:
        raise NotImplementedError


class Ahead(Wrapped):
    def spoil(self, found: Tensor, values: Tensor) -> Tensor:
        return found + values.sum(1, keepdim=True) - values.cumsum(1)


class Mates(Wrapped):
    def spoil(self, found: Tensor, values: Tensor) -> Tensor:
        return found + 0.1 * found[:, :1].mean(0)


class Length(Wrapped):
    def spoil(self, found: Tensor, values: Tensor) -> Tensor:
        return found * (1 + values.shape[1])


class Constant(Wrapped):
    def spoil(self, found: Tensor, values: Tensor) -> Tensor:
        return 0 * found + torch.arange(WIDTH, dtype=found.dtype)


class Infinite(Wrapped):
    def spoil(self, found: Tensor, values: Tensor) -> Tensor:
        return found / 0


class Branching(Wrapped):
    """A trace keeps the way that its example took."""

    def spoil(self, found: Tensor, values: Tensor) -> Tensor:
        return found if len(values) > 2 else -found


class Forgetful(tr.Model):
    """Keeps the first events of a session that is too long."""

    def forward(self, inputs: Any, targets: Any = None, training: bool = False, testing: bool = False) -> Any:
        if not training and not testing:
            inputs = {name: column[:, : self.max_sequence_length - 1] for name, column in inputs.items()}
        return super().forward(inputs, targets, training, testing)


class Cheating(tr.Model):
    """Evaluates on the whole session."""

    def forward(self, inputs: Any, targets: Any = None, training: bool = False, testing: bool = False) -> Any:
        if testing:
            labels = super().forward(inputs, testing=True)["labels"]
            return {"predictions": super().forward(inputs), "labels": labels}
        return super().forward(inputs, targets, training, testing)


def failed(results: list[Result]) -> set[str]:
    return {result.name for result in results if not result.passed}


def test_a_right_model_passes_all() -> None:
    results = run_checks(cell_maker(lambda limit: tr.GPT2Config.build(32, 2, 2, limit, dropout=0.0), "clm"))
    assert failed(results) == set()
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.deviation <= result.limit for result in results if result.name != "learns")


@pytest.mark.parametrize(
    ("module", "masking", "check", "why"),
    [
        (Ahead, "clm", "no_leak", "training answer"),
        (Ahead, "clm", "padding", "padding"),
        (Ahead, "mlm", "padding", "padding"),
        (Mates, "clm", "batch_mates", "other sessions"),
        (Mates, "clm", "evaluation_is_inference", "otherwise"),
        (Length, "clm", "padding", "padding"),
        (Constant, "clm", "no_leak", "same score|moves the scores"),
        (Constant, "clm", "most_recent", "same score|moves the scores"),
        (Infinite, "clm", "padding", "not finite"),
        (Branching, "clm", "exports", "TorchScript"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_each_fault_is_found(module: Any, masking: str, check: str, why: str) -> None:
    result = run_check(maker(module, masking), check)
    assert not result.passed
    assert any(part in result.detail for part in why.split("|")), result.detail


@pytest.mark.parametrize(
    ("model", "check"),
    [(Cheating, "no_leak"), (Cheating, "evaluation_is_inference"), (Forgetful, "most_recent")],
)
def test_faults_of_a_model_are_found(model: type[tr.Model], check: str) -> None:
    assert not run_check(maker(Pair, model=model), check).passed


def test_what_sees_one_event_only_cannot_learn_the_rule() -> None:
    torch.manual_seed(0)
    result = learns(maker(lambda: nn.Linear(WIDTH, WIDTH))(RULE_FEATURES, 8), steps=150)
    assert not result.passed
    assert 0.3 < result.deviation < 0.7  # it guesses between two


def test_what_a_model_raises_is_its_failure() -> None:
    def make(features: Any, limit: int) -> Any:
        raise RuntimeError("no such thing\nmore")

    assert run_check(make, "padding").detail == "RuntimeError: no such thing"
    with pytest.raises(ValueError, match="no check 'speed'"):
        run_check(make, "speed")


def test_checks_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    run_check(maker(Pair), "padding")
    first = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(first, torch.rand(3))


def test_walks_follow_from_the_last_two_items_only() -> None:
    items = walks(500, 8, 0)
    assert torch.equal(items, walks(500, 8, 0))
    rows = [[int(i) - RESERVED for i in row if i] for row in items]
    assert {len(row) for row in rows} == set(range(3, 9))
    following: dict[int, set[int]] = {}
    for row in rows:
        for before, last, following_item in zip(row, row[1:], row[2:], strict=False):
            assert following_item == (2 * last - before) % ITEMS
            following.setdefault(last, set()).add(following_item)
    assert {len(found) for found in following.values()} == {2}
