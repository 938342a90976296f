"""The comparison of two engines' work sees every difference, and no other."""

import copy

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.engines.check import BUT_FOR_TIES, EQUAL, Difference, compare

LISTS = {
    "item_id": pa.int64(),
    "category": pa.int64(),
    "price": pa.float32(),
    "hour_sin": pa.float32(),
    "hour_cos": pa.float32(),
}


def _session(key, items):
    numbers = [float(item) / 10 for item in items]
    return {
        "session_id": key,
        "item_id": items,
        "category": [3 for _ in items],
        **dict.fromkeys(("price", "hour_sin", "hour_cos"), numbers),
    }


@pytest.fixture
def work():
    """Items 300, 100 and 200 with codes 3, 4 and 5; the last two were seen equally often."""
    return {
        "train": [_session(7, [3, 4]), _session(8, [5, 3, 2])],
        "valid": [_session(1, [3, 3])],
        "test": [_session(2, [1, 4])],
        "item_id": {"value": [300, 100, 200], "count": [9, 4, 4]},
        "category": {"value": ["x"], "count": [17]},
    }


def _write(work, folder):
    schema = pa.schema({"session_id": pa.int64()} | {name: pa.list_(kind) for name, kind in LISTS.items()})
    for window in ("train", "valid", "test"):
        (folder / window).mkdir(parents=True)
        for number, session in enumerate(work[window]):
            pq.write_table(pa.Table.from_pylist([session], schema), folder / window / f"part-{number}.parquet")
    return {name: pa.table(work[name]) for name in ("item_id", "category")}


def _verdict(work, other, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    return compare(one, two, _write(work, one), _write(other, two))


def test_order_of_sessions_does_not_count(work, tmp_path):
    other = copy.deepcopy(work)
    other["train"].reverse()
    assert _verdict(work, other, tmp_path) == EQUAL


def test_equally_frequent_values_may_change_places(work, tmp_path):
    other = copy.deepcopy(work)
    other["item_id"]["value"] = [300, 200, 100]
    for window in ("train", "valid", "test"):
        for session in other[window]:
            session["item_id"] = [{4: 5, 5: 4}.get(code, code) for code in session["item_id"]]
    assert _verdict(work, other, tmp_path) == BUT_FOR_TIES


def _change_codes_only(work):
    work["item_id"]["value"] = [300, 200, 100]


def _change_event(work):
    work["train"][1]["item_id"][2] = 1


def _change_order(work):
    work["train"][0]["item_id"].reverse()


def _change_price(work):
    work["test"][0]["price"] = [0.1, 0.401]


def _lose_price(work):
    work["test"][0]["price"] = [0.1, float("nan")]


def _change_length(work):
    work["valid"] = [_session(1, [3, 3, 3])]


def _move_session(work):
    work["valid"] += work["train"][:1]
    del work["train"][0]


def _change_key(work):
    work["test"][0]["session_id"] = 3


def _change_count(work):
    work["item_id"]["count"] = [10, 4, 4]


def _change_frequency_order(work):
    work["item_id"] = {"value": [100, 300, 200], "count": [4, 9, 4]}


def _know_more(work):
    work["category"] = {"value": ["x", "y"], "count": [17, 1]}


def _code_too_large(work):
    work["test"][0]["item_id"][1] = 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_change_codes_only, "of item_id differ"),
        (_change_event, "train: 1 of 5 values of item_id"),
        (_change_order, "train: 2 of 5 values of item_id"),
        (_change_price, "test: 1 of 2 values of price"),
        (_lose_price, "test: 1 of 2 values of price"),
        (_change_length, "valid: sessions of other lengths"),
        (_move_session, "train: other sessions"),
        (_change_key, "test: other sessions"),
        (_change_count, "counted differently"),
        (_change_frequency_order, "do not go by falling count"),
        (_know_more, "2 values of category are known instead of 1"),
        (_code_too_large, "stand for no value"),
    ],
)
def test_every_difference_is_seen(change, said, work, tmp_path):
    other = copy.deepcopy(work)
    change(other)
    with pytest.raises(Difference, match=said):
        _verdict(work, other, tmp_path)
