"""How far new days are from the training data: indices worked out by hand."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocessing.append import append
from preprocessing.drift import equal_shares, psi, verdict
from preprocessing.preprocess import preprocess

from .conftest import ROWS, table

TRAINING = [row for row in ROWS if row[0] in "abc"]


def on_the_ninth(rows):
    """The same events, a week and more later; d for days moves by whole days."""
    return [(visit, sku, f"2024-01-{int(at[8:10]) + 8:02d}{at[10:]}", *rest) for visit, sku, at, *rest in rows]


@pytest.fixture
def drift(make, tmp_path):
    """Fit the tiny shop and say how events are different: ``drift(rows, **settings)`` -> (the last day, the call)."""

    def look(rows, raw=None, **settings):
        dataset = make(raw, **settings)
        preprocess(dataset, tmp_path / "features", refit=True)
        pq.write_table(table(rows), tmp_path / "new.parquet")
        result = append(dataset, tmp_path / "features", [tmp_path / "new.parquet"])
        return list(result["days"].values())[-1], result

    return look


def test_index_by_hand():
    # Shares 1/2 and 1/2 become 1/4 and 3/4: -1/4 ln(1/2) + 1/4 ln(3/2) = 1/4 ln 3.
    assert psi(np.array([50, 50]), np.array([10, 30])) == pytest.approx(math.log(3) / 4)
    assert psi(np.array([7, 3, 0]), np.array([70, 30, 0])) == pytest.approx(0, abs=1e-15)
    # An empty bin counts as one of 10,000: (0.1 - 0.0001) ln 1000 for it, (0.9 - 1) ln 0.9 for the rest.
    expected = (0.1 - 1e-4) * math.log(1000) + (0.9 - 1) * math.log(0.9)
    assert psi(np.array([8, 0]), np.array([9, 1])) == pytest.approx(expected)
    assert psi(np.array([8, 0]), np.array([0, 0])) is None


def test_index_does_not_ask_which_came_first():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.integers(0, 50, 8), rng.integers(0, 50, 8)
        assert psi(one, other) == pytest.approx(psi(other, one))
        assert psi(one, other) >= 0


@pytest.mark.parametrize(
    ("index", "expected"),
    [(None, None), (0.0, "stable"), (0.0999, "stable"), (0.1, "moved"), (0.2499, "moved"), (0.25, "drifted")],
)
def test_verdicts(index, expected):
    assert verdict(index) == expected


def test_bins_have_about_equal_shares():
    assert equal_shares(np.array([4, 2, 1])).tolist() == [0, 1, 2]
    assert equal_shares(np.array([5, 5, 5, 5]), most=2).tolist() == [0, 0, 1, 1]
    # Half of all events is one value; nothing is behind the last.
    assert equal_shares(np.array([6, 2, 2, 2, 0, 0]), most=4).tolist() == [0, 1, 1, 2, 2, 2]
    assert equal_shares(np.array([], dtype=np.int64)).tolist() == []
    groups = equal_shares(np.sort(np.random.default_rng(0).zipf(1.5, 5_000))[::-1])
    assert (np.diff(groups) >= 0).all()
    assert groups[-1] < 20
    assert equal_shares(np.ones(100_000, dtype=np.int64)).tolist() == np.repeat(np.arange(20), 5_000).tolist()


def test_the_training_data_itself_has_not_moved(drift, make):
    # All of one day, so that one day holds them all.
    rows = [(visit, sku, f"2024-01-09T{at[11:]}", *rest) for visit, sku, at, *rest in TRAINING]
    day, result = drift(rows)
    for name in ("item_id", "brand", "price"):
        facts = day["drift"][name]
        assert facts["psi"] == pytest.approx(0, abs=1e-12), name
        assert facts["verdict"] == "stable"
    assert day["drift"]["price"]["mean_shift"] == pytest.approx(0, abs=1e-6)
    assert day["drift"]["price"]["deviation_ratio"] == pytest.approx(1)
    # Two of seven brands and one of seven prices are missing, then as now.
    assert day["drift"]["brand"]["null"] == day["drift"]["brand"]["null_in_training"] == 2 / 7
    assert day["drift"]["price"]["null"] == day["drift"]["price"]["null_in_training"] == 1 / 7
    assert day["session_length"] == {"mean": 7 / 3, "mean_in_training": 7 / 3}
    assert result["warnings"] == []


def test_a_small_change_by_hand(drift):
    """Items: 4 tea, 2 mug, a cup; now 2 tea, a cup and one that is new. Brands: 3 x, 2 y, 2 missing; now 3 x, a z."""
    rows = [
        ("f", "tea", "2024-01-05T10:00", "x", 1.0),
        ("f", "cup", "2024-01-05T10:01", "x", None),
        ("g", "tea", "2024-01-05T10:02", "x", 1.0),
        ("g", "new", "2024-01-05T10:03", "z", 3.0),
    ]
    day, _ = drift(rows)
    floor = 1e-4

    def part(new, old):
        return (new - old) * math.log(new / old)

    item = part(2 / 4, 4 / 7) + part(floor, 2 / 7) + part(1 / 4, 1 / 7) + part(1 / 4, floor)
    assert day["drift"]["item_id"]["psi"] == pytest.approx(item)
    assert day["drift"]["item_id"]["unknown"] == 1 / 4
    assert day["drift"]["item_id"]["verdict"] == "drifted"
    brand = part(3 / 4, 3 / 7) + part(floor, 2 / 7) + part(floor, 2 / 7) + part(1 / 4, floor)
    facts = day["drift"]["brand"]
    assert facts["psi"] == pytest.approx(brand)
    assert (facts["null"], facts["null_in_training"]) == (0, 2 / 7)
    assert (facts["unknown"], facts["unknown_in_training"]) == (1 / 4, 0)
    # Prices 1, 1, 3 and a missing one, which counts as the mean 7/3; in training 1, 1, 1, 3, 3, 5 and a missing one.
    # The mean and 3, at 0 and 0.41 deviations, share a bin of the histogram, which is half a deviation wide.
    facts = day["drift"]["price"]
    assert facts["psi"] == pytest.approx(part(2 / 4, 3 / 7) + part(2 / 4, 3 / 7) + part(floor, 1 / 7))
    deviation = math.sqrt((3 * (4 / 3) ** 2 + 2 * (2 / 3) ** 2 + (8 / 3) ** 2) / 7)
    assert facts["mean_shift"] == pytest.approx((11 / 6 - 7 / 3) / deviation, abs=1e-6)
    now = math.sqrt((2 * (5 / 6) ** 2 + (7 / 6) ** 2 + (1 / 2) ** 2) / 4)
    assert facts["deviation_ratio"] == pytest.approx(now / deviation, abs=1e-6)
    assert (facts["null"], facts["null_in_training"]) == (1 / 4, 1 / 7)


def test_rare_values_of_the_training_window_are_no_surprise(drift):
    """With min_count 3, brand y is rare: 2 of 7 events in training have the code of unknown values, or a bucket."""
    rows = [(visit, sku, f"2024-01-09T{at[11:]}", *rest) for visit, sku, at, *rest in TRAINING]
    for setting in ({"column": "brand", "min_count": 3}, {"column": "brand", "min_count": 3, "buckets": 4}):
        day, _ = drift(rows, features={"item": {"categorical": [setting]}}, sessions={"min_item_count": 2})
        facts = day["drift"]["brand"]
        assert facts["psi"] == pytest.approx(0, abs=1e-12)
        assert facts["unknown"] == facts["unknown_in_training"] == 2 / 7
        assert day["drift"]["item_id"]["psi"] == pytest.approx(0, abs=1e-12)
        assert day["items"] == {"unknown": 1 / 7, "unknown_in_training": 1 / 7}


def test_unknown_items_count_even_where_they_are_left_out(drift):
    rows = [("f", sku, f"2024-01-05T10:0{minute}", "x", 1.0) for minute, sku in enumerate(["tea", "new", "mug", "cup"])]
    raw = [("tea" if value == "new" else value for value in row) for row in ROWS]
    day, result = drift(rows, table([tuple(row) for row in raw]), sessions={"unknown_items": "drop"})
    assert (day["items"]["unknown"], day["events"]) == (1 / 4, 3)
    assert sum(result["events_dropped"].values()) == 1
    assert "25% of the events show items that training did not know" in result["warnings"][0]


def test_hashed_values_have_no_index_and_a_day_has_one_weekday(drift):
    features = {"item": {"categorical": [{"column": "brand", "hash": 5}]}, "time": ["weekday", "hour"]}
    day, _ = drift([row for row in on_the_ninth(TRAINING) if row[0] == "c"], features=features)
    facts = day["drift"]["brand"]
    assert (facts["psi"], facts["verdict"]) == (None, None)
    assert (facts["null"], facts["null_in_training"], facts["unknown"]) == (1, 2 / 7, 0)
    assert day["drift"]["weekday_sin"]["verdict"] is None
    assert day["drift"]["hour_sin"]["verdict"] is not None


def test_only_what_chance_does_not_explain_is_warned_of(drift):
    """That mugs are five sixths instead of a half says nothing in 3 sessions, and much in 300."""
    shown = [("mug", "mug"), ("mug", "tea"), ("mug", "mug")]
    few = [(f"s{visit}", sku, "2024-01-05T10:00", "x", 1.0) for visit, pair in enumerate(shown) for sku in pair]
    many = [(f"{row[0]}-{number}", *row[1:]) for number in range(100) for row in few]
    sold = [(f"t{number}", sku, "2024-01-01T11:00", "x", 1.0) for number in range(300) for sku in ("mug", "tea")]
    sold += ROWS
    day, result = drift(few, raw=table(sold))
    assert day["drift"]["item_id"]["verdict"] == "drifted"
    assert result["warnings"] == []
    # Age is no reason for a new fit: after that, too, the next day's items are older than ever.
    day, result = drift(many, raw=table(sold), features={"time": ["age"]})
    assert day["drift"]["item_id"]["verdict"] == day["drift"]["age"]["verdict"] == "drifted"
    (warning,) = result["warnings"]
    assert warning.endswith("2024-01-05: item_id drifted: refit with 'nextitem preprocess --refit'")
