"""Events become groups and sessions: flat values and offsets, in the order of time."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from merlin.schema import ColumnSchema, Schema, Tags

from preprocessing import frames
from preprocessing.engine import ColumnSelector, MerlinDataset, nvtabular, ops
from preprocessing.kernels import UNKNOWN
from preprocessing.operators import ITEM, ORDER, SESSION, TIME, Group, GroupSessions
from preprocessing.settings import ITEM_ID, SESSION_ID

HOUR = 3_600 * 10**9
TEXT = pd.ArrowDtype(pa.string())


def group(df, **how):
    return Group(**how).transform(ColumnSelector(list(df.columns)), df)


def lists(column):
    return [list(values) for values in column]


# Group.


def test_by_hand():
    df = pd.DataFrame(
        {"user": [2, 1, 2, 2, 1], "at": [3, 2, 1, 2, 9], "item": list("abcde"), "n": [1.0, 2, 4, 8, np.nan]}
    )
    aggs = {"item": ["list", "first", "last", "count"], "n": ["list", "sum", "mean", "min", "max", "count"]}
    found = group(df, groupby_cols="user", sort_cols="at", aggs=aggs)
    assert found["user"].tolist() == [1, 2]
    assert lists(found["item_list"]) == [["b", "e"], ["c", "d", "a"]]
    assert (found["item_first"].tolist(), found["item_last"].tolist()) == (["b", "c"], ["e", "a"])
    assert found["item_count"].tolist() == [2, 3]
    assert lists(found["n_list"]) == [[2.0, None], [4.0, 8.0, 1.0]]
    assert found["n_sum"].tolist() == [2.0, 13.0]
    assert found["n_mean"].tolist() == pytest.approx([2.0, 13 / 3])
    assert (found["n_min"].tolist(), found["n_max"].tolist()) == ([2.0, 1.0], [2.0, 8.0])
    assert found["n_count"].tolist() == [1, 3]


def test_lists_are_arrow_arrays():
    df = pd.DataFrame({"user": [1, 1, 2], "n": [1, 2, 3], "text": pd.Series(["a", None, "c"], dtype=TEXT)})
    found = group(df, groupby_cols="user", aggs="list")
    assert frames.to_arrow(found["n_list"]).type == pa.list_(pa.int64())
    assert frames.to_arrow(found["text_list"]).to_pylist() == [["a", None], ["c"]]


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("max_length", [None, 1, 2, 100])
def test_equal_sort_keys_keep_the_order_of_the_rows(ascending, max_length):
    rng = np.random.default_rng(3)
    df = pd.DataFrame({"user": rng.integers(0, 6, 200), "at": rng.integers(0, 4, 200), "row": np.arange(200)})
    found = group(
        df, groupby_cols="user", sort_cols="at", aggs={"row": "list"}, ascending=ascending, max_length=max_length
    )
    for user, rows in zip(found["user"], lists(found["row_list"]), strict=True):
        own = df[df["user"] == user].sort_values("at", ascending=ascending, kind="stable")["row"].tolist()
        latest = own if max_length is None else own[-max_length:] if ascending else own[:max_length]
        assert rows == latest


def test_groups_whose_key_is_missing_are_left_out():
    df = pd.DataFrame({"user": ["a", None, "a", ""], "shop": [1.0, 1.0, np.nan, 2.0], "n": [1, 2, 3, 4]})
    found = group(df, groupby_cols=["user", "shop"], aggs={"n": "list"})
    assert found["user"].tolist() == ["", "a"]
    assert found["shop"].tolist() == [2.0, 1.0]
    assert lists(found["n_list"]) == [[4], [1]]
    assert len(group(df[df["user"].isna()], groupby_cols="user", aggs={"n": "list"})) == 0


def test_many_distinct_keys_do_not_overflow():
    n = 3000
    df = pd.DataFrame({name: np.arange(n) for name in "abcdef"} | {"n": np.arange(n)})
    found = group(df.iloc[::-1], groupby_cols=list("abcdef"), aggs={"n": "list"})
    assert found["a"].tolist() == list(range(n))
    assert lists(found["n_list"]) == [[row] for row in range(n)]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([True, False, True]),
        pd.Series([200, 100, 250], dtype="uint8"),
        pd.Series([2**24, 1, 1], dtype="float32"),
        pd.Series([2**40, 1, 2**40], dtype="int64"),
    ],
)
def test_sums_do_not_overflow(values):
    """Truths are counted, small numbers do not wrap, single precision does not swallow."""
    df = pd.DataFrame({"user": [1, 1, 1], "n": values})
    found = group(df, groupby_cols="user", aggs={"n": ["sum", "mean"]})
    exact = sum(float(value) for value in values)
    assert found["n_sum"].tolist() == [np.float32(exact)]
    assert found["n_mean"].tolist() == [np.float32(exact / 3)]


def test_smallest_and_largest_of_text_and_times_with_gaps():
    moments = pd.to_datetime(["2024-01-03", None, "2024-01-01", None])
    texts = ["b", "a", None, None]
    for text in (pd.Series(texts, dtype=TEXT), pd.Series(texts, dtype=object)):
        df = pd.DataFrame({"user": [1, 1, 1, 2], "text": text, "at": moments})
        found = group(df, groupby_cols="user", aggs=["min", "max"])
        for agg, expected in (("min", ["a", None]), ("max", ["b", None])):
            assert [None if pd.isna(value) else value for value in found[f"text_{agg}"]] == expected
        assert found["at_min"].tolist()[0] == pd.Timestamp("2024-01-01")
        assert found["at_max"].tolist()[0] == pd.Timestamp("2024-01-03")
        assert pd.isna(found["at_min"].tolist()[1])


@pytest.mark.parametrize("dtype", ["category", "Int64", "string", "datetime64[ns, UTC]"])
def test_columns_of_pandas_own_kinds(dtype):
    values = pd.Series([3, 1, 2]).astype("str" if dtype in ("category", "string") else "int64").astype(dtype)
    df = pd.DataFrame({"user": [1, 2, 1], "x": values})
    found = group(df, groupby_cols="user", sort_cols="x", aggs={"x": ["list", "first", "last", "count"]})
    assert lists(found["x_list"]) == [[values[2], values[0]], [values[1]]]
    assert found["x_first"].tolist() == [values[2], values[1]]
    assert found["x_last"].tolist() == [values[0], values[1]]


@pytest.mark.parametrize("how", [{"max_length": 2}, {}, {"ascending": False, "sort_cols": "at"}])
def test_no_events_no_groups(how):
    df = pd.DataFrame(
        {
            "user": pd.Series([], dtype=TEXT),
            "at": pd.Series([], dtype="int64"),
            "text": pd.Series([], dtype=object),
            "n": pd.Series([], dtype="float64"),
        }
    )
    aggs = {"text": ["list", "first", "last", "count", "min"], "n": ["list", "sum", "mean", "min", "max", "count"]}
    found = group(df, groupby_cols="user", aggs=aggs, **how)
    assert len(found) == 0
    assert set(found.columns) == {"user", *(f"{name}_{agg}" for name, wanted in aggs.items() for agg in wanted)}
    assert found["n_list"].dtype == pd.ArrowDtype(pa.list_(pa.float64()))
    assert found["n_count"].dtype == np.int32


def test_schema_of_lists():
    given = Schema([ColumnSchema(name, dtype=np.int64, tags=[Tags.CATEGORICAL]) for name in ("i", "user", "count")])
    names = ColumnSelector(given.column_names)
    for length in (None, 7):
        op = Group(
            "user", aggs={"i": ["list", "first", "count"], "count": ["list", "mean"]}, name_sep="-", max_length=length
        )
        schema = op.compute_output_schema(given, names)
        for name in ("i-list", "count-list"):
            assert schema[name].is_list
            assert schema[name].is_ragged
            assert schema[name].properties["value_count"] == {"min": 0, "max": length}
            assert set(schema[name].tags) == {Tags.CATEGORICAL, *([Tags.LIST] if length else [])}
        assert not schema["i-first"].is_list
        assert schema["i-count"].dtype.name == "int32"
        assert schema["count-mean"].dtype.name == "float32"
        assert schema["i-first"].dtype.name == "int64"


def test_aggregates_that_it_does_not_know():
    with pytest.raises(ValueError, match="Group does not know the aggregate 'nunique': use one of count, first, "):
        Group("user", aggs={"n": ["nunique"]})


def test_names_that_contain_each_other():
    df = pd.DataFrame({"user": [1, 1], "n": [1, 2], "n_list": [3, 4]})
    found = group(df, groupby_cols="user", aggs={"n": ["count"], "n_list": ["list", "max"]})
    assert found["n_count"].tolist() == [2]
    assert lists(found["n_list_list"]) == [[3, 4]]
    assert found["n_list_max"].tolist() == [4]


# GroupSessions.


def events(**columns):
    n = len(next(iter(columns.values())))
    return pd.DataFrame({TIME: np.arange(n), ITEM: np.zeros(n, dtype=np.int64), **columns})


def sessions(df, max_length=20, **how):
    op = GroupSessions(max_length, **how)
    found = op.transform(ColumnSelector(list(df.columns)), df)
    return list(zip(found[SESSION_ID], lists(found["code"]), strict=True))


def test_sessions_by_hand():
    df = events(**{SESSION: ["a", "b", "a", "b", "a"], TIME: [5, 9, 3, 9, 5], "code": [1, 2, 3, 4, 5]})
    assert sessions(df) == [("a", [3, 1, 5]), ("b", [2, 4])]
    assert sessions(df, max_length=2) == [("a", [1, 5]), ("b", [2, 4])]
    assert sessions(df, min_length=3) == [("a", [3, 1, 5])]
    df[ORDER] = [1.0, 2.0, 0.0, 1.0, 0.5]
    assert sessions(df) == [("a", [3, 5, 1]), ("b", [4, 2])]


def test_sessions_of_a_user_end_with_a_gap():
    df = events(**{SESSION: [7, 7, 7, 8], TIME: [0, HOUR, 4 * HOUR, 0], "code": [1, 2, 3, 4]})
    assert sessions(df, gap=2 * HOUR) == [(7, [1, 2]), (7, [3]), (8, [4])]
    assert sessions(df, gap=2 * HOUR, min_length=2) == [(7, [1, 2])]


def test_repeats_and_unknown_items():
    df = events(**{SESSION: list("aaaaab"), ITEM: ["x", "x", "new", "x", "y", "new"], "code": [1, 2, 3, 4, 5, 6]})
    df[ITEM_ID] = [3, 3, UNKNOWN, 3, 4, UNKNOWN]
    assert sessions(df, collapse_repeats=True) == [("a", [1, 3, 4, 5]), ("b", [6])]
    # Unknown items go first: what they stood between is a repeat then.
    assert sessions(df, collapse_repeats=True, drop_unknown=True) == [("a", [1, 5])]
    assert sessions(df, drop_unknown=True, min_length=5) == []
    assert sessions(df[df[ITEM_ID] == UNKNOWN], drop_unknown=True) == []


def test_why_events_are_left_out():
    df = events(**{SESSION: list("aaaaaabbc"), ITEM: list("xxnyzwnxx"), "code": np.arange(9)})
    df[ITEM_ID] = [UNKNOWN if item == "n" else 5 for item in df[ITEM]]
    op = GroupSessions(3, collapse_repeats=True, drop_unknown=True, min_length=2)
    found, dropped = op.group(ColumnSelector(list(df.columns)), df)
    assert lists(found["code"]) == [[3, 4, 5]]
    # a: n is unknown, the second x a repeat, the first too old. b and c are short without n.
    assert sorted(dropped.values()) == [1, 1, 2, 2]
    assert sum(dropped.values()) + 3 == 9


@pytest.mark.parametrize("seed", range(20))
def test_random_sessions_against_python(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 150))
    df = events(
        **{
            SESSION: pd.Series([f"s{x}" for x in rng.integers(0, 12, n)], dtype=TEXT),
            TIME: rng.integers(0, 50, n) * HOUR,
            ITEM: rng.integers(0, 4, n),
            ITEM_ID: rng.integers(UNKNOWN, 5, n),
            "code": np.arange(n),
        }
    )
    how = {
        "max_length": int(rng.integers(1, 8)),
        "gap": None if seed % 2 else 3 * HOUR,
        "collapse_repeats": bool(rng.random() < 0.5),
        "drop_unknown": bool(rng.random() < 0.5),
        "min_length": int(rng.integers(1, 4)),
    }
    expected = []
    kept = df[df[ITEM_ID] != UNKNOWN] if how["drop_unknown"] else df
    for key in dict.fromkeys(kept[SESSION]):
        rows = sorted(kept[kept[SESSION] == key].itertuples(index=False), key=lambda row: row[df.columns.get_loc(TIME)])
        parts, before = [], None
        for row in rows:
            time, item, code = (row[df.columns.get_loc(name)] for name in (TIME, ITEM, "code"))
            if before is None or (how["gap"] is not None and time - before > how["gap"]):
                parts.append([])
            before = time
            if not (how["collapse_repeats"] and parts[-1] and parts[-1][-1][0] == item):
                parts[-1].append((item, code))
        expected += [
            (key, [code for _, code in part][-how["max_length"] :]) for part in parts if len(part) >= how["min_length"]
        ]
    assert sessions(df, **how) == expected


@pytest.mark.parametrize("dtype", [TEXT, object, "int64"])
def test_no_events_no_sessions(dtype):
    df = events(**{SESSION: pd.Series([], dtype=dtype), TIME: np.zeros(0, np.int64), "code": np.zeros(0, np.int64)})
    df[ITEM_ID] = df["code"]
    for how in ({}, {"gap": 5}, {"collapse_repeats": True, "drop_unknown": True, "min_length": 2}):
        assert sessions(df, **how) == []


def test_in_a_workflow_beside_stock_operators(tmp_path):
    df = pd.DataFrame({"visit": list("aab"), "sku": [5, 6, 5], "at": [2, 1, 3], "price": [1.0, 3.0, 5.0]})
    items = ["sku"] >> ops.Categorify(out_path=str(tmp_path)) >> ops.Rename(name=ITEM_ID)
    price = ["price"] >> ops.Normalize() >> ops.AddMetadata(tags=[Tags.ITEM])
    keys = [[old] >> ops.Rename(name=new) for old, new in (("visit", SESSION), ("sku", ITEM), ("at", TIME))]
    workflow = nvtabular.Workflow((items + price + keys[0] + keys[1] + keys[2]) >> GroupSessions(4))
    found = workflow.fit_transform(MerlinDataset(df)).to_ddf().compute()
    assert found[SESSION_ID].tolist() == ["a", "b"]
    assert lists(found[ITEM_ID]) == [[4, 3], [3]]
    assert lists(found["price"]) == [[0.0, -1.0], [1.0]]
    item, number = (workflow.output_schema[name] for name in (ITEM_ID, "price"))
    assert {Tags.ITEM, Tags.ID, Tags.CATEGORICAL} == set(item.tags)
    assert item.properties["domain"]["max"] == 4
    assert item.properties["value_count"] == number.properties["value_count"] == {"min": 0, "max": 4}
    assert item.is_list
    assert item.is_ragged
    assert {Tags.ITEM, Tags.CONTINUOUS} == set(number.tags)
    assert {Tags.SESSION, Tags.ID} == set(workflow.output_schema[SESSION_ID].tags)
    workflow.save(str(tmp_path / "workflow"))
    again = nvtabular.Workflow.load(str(tmp_path / "workflow")).transform(df)
    assert lists(again[ITEM_ID]) == [[4, 3], [3]]
