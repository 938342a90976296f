"""Intervals over sessions: exact where there is no chance, and as a plain loop over the draws says."""

import pytest
import torch

from modeling.evaluation import across_seeds, bootstrap, by_session, intervals, paired, resampled

NAN = float("nan")


def test_the_interval_of_a_constant_is_the_constant() -> None:
    found = intervals({"a": torch.full((37,), 0.1, dtype=torch.double)}, torch.arange(1, 38))["a"]
    assert found == {"mean": 0.1, "low": 0.1, "high": 0.1}


@pytest.mark.parametrize("weighted", [False, True])
def test_draws_are_those_of_a_plain_loop(weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(9, 2, generator=generator, dtype=torch.double)
    weights = torch.randint(1, 5, (9,), generator=generator) if weighted else torch.ones(9, dtype=torch.long)
    found = resampled(values, weights if weighted else None, resamples=50, seed=3)
    drawn = torch.randint(9, (50, 9), generator=torch.Generator().manual_seed(3))
    for row, chosen in zip(found, drawn, strict=True):
        # Every event of a drawn session counts.
        events = [values[s] for s in chosen.tolist() for _ in range(int(weights[s]))]
        torch.testing.assert_close(row, torch.stack(events).mean(0))


def test_memory_is_bounded_without_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(100, 3, generator=torch.Generator().manual_seed(1))
    whole = resampled(values, resamples=64)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 700)  # seven draws at once
    torch.testing.assert_close(resampled(values, resamples=64), whole)


def test_the_width_is_that_of_the_normal_distribution() -> None:
    hits = (torch.arange(2000) % 4 == 0).double()
    found = intervals({"hits": hits}, resamples=4000)["hits"]
    half = 1.96 * (0.25 * 0.75 / 2000) ** 0.5
    assert found["mean"] == 0.25
    assert (found["low"], found["high"]) == pytest.approx((0.25 - half, 0.25 + half), abs=0.1 * half)
    narrow = intervals({"hits": hits}, resamples=4000, level=0.5)["hits"]
    assert found["low"] < narrow["low"] < 0.25 < narrow["high"] < found["high"]


def test_the_same_seed_gives_the_same_interval() -> None:
    values = {"a": torch.rand(50, generator=torch.Generator().manual_seed(1))}
    assert intervals(values, seed=4) == intervals(values, seed=4)
    assert intervals(values, seed=4) != intervals(values, seed=5)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    generator = torch.Generator().manual_seed(1)
    other = torch.rand(400, generator=generator, dtype=torch.double)
    one = other + 0.01 + 0.001 * torch.rand(400, generator=generator, dtype=torch.double)
    difference, apart = paired(one, other), intervals({"one": one, "other": other})
    assert difference["mean"] == pytest.approx(apart["one"]["mean"] - apart["other"]["mean"])
    assert 0.01 < difference["low"] < difference["mean"] < difference["high"] < 0.011
    assert apart["one"]["low"] < apart["other"]["high"]
    assert paired(one, one) == {"mean": 0, "low": 0, "high": 0}


def test_sessions_that_were_not_measured_are_left_out() -> None:
    one, other = torch.tensor([1.0, NAN, 3.0, 5.0]), torch.tensor([0.0, 7.0, NAN, 4.0])
    assert paired(one, other) == {"mean": 1, "low": 1, "high": 1}
    assert intervals({"a": one, "b": other}, torch.tensor([3, 9, 9, 1]))["a"]["mean"] == 2  # (3 * 1 + 1 * 5) / 4
    with pytest.raises(ValueError, match="no session"):
        paired(torch.tensor([NAN]), torch.tensor([1.0]))
    with pytest.raises(ValueError, match="4 and 3"):
        paired(one, other[:3])


def test_several_seeds() -> None:
    runs = [torch.tensor([1.0, 0.0, NAN]), torch.tensor([0.0, 0.0, NAN])]
    found = across_seeds(runs)
    assert (found["mean"], found["runs"]) == (0.25, 2)
    assert found["spread"] == pytest.approx(0.5 / 2**0.5)  # of 0.5 and 0
    assert (found["low"], found["high"]) == (0, 0.5)
    assert across_seeds(runs[:1])["spread"] == 0


def test_targets_become_sessions() -> None:
    means, weights = by_session(torch.tensor([1.0, 0.0, 0.5, 0.25]), torch.tensor([7, 7, 2, 7]))
    assert means.tolist() == pytest.approx([0.5, 1.25 / 3])
    assert weights.tolist() == [1, 3]
