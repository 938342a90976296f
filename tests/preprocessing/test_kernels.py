"""The arithmetic of sessions, on data whose answer is obvious."""

import numpy as np
import pytest

from preprocessing import kernels

HOUR = 3_600 * 10**9


def group(key, item, time, **kwargs):
    arrays = [np.asarray(values, dtype=np.int64) for values in (key, item, time)]
    grouped = kernels.group(*arrays, **kwargs)
    parts = [grouped.rows[a:b].tolist() for a, b in zip(grouped.offsets, grouped.offsets[1:], strict=False)]
    return parts, grouped.keys.tolist()


def test_sessions_are_in_time_order_and_ties_keep_input_order():
    assert group([0, 1, 0, 1, 0], [1, 2, 3, 4, 5], [5, 9, 3, 9, 5]) == ([[2, 0, 4], [1, 3]], [0, 1])


def test_order_breaks_ties_of_time():
    assert group([0, 0, 0], [1, 2, 3], [7, 7, 7], order=np.array([3, 1, 2])) == ([[1, 2, 0]], [0])


def test_the_most_recent_events_are_kept():
    assert group([0, 0, 0, 1], [1, 2, 3, 4], [1, 2, 3, 1], max_length=2) == ([[1, 2], [3]], [0, 1])


def test_gap_begins_another_session_of_the_same_user():
    time = [0, 1 * HOUR, 4 * HOUR, 0]
    assert group([0, 0, 0, 1], [1, 2, 3, 4], time, gap=2 * HOUR) == ([[0, 1], [2], [3]], [0, 0, 1])
    assert group([0, 0, 0, 1], [1, 2, 3, 4], time, gap=2 * HOUR, last_only=True) == ([[2], [3]], [0, 1])
    # Exactly the gap is still the same session.
    assert group([0, 0], [1, 2], [0, 2 * HOUR], gap=2 * HOUR)[0] == [[0, 1]]


def test_repeats_count_once_within_a_session_only():
    assert group([0, 0, 0, 0, 1], [5, 5, 6, 5, 5], [1, 2, 3, 4, 5], collapse_repeats=True)[0] == [[0, 2, 3], [4]]


def test_gap_is_measured_before_repeats_are_collapsed():
    time = [0, 1 * HOUR, 2 * HOUR]
    assert group([0, 0, 0], [5, 5, 6], time, gap=int(1.5 * HOUR), collapse_repeats=True)[0] == [[0, 2]]


@pytest.mark.parametrize(
    ("period", "moment", "sin", "cos"),
    [
        ("hour", "1970-01-01T00:00", 0, 1),
        ("hour", "2024-02-29T06:00", 1, 0),
        ("hour", "1969-12-31T18:00", -1, 0),
        ("weekday", "2024-01-01T00:00", 0, 1),  # a Monday
        ("weekday", "2024-01-04T12:00", 0, -1),  # half a week on
    ],
)
def test_time_on_a_circle(period, moment, sin, cos):
    time = np.array([moment], dtype="datetime64[ns]").astype(np.int64)
    assert kernels.cyclic(time, period, "sin")[0] == pytest.approx(sin, abs=1e-6)
    assert kernels.cyclic(time, period, "cos")[0] == pytest.approx(cos, abs=1e-6)


def test_age_counts_days_since_first_seen_and_unknown_items_have_none():
    day = 24 * HOUR
    age = kernels.age_days(
        np.array([day, 3 * day // 2, 0, 9 * day]), np.array([3, 3, 3, 2]), np.array([7, 7, 7, day], dtype=np.int64)
    )
    assert age.tolist() == [0.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("seed", range(40))
def test_codes_are_sorted_stably(seed):
    rng = np.random.default_rng(seed)
    # The largest codes leave no bits for the position, so that both ways are taken.
    codes = rng.integers(0, int(rng.choice([1, 2, 50, 2**20, 2**62])), int(rng.integers(0, 300)))
    if seed % 3 == 0:
        codes = np.sort(codes)
    order = kernels.sort_codes(codes)
    assert order.dtype == np.int64
    assert order.tolist() == np.argsort(codes, kind="stable").tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5])
def test_few_codes_next_to_the_largest_number(n):
    codes = (2**63 - 1 - np.arange(n)).astype(np.int64)
    assert kernels.sort_codes(codes).tolist() == list(range(n))[::-1]


@pytest.mark.parametrize("seed", range(40))
def test_key_then_time_then_order_then_position(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 200))
    key, time = rng.integers(0, 8, n), rng.integers(-5, 5, n)
    time = np.sort(time) if seed % 4 == 0 else time
    order = None if seed % 2 else rng.choice([0.5, 1.0, -2.0], n)
    rows = kernels.stable_order(key, time, order)
    ranked = sorted(range(n), key=lambda i: (key[i], time[i], 0 if order is None else order[i], i))
    assert rows.tolist() == ranked


def test_short_sessions_are_left_out_before_the_cut():
    key, item, time = [0, 0, 0, 1, 2, 2], [5, 5, 6, 7, 8, 8], [1, 2, 3, 1, 1, 2]
    assert group(key, item, time, min_length=2) == ([[0, 1, 2], [4, 5]], [0, 2])
    # A session of three counts as three even where two are kept.
    assert group(key, item, time, min_length=3, max_length=2) == ([[1, 2]], [0])
    # Repeats count once, as they do in the session that comes out.
    assert group(key, item, time, min_length=2, collapse_repeats=True) == ([[0, 2]], [0])
    assert group(key, item, time, min_length=9) == ([], [])


def test_short_sessions_between_gaps_are_left_out():
    time = [0, 1 * HOUR, 9 * HOUR, 20 * HOUR, 21 * HOUR]
    assert group([0] * 5, [1, 2, 3, 4, 5], time, gap=2 * HOUR, min_length=2) == ([[0, 1], [3, 4]], [0, 0])
    # The last session is chosen first, then measured.
    assert group([0] * 3, [1, 2, 3], time[:3], gap=2 * HOUR, min_length=2, last_only=True) == ([], [])


def test_no_events_are_no_sessions():
    for how in ({}, {"gap": HOUR}, {"collapse_repeats": True}, {"last_only": True, "gap": 1}, {"min_length": 2}):
        assert group([], [], [], max_length=3, **how) == ([], [])
