"""The latest sessions are for testing, the ones before for validation, wherever the sessions are kept."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from common.errors import UserError
from preprocessing.shuffle import Partition
from preprocessing.windows import WINDOWS, iso, nth, split

from .helpers import run, sessions


def kept(starts):
    """A partition, in memory, of sessions that start then and have one event each."""
    starts = np.sort(np.asarray(starts, dtype=np.int64))
    return Partition(Path(), 0, len(starts), len(starts), held=(pa.table({}), starts, np.arange(len(starts) + 1)))


def random_starts(rng):
    """Sessions over partitions of very different sizes, from all-equal to all-different starts."""
    total = int(rng.integers(1, 200))
    spread = int(rng.choice([1, 3, 10, 1000, 2**62]))
    starts = rng.integers(-spread, spread, total)
    cuts = np.sort(rng.integers(0, total + 1, rng.integers(0, 8)))
    return starts, np.split(starts, cuts)


@pytest.mark.parametrize("seed", range(60))
def test_nth_is_what_sorting_gives(seed):
    starts, parts = random_starts(np.random.default_rng(seed))
    arrays = [np.sort(part) for part in parts if len(part)]
    ordered = np.sort(starts)
    for n in {0, len(starts) // 2, len(starts) - 1, *np.random.default_rng(seed).integers(0, len(starts), 8).tolist()}:
        assert nth(arrays, n) == ordered[n]


def test_nth_at_the_ends_of_what_64_bits_hold():
    low, high = -(2**63), 2**63 - 1
    arrays = [np.array([low, low, high]), np.array([high])]
    assert [nth(arrays, n) for n in range(4)] == [low, low, high, high]


def expected(starts, rule):
    """The rule in words: the last ``round(n * share)`` sessions, ties at a boundary to the later window."""
    ordered, n = np.sort(starts), len(starts)
    test_count, valid_count = (max(1, round(n * share)) for share in (rule["test"], rule["valid"]))
    test = ordered[max(0, n - test_count)]
    valid = ordered[max(0, n - test_count - valid_count)]
    counts = [
        int((starts < valid).sum()),
        int(((starts >= valid) & (starts < test)).sum()),
        int((starts >= test).sum()),
    ]
    return (int(valid), int(test)), counts


@pytest.mark.parametrize("seed", range(60))
def test_shares_of_the_sessions(make, seed):
    rng = np.random.default_rng(1000 + seed)
    starts, parts = random_starts(rng)
    rule = {"valid": float(rng.choice([0.01, 0.1, 0.3])), "test": float(rng.choice([0.01, 0.1, 0.45]))}
    partitions = [kept(part) for part in parts]
    (valid, test), counts = expected(starts, rule)
    if not all(counts):
        with pytest.raises(UserError, match=r"window .* holds no session; sessions start from"):
            split(partitions, make(split=rule))
        return
    windows = split(partitions, make(split=rule))
    assert windows.begins == {"train": starts.min(), "valid": valid, "test": test}
    ranges = {window: [windows.range(partition, window) for partition in partitions] for window in WINDOWS}
    assert [sum(end - begin for begin, end in ranges[window]) for window in WINDOWS] == counts
    for place, partition in enumerate(partitions):
        # Every session is in exactly one window.
        assert ranges["train"][place][0] == 0
        assert ranges["train"][place][1] == ranges["valid"][place][0]
        assert ranges["valid"][place][1] == ranges["test"][place][0]
        assert ranges["test"][place][1] == partition.sessions


def test_ties_at_a_boundary_go_to_the_later_window(make):
    windows = split([kept([1, 2, 3, 8, 8]), kept([4, 5, 8, 8, 9])], make(split={"valid": 0.4, "test": 0.2}))
    # Ten sessions: the last two would begin with one of the four that start at 8.
    assert windows.begins == {"train": 1, "valid": 5, "test": 8}


def test_points_in_time_that_lie_outside(make):
    day = 86_400 * 10**9
    starts = [kept(np.arange(19_000, 19_010) * day)]  # 2022-01-08 to 2022-01-17
    for window, rule in {
        "train": {"valid_from": "2021-01-01", "test_from": "2022-01-15"},
        "valid": {"valid_from": "2022-01-15T01:00", "test_from": "2022-01-15T02:00"},
        "test": {"valid_from": "2022-01-15", "test_from": "2023-01-01"},
    }.items():
        with pytest.raises(UserError, match=f"the {window} window .* holds no session"):
            split(starts, make(split=rule))


def test_points_in_time_with_an_offset_and_without(make):
    day = 86_400 * 10**9
    starts = [kept(np.arange(19_000, 19_010) * day)]
    for rule in (
        {"valid_from": "2022-01-15T02:00+02:00", "test_from": "2022-01-15T21:00-03:00"},
        {"valid_from": "2022-01-15", "test_from": "2022-01-16"},
    ):
        windows = split(starts, make(split=rule))
        begins = [iso(windows.begins[window]) for window in ("valid", "test")]
        assert begins == ["2022-01-15T00:00:00", "2022-01-16T00:00:00"]


def test_no_session_at_all(make):
    with pytest.raises(UserError, match="no session has 2 events"):
        split([kept([])], make())


def test_windows_do_not_depend_on_partitions(make, tmp_path):
    found = []
    for size in (10**6, 1):
        out = tmp_path / str(size)
        report = run(make(split={"valid": 0.2, "test": 0.2}), out, partition_events=size)
        found.append((report["windows"], [sorted(sessions(out, window, "item_id")) for window in WINDOWS]))
    assert found[0] == found[1]
    assert found[0][1] == [["a", "b", "c"], ["d"], ["e"]]
