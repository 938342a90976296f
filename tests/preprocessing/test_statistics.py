"""The counts behind the report, against answers worked out by hand."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.statistics import EventStatistics, FeatureStatistics, catalogue

DAY = 86_400 * 10**9


def at(*moments):
    return np.array([np.datetime64(moment, "ns") for moment in moments]).astype(np.int64)


def counted(time, lengths=()):
    statistics = EventStatistics()
    statistics.add(np.asarray(time, dtype=np.int64), np.asarray(lengths, dtype=np.int64))
    return statistics


def test_events_are_counted_by_day_weekday_and_hour_in_utc():
    # 2024-01-01 was a Monday, 1969-12-31 a Wednesday.
    found = counted(at("2024-01-03T00:00", "2024-01-01T10:59", "2024-01-01T10:00", "2024-01-01T23:59:59.999")).to_json()
    assert found["days"] == {"unit": "day", "first_day": "2024-01-01", "counts": [3, 0, 1], "stray": []}
    week = np.array(found["week"])
    assert week.sum() == 4
    assert (week[0, 10], week[0, 23], week[2, 0]) == (2, 1, 1)
    before_1970 = counted(at("1969-12-31T23:00")).to_json()
    assert before_1970["days"]["first_day"] == "1969-12-31"
    assert before_1970["week"][2][23] == 1


def test_sessions_are_counted_by_length():
    found = counted([], [1, 3, 3, 100, 101, 5_000]).to_json()["lengths"]
    assert len(found["counts"]) == 101
    assert {length: count for length, count in enumerate(found["counts"]) if count} == {1: 1, 3: 2, 100: 1}
    assert (found["more"], found["longest"]) == (2, 5_000)
    assert counted([], [2]).to_json()["lengths"]["counts"] == [0, 0, 1]


def test_far_ends_with_few_events_are_told_apart():
    time = [*at(*["2024-03-01"] * 300, "2024-03-02"), *at("1970-01-01", "1970-01-03", "2200-01-01")]
    days = counted(time).to_json()["days"]
    assert (days["first_day"], days["counts"]) == ("2024-03-01", [300, 1])
    assert days["stray"] == [
        {"first_day": "1970-01-01", "last_day": "1970-01-03", "events": 2},
        {"first_day": "2200-01-01", "last_day": "2200-01-01", "events": 1},
    ]
    # Two halves years apart are both the data.
    halves = counted(at("2020-01-01", "2023-01-01")).to_json()["days"]
    assert (halves["first_day"], sum(halves["counts"]), len(halves["counts"]), halves["stray"]) == (
        "2020-01-01",
        2,
        1_097,
        [],
    )


def test_many_years_are_told_by_month():
    days = counted(at("1990-02-27", "1990-02-28", "1990-04-01", "2020-04-30")).to_json()["days"]
    assert (days["unit"], days["first_day"]) == ("month", "1990-02-01")
    assert {month: count for month, count in enumerate(days["counts"]) if count} == {0: 2, 2: 1, 30 * 12 + 2: 1}


def test_the_whole_range_of_times_is_counted():
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    days = counted([low, high]).to_json()["days"]
    assert (days["first_day"], sum(days["counts"]), len(days["counts"])) == ("1677-09-01", 2, (2262 - 1677) * 12 - 4)


def test_partitions_add_up_in_any_order_and_through_pickles():
    generator = np.random.default_rng(0)
    time, lengths = generator.integers(0, 900 * DAY, 5_000), generator.integers(1, 200, 500)
    parts = [pickle.loads(pickle.dumps(counted(time[k::3], lengths[k::3]))) for k in (2, 0, 1)]
    merged = EventStatistics()
    for part in parts:
        merged.merge(part)
    assert merged.to_json() == counted(time, lengths).to_json()


def sessions(**columns):
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def test_nulls_and_unknown_values_are_counted_by_window_and_feature():
    statistics = FeatureStatistics()
    statistics.add("train", sessions(item=[[3, 4], [1]], shop=[2, 3]), ["item", "shop"], [])
    statistics.add("train", sessions(item=[[2], [1, 2]], shop=[3, 3]), ["item", "shop"], [])
    statistics.add("test", sessions(item=[[2], []], shop=[1, 1]), ["item"], [])
    assert statistics.to_json()["categorical"] == {
        "train": {"item": {"events": 6, "nulls": 2, "unknown": 2}, "shop": {"events": 4, "nulls": 0, "unknown": 1}},
        "test": {"item": {"events": 1, "nulls": 0, "unknown": 1}},
    }


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.list_(pa.int64(), 1))])
def test_only_the_rows_of_a_slice_are_counted(kind):
    nested = pa.types.is_fixed_size_list(kind.value_type)
    rows = [[[1]], [[1], [2]], [[1]]] if nested else [[1], [1, 2], [1]]
    table = pa.table({"item": pa.array(rows, kind)}).slice(1, 1)
    statistics = FeatureStatistics()
    statistics.add("train", table, ["item"], [])
    assert statistics.to_json()["categorical"]["train"]["item"] == {"events": 2, "nulls": 1, "unknown": 1}


def test_continuous_features_have_moments_and_a_histogram():
    values = [-10.5, -10.0, 0.0, 0.25, 9.75, 10.0, None, float("nan"), float("inf")]
    statistics = FeatureStatistics()
    statistics.add("valid", pa.table({"price": pa.array([values], pa.list_(pa.float32()))}), [], ["price"])
    found = statistics.to_json()["continuous"]["valid"]["price"]
    histogram = found.pop("histogram")
    assert {place: count for place, count in enumerate(histogram) if count} == {0: 1, 20: 2, 39: 1}
    assert len(histogram) == statistics.to_json()["bins"]["count"] == 40
    # The sum is -0.5; the sum of squares 405.375.
    assert found.pop("mean") == pytest.approx(-0.5 / 6)
    assert found.pop("std") == pytest.approx(np.sqrt(405.375 / 6 - (0.5 / 6) ** 2))
    assert found == {"n": 6, "missing": 3, "below": 1, "above": 1}


def test_moments_of_partitions_are_those_of_the_whole():
    values = np.random.default_rng(1).normal(1_000_000, 0.5, 3_000)
    merged = FeatureStatistics()
    for part in np.split(values, [1, 900]):
        one = FeatureStatistics()
        one.add("train", sessions(price=[part.tolist()]), [], ["price"])
        merged.merge(pickle.loads(pickle.dumps(one)))
    found = merged.to_json()["continuous"]["train"]["price"]
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert found["std"] == pytest.approx(values.std(), rel=1e-9)
    assert (found["n"], found["above"]) == (3_000, 3_000)


def test_everything_is_json():
    statistics = FeatureStatistics()
    statistics.add("train", sessions(a=[[1e308, -1e308]], b=[[None]], c=[[3]]), ["c"], ["a", "b"])
    found = json.loads(json.dumps(statistics.to_json(), allow_nan=False))["continuous"]["train"]
    assert (found["a"]["std"], found["b"]["mean"], found["b"]["missing"]) == (None, None, 1)
    json.dumps(counted([], []).to_json(), allow_nan=False)
    json.dumps(counted([0], [1]).to_json(), allow_nan=False)


def test_catalogue_ranks_items_and_measures_the_tail():
    found = catalogue(pa.array(["a", "b", "c", "d"]), np.array([2, 12, 2, 4]), top=3)
    assert found["top"] == [{"item": "b", "events": 12}, {"item": "d", "events": 4}, {"item": "a", "events": 2}]
    assert found["tail"] == {"rank": [1, 2, 3, 4], "events": [12, 4, 2, 2], "share": [0.6, 0.8, 0.9, 1.0]}
    assert (found["items"], found["events"]) == (4, 20)
    assert found["reach"] == {"50": 1, "80": 2, "90": 3}
    assert found["rare_share"] == 0.75


def test_a_long_tail_is_told_in_about_sixty_ranks():
    counts = 10_000 // np.arange(1, 100_001) + 1
    found = catalogue(pa.array(np.arange(100_000)), np.random.default_rng(2).permutation(counts))
    ranks, share = found["tail"]["rank"], found["tail"]["share"]
    assert 45 <= len(ranks) <= 60
    assert (ranks[0], ranks[-1], share[-1]) == (1, 100_000, 1.0)
    assert found["tail"]["events"] == [int(counts[rank - 1]) for rank in ranks]
    assert isinstance(found["top"][0]["item"], int)
    json.dumps(found, allow_nan=False)


def test_an_empty_catalogue_has_no_items():
    found = catalogue(pa.array([], pa.string()), np.array([], dtype=np.int64))
    assert (found["items"], found["top"], found["tail"]["rank"], found["reach"]["50"]) == (0, [], [], 0)
    json.dumps(found, allow_nan=False)
