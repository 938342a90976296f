"""Negatives come as often as their samplers say, and every item can come."""

import math

import pytest
import torch
from torch import Tensor

from modeling.losses.samplers import (
    FrequencySampler,
    InBatchSampler,
    LogUniformSampler,
    Sampler,
    UniformSampler,
    sampler_from,
)

ITEMS, RESERVED = 9, 3
FREQUENCIES = [50.0, 60.0, 70.0, 40, 0, 8, 2, 2, 30, 5, 1, 12]  # by id, so the first three say nothing
NONE = torch.zeros(0, dtype=torch.long)


def frequency(power: float = 1.0) -> FrequencySampler:
    sampler = FrequencySampler(FREQUENCIES, power)
    sampler.build(ITEMS + RESERVED, RESERVED)
    return sampler


SHARES = {
    "uniform": (UniformSampler, [1.0] * ITEMS),
    "log-uniform": (LogUniformSampler, [math.log((i + 2) / (i + 1)) for i in range(ITEMS)]),
    "frequency": (frequency, [40, 1, 8, 2, 2, 30, 5, 1, 12]),  # 0 counts as the smallest other
    "square root": (lambda: frequency(0.5), [n**0.5 for n in (40, 1, 8, 2, 2, 30, 5, 1, 12)]),
}


@pytest.mark.parametrize("name", SHARES)
def test_drawn_as_often_as_stated(name: str) -> None:
    make, shares = SHARES[name]
    sampler: Sampler = make()
    torch.manual_seed(0)
    n = 40_000
    drawn, log_count = sampler.draw(n, ITEMS, NONE)
    expected = n * torch.tensor(shares, dtype=torch.double) / sum(shares)
    found = torch.bincount(drawn, minlength=ITEMS)
    assert len(found) == ITEMS
    # The statistic has mean C - 1 = 8 and standard deviation 4; beyond 36 lie two in 100,000.
    assert float(((found - expected) ** 2 / expected).sum()) < 36
    torch.testing.assert_close(log_count.exp(), expected[drawn], rtol=1e-9, atol=0)


def test_the_rarest_of_many_items_comes() -> None:
    torch.manual_seed(0)
    items = 2000
    drawn, log_count = LogUniformSampler().draw(200_000, items, NONE)
    assert drawn.unique().numel() == items  # each is expected 13 times or more
    counts = torch.zeros(items, dtype=torch.double).scatter(0, drawn, log_count.exp())
    assert float(counts.sum()) == pytest.approx(200_000)


def test_a_catalogue_of_one() -> None:
    for sampler in (UniformSampler(), LogUniformSampler()):
        drawn, log_count = sampler.draw(5, 1, NONE)
        assert drawn.tolist() == [0] * 5
        assert log_count.exp().tolist() == pytest.approx([5] * 5)


def test_frequencies_travel_with_the_weights() -> None:
    sampler, loaded = frequency(), FrequencySampler(**frequency().config())
    loaded.build(ITEMS + RESERVED, RESERVED)
    with pytest.raises(ValueError, match="no frequencies"):
        loaded.draw(5, ITEMS, NONE)
    loaded.load_state_dict(sampler.state_dict())
    torch.manual_seed(0)
    expected = sampler.draw(100, ITEMS, NONE)
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(loaded.draw(100, ITEMS, NONE), expected, strict=True))
    # Whole numbers do not change with the model's precision.
    assert torch.equal(frequency().half().cumulative, sampler.cumulative)


def test_rare_items_stay_possible_beside_very_frequent_ones() -> None:
    sampler = FrequencySampler([1e30, 1.0])
    sampler.build(2, 0)
    assert torch.diff(sampler.cumulative, prepend=torch.zeros(1, dtype=torch.long)).min() == 1


@pytest.mark.parametrize(
    ("frequencies", "says"),
    [([1.0, -1, 2], "0 or more"), ([1.0, float("nan"), 2], "0 or more"), ([1.0, 2], "3 ids"), ([5.0, 0, 0], "all")],
)
def test_frequencies_that_cannot_be(frequencies: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FrequencySampler(frequencies).build(3, 1)


def in_batch(batches: list[Tensor], n: int) -> tuple[Tensor, Tensor]:
    sampler = InBatchSampler()
    sampler.build(6, 1)
    for batch in batches[:-1]:
        sampler.draw(n, 5, batch)
    return sampler.draw(n, 5, batches[-1])


def test_in_batch_negatives_are_the_targets_once() -> None:
    batches = [torch.tensor(batch) for batch in ([0, 1, 1, 1], [1, 2], [1, 4], [4, 1, 2, 1])]
    drawn, log_count = in_batch(batches, 10)
    assert drawn.tolist() == [1, 2, 4]
    assert log_count.exp().tolist() == pytest.approx([4 / 4, 2 / 4, 2 / 4])  # shares of the four batches


def test_in_batch_draws_a_part_where_there_are_many() -> None:
    torch.manual_seed(0)
    seen = set()
    for _ in range(50):
        drawn, log_count = in_batch([torch.tensor([0, 3]), torch.tensor([0, 1, 2, 4])], 3)
        assert drawn.unique().numel() == 3
        share = {0: 1.0, 1: 0.5, 2: 0.5, 4: 0.5}
        assert log_count.exp().tolist() == pytest.approx([share[item] * 3 / 4 for item in drawn.tolist()])
        seen |= set(drawn.tolist())
    assert seen == {0, 1, 2, 4}


def test_samplers_by_name() -> None:
    assert [type(sampler_from(name)) for name in ("uniform", "log-uniform", "frequency", "in-batch")] == [
        UniformSampler,
        LogUniformSampler,
        FrequencySampler,
        InBatchSampler,
    ]
    with pytest.raises(ValueError, match="'zipf'"):
        sampler_from("zipf")
