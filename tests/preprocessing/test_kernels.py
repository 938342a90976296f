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
