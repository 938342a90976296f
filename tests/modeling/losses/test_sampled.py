"""Sampled and pairwise losses: hand-computed values, the right limit, and what never counts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.losses.pairwise import BPRMax, TOP1Max
from modeling.losses.sampled import GeneralisedBCE, SampledLoss, SampledSoftmax
from modeling.losses.samplers import Sampler

RESERVED = 2
SAMPLED = [SampledSoftmax, GeneralisedBCE, BPRMax, TOP1Max]


class Given(Sampler):
    """Always the same items, with the same expected counts."""

    def __init__(self, items: list[int], counts: list[float]) -> None:
        super().__init__()
        self.items, self.counts = torch.tensor(items), torch.tensor(counts, dtype=torch.double)

    def draw(self, n: int, items: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self.items, self.counts.log()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def of_scores(loss: SampledLoss, scores: list[float], target: int) -> float:
    """Value for one target among items of these scores."""
    weight = torch.tensor([9.0] * RESERVED + scores, dtype=torch.double)[:, None]
    return float(loss(torch.ones(1, 1, dtype=torch.double), weight, None, torch.tensor([target + RESERVED]), RESERVED))


def test_sampled_softmax_by_hand() -> None:
    # Item 0 is the target. Item 1 is drawn twice and expected twice, item 2 is drawn once and expected half a time.
    loss = SampledSoftmax(3, Given([1, 1, 2], [2.0, 2.0, 0.5]))
    total = math.exp(0.5) + 2 * math.exp(1.0) / 2 + math.exp(-1.0) / 0.5
    assert of_scores(loss, [0.5, 1.0, -1.0], 0) == pytest.approx(math.log(total) - 0.5)
    plain = SampledSoftmax(3, Given([1, 1, 2], [2.0, 2.0, 0.5]), log_q_correction=False)
    total = math.exp(0.5) + 2 * math.exp(1.0) + math.exp(-1.0)
    assert of_scores(plain, [0.5, 1.0, -1.0], 0) == pytest.approx(math.log(total) - 0.5)


def test_gbce_by_hand() -> None:
    # Two negatives of five items: a = 2/4; with t = 0.75 b = 0.5 (0.75 (1 - 2) + 2) = 0.625.
    value = -(0.625 * math.log(sigmoid(0.5)) + math.log(1 - sigmoid(1.0)) + math.log(1 - sigmoid(-1.0))) / 3
    scores = [0.5, 1.0, -1.0, 7.0, 7.0]
    assert of_scores(GeneralisedBCE(2, 0.75, Given([1, 2], [1, 1])), scores, 0) == pytest.approx(value)
    plain = -(math.log(sigmoid(0.5)) + math.log(1 - sigmoid(1.0)) + math.log(1 - sigmoid(-1.0))) / 3
    assert of_scores(GeneralisedBCE(2, 0.0, Given([1, 2], [1, 1])), scores, 0) == pytest.approx(plain)
    # Four negatives of three items: a = 4/2, so b = 2 (0.75 / 2 + 0.5) = 1.75.
    value = -(1.75 * math.log(sigmoid(0.5)) + 3 * math.log(1 - sigmoid(1.0)) + math.log(1 - sigmoid(-1.0))) / 5
    found = of_scores(GeneralisedBCE(4, 0.75, Given([1, 2, 1, 1], [1] * 4)), [0.5, 1.0, -1.0], 0)
    assert found == pytest.approx(value)


def test_bpr_max_by_hand() -> None:
    w1, w2 = math.exp(1.0) / (math.exp(1.0) + math.exp(-1.0)), math.exp(-1.0) / (math.exp(1.0) + math.exp(-1.0))
    won = w1 * sigmoid(0.5 - 1.0) + w2 * sigmoid(0.5 + 1.0)
    for strength in (0.0, 0.7):
        loss = BPRMax(2, strength, Given([1, 2], [1, 1]))
        expected = -math.log(won) + strength * (w1 * 1.0 + w2 * 1.0)
        assert of_scores(loss, [0.5, 1.0, -1.0], 0) == pytest.approx(expected)


def test_top1_max_by_hand() -> None:
    w1, w2 = math.exp(2.0) / (math.exp(2.0) + math.exp(-1.0)), math.exp(-1.0) / (math.exp(2.0) + math.exp(-1.0))
    value = w1 * (sigmoid(2.0 - 0.5) + sigmoid(4.0)) + w2 * (sigmoid(-1.0 - 0.5) + sigmoid(1.0))
    assert of_scores(TOP1Max(2, Given([1, 2], [1, 1])), [0.5, 2.0, -1.0], 0) == pytest.approx(value)


def problem(items: int = 7, targets: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    answers = torch.randn(targets, 3, dtype=torch.double, generator=generator).requires_grad_()
    weight = torch.randn(items + RESERVED, 3, dtype=torch.double, generator=generator).requires_grad_()
    bias = torch.randn(items + RESERVED, dtype=torch.double, generator=generator).requires_grad_()
    return answers, weight, bias, torch.randint(RESERVED, items + RESERVED, (targets,), generator=generator)


def gradients(loss: Any, answers: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    value = loss(answers, weight, bias, targets, RESERVED)
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, (answers, weight, bias))])


def exact_gradients(answers: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    def full(a: Tensor, w: Tensor, b: Tensor, t: Tensor, reserved: int) -> Tensor:
        return F.cross_entropy(F.linear(a, w[reserved:], b[reserved:]), t - reserved)

    return gradients(full, answers, weight, bias, targets)


@pytest.mark.parametrize("sampler", ["uniform", "log-uniform"])
def test_sampled_softmax_has_the_gradient_of_the_full_one_in_the_limit(sampler: str) -> None:
    given = problem()
    exact = exact_gradients(*given)
    torch.manual_seed(0)

    def error(n: int, draws: int, **options: Any) -> float:
        loss = SampledSoftmax(n, sampler, **options)
        mean = torch.stack([gradients(loss, *given) for _ in range(draws)]).mean(0)
        return float((mean - exact).norm() / exact.norm())

    assert error(2000, 300) < 0.005
    # What remains with few negatives is the bias of a logarithm of an estimate: it falls with their number.
    assert error(20, 3000) < error(4, 3000)
    # Without the correction it goes elsewhere.
    assert error(2000, 300, log_q_correction=False) > 0.1


@pytest.mark.parametrize("sampler", ["uniform", "log-uniform"])
def test_the_estimated_sum_is_unbiased_even_with_few_negatives(sampler: str) -> None:
    answers, weight, bias, targets = problem(targets=1)
    scores = F.linear(answers, weight[RESERVED:], bias[RESERVED:])[0].detach()
    own = float(scores[targets[0] - RESERVED])
    loss = SampledSoftmax(3, sampler)
    torch.manual_seed(0)
    with torch.no_grad():
        values = torch.stack([loss(answers, weight, bias, targets, RESERVED) for _ in range(4000)])
    sums = (values + own).exp()
    standard_error = float(sums.std() / len(sums) ** 0.5)
    assert abs(float(sums.mean()) - float(scores.exp().sum())) < 4 * standard_error
    assert standard_error < 0.02 * float(sums.mean())


@pytest.mark.parametrize("make", SAMPLED)
def test_the_target_among_the_negatives_never_counts(make: Any) -> None:
    answers, weight, bias, targets = problem(targets=1)
    own = int(targets[0]) - RESERVED
    others = [i for i in range(7) if i != own][:2]
    without = gradients(make(2, sampler=Given(others, [0.4, 0.6])), answers, weight, bias, targets)
    given = Given([own, *others, own], [0.3, 0.4, 0.6, 0.3])
    if make is GeneralisedBCE:  # its calibration knows how many are drawn
        without = gradients(make(2, 0.0, Given(others, [0.4, 0.6])), answers, weight, bias, targets)
        loss = make(4, 0.0, given)
    else:
        loss = make(4, sampler=given)
    torch.testing.assert_close(gradients(loss, answers, weight, bias, targets), without)


@pytest.mark.parametrize("make", SAMPLED)
def test_nothing_but_hits_is_finite(make: Any) -> None:
    answers, weight, bias, targets = problem(targets=1)
    own = int(targets[0]) - RESERVED
    found = gradients(make(1, sampler=Given([own], [0.5])), answers, weight, bias, targets)
    assert found.isfinite().all()
    if make is not GeneralisedBCE:  # which rewards the target for itself
        assert not found.any()


@pytest.mark.parametrize("make", SAMPLED)
def test_extreme_scores_are_finite(make: Any) -> None:
    answers = torch.tensor([[100.0], [-100.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [0.0], [1.0], [-1.0], [3.0]], requires_grad=True)
    loss = make(3, sampler=Given([0, 1, 2], [1.0, 1.0, 1.0]))
    value = loss(answers, weight, None, torch.tensor([2, 3]), RESERVED)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, (answers, weight)))


@pytest.mark.parametrize("make", SAMPLED)
def test_reserved_ids_are_no_classes(make: Any) -> None:
    answers, weight, bias, targets = problem()
    torch.manual_seed(0)
    loss = make(200)
    value = loss(answers, weight, bias, targets, RESERVED)
    for gradient in torch.autograd.grad(value, (weight, bias)):
        assert not gradient[:RESERVED].any()
        assert (gradient[RESERVED:].reshape(7, -1) != 0).any(1).all()
    with torch.no_grad():
        weight[:RESERVED], bias[:RESERVED] = 1e6, 1e6
    torch.manual_seed(0)
    assert make(200)(answers, weight, bias, targets, RESERVED) == value


@pytest.mark.parametrize("sampler", ["uniform", "in-batch"])
@pytest.mark.parametrize("make", SAMPLED)
def test_evaluation_is_exact_and_without_chance(make: Any, sampler: str) -> None:
    answers, weight, bias, targets = problem()
    loss = make(2, sampler=sampler)
    loss.build(len(weight), RESERVED)
    value = loss.eval()(answers, weight, bias, targets, RESERVED)
    full = F.cross_entropy(F.linear(answers, weight[RESERVED:], bias[RESERVED:]), targets - RESERVED)
    torch.testing.assert_close(value, full)


class Largest(TorchDispatchMode):
    """Remembers the largest result of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("make", SAMPLED)
def test_no_matrix_of_targets_and_items(make: Any) -> None:
    targets, items, width = 300, 1000, 4
    answers, weight = torch.randn(targets, width, requires_grad=True), torch.randn(items, width, requires_grad=True)
    with Largest() as largest:
        make(10)(answers, weight, None, torch.randint(items, (targets,))).backward()
    assert largest.numel == items * width  # the gradient of the table


@pytest.mark.parametrize("make", SAMPLED)
def test_learns(make: Any) -> None:
    torch.manual_seed(0)
    items = 20
    contexts, weight = torch.nn.Embedding(items, 8), torch.nn.Parameter(torch.randn(items + RESERVED, 8) * 0.1)
    bias = torch.nn.Parameter(torch.zeros(items + RESERVED))
    targets = torch.randperm(items) + RESERVED
    options = {"regularization": 0.1} if make is BPRMax else {}
    loss = make(8, **options)
    optimizer = torch.optim.Adam([*contexts.parameters(), weight, bias], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(contexts.weight, weight, bias, targets, RESERVED).backward()
        optimizer.step()
    best = F.linear(contexts.weight, weight, bias)[:, RESERVED:].argmax(1) + RESERVED
    assert torch.equal(best, targets)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SampledSoftmax(0), "n_samples"),
        (lambda: GeneralisedBCE(t=1.5), "t must"),
        (lambda: BPRMax(regularization=-1), "regularization"),
        (lambda: TOP1Max(sampler="popular"), "sampler"),
    ],
)
def test_arguments_that_cannot_be(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
