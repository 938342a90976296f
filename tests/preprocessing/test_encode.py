"""Categories become codes by falling count, whatever the columns are made of and however they are cut."""

import warnings
from itertools import pairwise

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from merlin.schema import ColumnSchema, Schema, Tags

from preprocessing import frames
from preprocessing.engine import ColumnSelector, MerlinDataset, nvtabular, ops
from preprocessing.kernels import NULL, UNKNOWN
from preprocessing.operators import Encode

TEXT = pd.ArrowDtype(pa.string())
LISTS = pa.list_(pa.int64())


def partitioned(df, cuts):
    """A data set whose partitions begin at these rows; a cut that is there twice makes an empty one."""
    edges = [0, *cuts, len(df)]
    parts = [df.iloc[begin:end] for begin, end in pairwise(edges)]
    return MerlinDataset(dd.from_map(parts.__getitem__, range(len(parts)), meta=df.iloc[:0], enforce_metadata=False))


def fitted(df, op, cuts=()):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nvtabular.Workflow(list(df.columns) >> op).fit(partitioned(df, cuts))


def codes(workflow, df):
    return {name: [as_list(value) for value in column] for name, column in workflow.transform(df).items()}


def as_list(value):
    return value if np.isscalar(value) else list(value)


def test_by_falling_count_then_by_value():
    df = pd.DataFrame({"text": ["b", "a", "c", "a", None, "b", ""], "number": [5, -1, 5, 3, 3, 5, 9]})
    op = Encode()
    workflow = fitted(df, op)
    assert codes(workflow, df) == {"text": [4, 3, 6, 3, 1, 4, 5], "number": [3, 5, 3, 4, 4, 3, 6]}
    assert op.values["text"].to_pylist() == ["a", "b", "", "c"]
    assert op.counts["text"].tolist() == [2, 2, 1, 1]
    assert op.counts["number"].tolist() == [3, 2, 1, 1]
    assert (op.nulls, op.rare) == ({"text": 1, "number": 0}, {"text": 0, "number": 0})
    assert op.cardinality("text") == 7
    unseen = pd.DataFrame({"text": ["z", None, "A"], "number": [0, 6, 2**62]})
    assert codes(workflow, unseen) == {"text": [UNKNOWN, NULL, UNKNOWN], "number": [UNKNOWN] * 3}


def test_rare_values_share_the_code_of_unknown_ones():
    df = pd.DataFrame({"x": list("aaabbbccdde") + [None] * 4})
    op = Encode(min_count=3)
    assert codes(fitted(df, op), df)["x"] == [3] * 3 + [4] * 3 + [UNKNOWN] * 5 + [NULL] * 4
    assert (op.rare, op.nulls) == ({"x": 5}, {"x": 4})
    assert fitted(df, Encode(min_count=4)).transform(df)["x"].tolist() == [UNKNOWN] * 11 + [NULL] * 4


def test_at_most_so_many_values_are_known():
    df = pd.DataFrame({"x": list("aaabbcd")})
    op = Encode(max_size=2)
    assert codes(fitted(df, op), df)["x"] == [3, 3, 3, 4, 4, UNKNOWN, UNKNOWN]
    assert op.rare == {"x": 2}
    assert fitted(df, Encode(max_size=99)).transform(df)["x"].tolist() == [3, 3, 3, 4, 4, 5, 6]


@pytest.mark.parametrize("values", [list("aaabbbccdde"), [1, 1, 1, 2, 2, 2, 30, 30, 4, 4, 5], [0.5] * 6 + [1.5] * 5])
def test_buckets_take_what_is_rare_or_unknown(values):
    df = pd.DataFrame({"x": values})
    op = Encode(min_count=3, buckets=4)
    workflow = fitted(df, op)
    found = codes(workflow, df)["x"]
    known = {value for value in values if values.count(value) >= 3}
    for value, code in zip(values, found, strict=True):
        assert (code >= 7) if value in known else (3 <= code <= 6)
    # The same value has the same bucket, in every workflow.
    assert len(set(zip(values, found, strict=True))) == len(set(values))
    again = fitted(df, Encode(min_count=3, buckets=4), cuts=(3, 8))
    assert codes(again, df)["x"] == found
    assert op.cardinality("x") == 7 + len(known)
    assert workflow.output_schema["x"].properties["domain"]["max"] == 6 + len(known)


def test_whole_numbers_and_their_equal_fractions_are_one_value():
    """A partition without gaps holds 7, one with gaps 7.0."""
    df = pd.DataFrame({"x": np.array([7, 7, 8], dtype=np.int64)})
    gaps = pd.DataFrame({"x": [7.0, None, 8.0, 9.0]})
    for op in (Encode(), Encode(min_count=2, buckets=50)):
        whole = fitted(df, op)
        (a, _, b), (c, null, d, _) = codes(whole, df)["x"], codes(whole, gaps)["x"]
        assert (a, b, null) == (c, d, NULL)
    both = Encode()
    ddf = dd.from_map([df, gaps].__getitem__, range(2), meta=gaps.iloc[:0], enforce_metadata=False)
    workflow = nvtabular.Workflow(["x"] >> both).fit(MerlinDataset(ddf))
    assert both.values["x"].to_pylist() == [7.0, 8.0, 9.0]
    assert codes(workflow, df)["x"] == [3, 3, 4]
    assert codes(workflow, gaps)["x"] == [3, NULL, 4, 5]


def test_a_partition_that_holds_nothing_changes_no_kind():
    """Lists of Python objects say what they hold only where there is something (Merlin refuses such a graph)."""
    df = pd.DataFrame({"x": [[1, 2], [1], [], []]})
    moments = pd.DataFrame({"x": pd.Series([pd.Timestamp("2024-01-01"), None, None], dtype=object)})
    for frame, kind, expected in ((df, pa.int64(), [[3, 4], [3], [], []]), (moments, pa.timestamp("us"), [3, 1, 1])):
        op, names = Encode(), ColumnSelector(["x"])
        op.fit_finalize(op.fit(names, partitioned(frame, (0, 1, 2)).to_ddf()).compute())
        assert [as_list(value) for value in op.transform(names, frame)["x"]] == expected
        assert op.values["x"].type == kind


BIG = [2**53 + 1, 2**53 + 2, -(2**63), 2**63 - 1, -1, 0]


@pytest.mark.parametrize("values", [BIG, BIG[2:3], BIG[3:4], [-(2**63), -(2**63) + 1], [2**63 - 1, 2**63 - 2], [0, -1]])
def test_numbers_of_any_size_are_told_apart(values):
    df = pd.DataFrame({"x": np.array(values, dtype=np.int64)})
    workflow = fitted(df, Encode())
    assert sorted(codes(workflow, df)["x"]) == list(range(3, 3 + len(values)))
    others = [v for value in values for v in (value - 1, value + 1) if v not in values and -(2**63) <= v < 2**63]
    others += [v for v in (-(2**63), 2**63 - 1, 5) if v not in values]
    assert codes(workflow, pd.DataFrame({"x": np.array(others, dtype=np.int64)}))["x"] == [UNKNOWN] * len(others)


KINDS = {
    "object": lambda values: pd.Series(values, dtype=object),
    "arrow": lambda values: pd.Series(values, dtype=TEXT),
    "large": lambda values: pd.Series(values, dtype=pd.ArrowDtype(pa.large_string())),
    "dictionary": lambda values: pd.Series(
        frames.arrow_column(pa.array(values, pa.string()).dictionary_encode()), dtype=None
    ),
    "categorical": lambda values: pd.Series(values, dtype="category"),
    "string": lambda values: pd.Series(values, dtype="string"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_text(kind):
    values = ["b", None, "a", "", "b", "ä", None]
    df = pd.DataFrame({"x": KINDS[kind](values)})
    workflow = fitted(df, Encode(), cuts=(2, 2, 5))
    assert codes(workflow, df)["x"] == [3, 1, 5, 4, 3, 6, 1]
    for other in KINDS.values():
        assert codes(workflow, pd.DataFrame({"x": other(["ä", None, "new", ""])}))["x"] == [6, 1, 2, 4]


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int32", "uint64", "float32", "bool", "Int64", "boolean", pd.ArrowDtype(pa.int32())]
)
def test_kinds_of_numbers(dtype):
    df = pd.DataFrame({"x": pd.Series([1, 0, 1, 1, 0], dtype=dtype)})
    workflow = fitted(df, Encode(), cuts=(2,))
    assert codes(workflow, df)["x"] == [3, 4, 3, 3, 4]
    if dtype in ("Int64", "boolean", "float32") or isinstance(dtype, pd.ArrowDtype):
        gaps = pd.DataFrame({"x": pd.Series([1, None, 0], dtype=dtype)})
        assert codes(workflow, gaps)["x"] == [3, 1, 4]
        assert codes(fitted(gaps, Encode()), gaps)["x"] == [4, 1, 3]


def test_times_are_values_too():
    df = pd.DataFrame({"x": pd.to_datetime(["2024-01-02", "2024-01-01", None, "2024-01-02"])})
    assert codes(fitted(df, Encode()), df)["x"] == [3, 4, 1, 3]


@pytest.mark.parametrize("values", [[None, None], [np.nan, np.nan]])
@pytest.mark.parametrize("buckets", [0, 3])
def test_nothing_but_missing_values(values, buckets):
    df = pd.DataFrame({"x": values})
    op = Encode(buckets=buckets)
    workflow = fitted(df, op)
    assert codes(workflow, df)["x"] == [NULL, NULL]
    assert (op.nulls["x"], len(op.values["x"]), op.cardinality("x")) == (2, 0, 3 + buckets)
    seen = codes(workflow, pd.DataFrame({"x": ["a", None]}))["x"]
    assert seen[1] == NULL
    assert seen[0] == UNKNOWN if not buckets else 3 <= seen[0] <= 5


@pytest.mark.parametrize("dtype", [object, TEXT, "int64", "float64"])
def test_an_empty_data_frame(dtype):
    empty = pd.DataFrame({"x": pd.Series([], dtype=dtype)})
    workflow = fitted(empty, Encode())
    result = workflow.transform(empty)
    assert len(result) == 0
    assert result["x"].dtype == np.int64
    full = pd.DataFrame({"x": pd.Series(["1", "2"]).astype(dtype)})
    assert codes(workflow, full)["x"] == [UNKNOWN, UNKNOWN]
    assert len(fitted(full, Encode()).transform(empty)) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda lists: pd.Series(lists, dtype=object),
        lambda lists: pd.Series([x if x is None else np.array(x, dtype=object) for x in lists], dtype=object),
        lambda lists: pd.Series(frames.arrow_column(pa.array(lists, pa.list_(pa.string())))),
        lambda lists: pd.Series(frames.arrow_column(pa.array(lists, pa.large_list(pa.string())))),
    ],
)
def test_lists_are_encoded_value_by_value(make):
    lists = [["b", "a"], [], ["b", None, "c"], None, ["a", "b"]]
    df = pd.DataFrame({"x": make(lists)})
    workflow = fitted(df, Encode(), cuts=(2,))
    # A missing list comes out as an empty one: the models know no difference.
    assert codes(workflow, df)["x"] == [[3, 4], [], [3, 1, 5], [], [4, 3]]
    # Part of a data frame: what the slice hides must not come back.
    assert codes(workflow, df.iloc[2:4])["x"] == [[3, 1, 5], []]
    assert codes(workflow, df.iloc[:0])["x"] == []


def test_the_index_of_the_data_frame_stays():
    df = pd.DataFrame({"x": list("abca"), "y": [[1], [2], [1], []]}, index=[9, 9, 4, 0])
    result = fitted(df, Encode()).transform(df)
    assert result.index.tolist() == [9, 9, 4, 0]
    assert result["x"].tolist() == [3, 4, 5, 3]


CHOICES = {"min_count": [0, 2, 5], "max_size": [0, 6], "buckets": [0, 3]}


@pytest.mark.parametrize("seed", range(20))
def test_partitions_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 300))
    numbers = rng.zipf(1.4, n) % 50
    df = pd.DataFrame(
        {
            "text": pd.Series([None if x == 7 else f"v{x}" for x in numbers], dtype=TEXT),
            "number": rng.integers(-9, 9, n),
            "gaps": np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 5, n) / 2),
            "lists": frames.arrow_column(pa.array([numbers[: rng.integers(1, 4)].tolist() for _ in range(n)], LISTS)),
        }
    )
    how = {name: int(rng.choice(choice)) for name, choice in CHOICES.items()}
    one, many = Encode(**how), Encode(**how)
    cuts = np.sort(rng.integers(0, n + 1, int(rng.integers(0, 20)))).tolist()
    assert codes(fitted(df, one), df) == codes(fitted(df, many, cuts), df)
    for name in df.columns:
        assert one.values[name].equals(many.values[name])
        assert one.counts[name].tolist() == many.counts[name].tolist()
        assert (one.nulls[name], one.rare[name]) == (many.nulls[name], many.rare[name])
        # The most frequent first, equal ones by value; every event is counted once.
        counts, values = one.counts[name].tolist(), one.values[name].to_pylist()
        pairs = list(zip([-count for count in counts], values, strict=True))
        assert pairs == sorted(pairs)
        events = n if name != "lists" else sum(map(len, df[name]))
        assert one.counts[name].sum() + one.nulls[name] + one.rare[name] == events


def test_saved_and_loaded(tmp_path):
    df = pd.DataFrame({"text": pd.Series(["b", "a", "b", None], dtype=TEXT), "number": [1, 10**12, 1, 5]})
    workflow = fitted(df, Encode(min_count=2, buckets=2))
    expected = codes(workflow, df)
    workflow.save(str(tmp_path / "workflow"))
    # The look-up tables are not saved, and the operator needs no file of its own.
    loaded = nvtabular.Workflow.load(str(tmp_path / "workflow"))
    assert codes(loaded, df) == expected
    assert loaded.output_schema == workflow.output_schema
    op = loaded.output_node.op
    assert op.values["text"].to_pylist() == ["b"]


def test_schema():
    df = pd.DataFrame({"x": list("aab"), "y": [["a"], ["b"], []]})
    schema = fitted(df, Encode()).output_schema
    for name, size in (("x", 5), ("y", 5)):
        column = schema[name]
        assert column.properties["domain"] == {"min": 0, "max": size - 1, "name": name}
        assert column.properties["embedding_sizes"] == {"cardinality": size, "dimension": 16}
        assert Tags.CATEGORICAL in column.tags
        assert column.dtype.name == "int64"
        assert column.is_list == (name == "y")


def test_the_schema_keeps_tags_and_properties_that_came():
    given = Schema([ColumnSchema("x", tags=[Tags.ITEM_ID], properties={"note": 1})])
    column = Encode().compute_output_schema(given, ColumnSelector(["x"]))["x"]
    assert {Tags.ITEM, Tags.ID, Tags.CATEGORICAL} == set(column.tags)  # an item's id, to Merlin
    assert column.properties["note"] == 1
    assert "domain" not in column.properties  # nothing is known before the fit


def test_cleared_and_fitted_again():
    op = Encode()
    fitted(pd.DataFrame({"x": list("aab")}), op)
    again = pd.DataFrame({"x": [9, 8, 8]})
    assert codes(fitted(again, op), again)["x"] == [4, 3, 3]


def test_before_it_is_fitted():
    with pytest.raises(RuntimeError, match="not fitted on the column 'x'"):
        Encode().transform(ColumnSelector(["x"]), pd.DataFrame({"x": [1]}))


@pytest.mark.parametrize("how", [{"min_count": -1}, {"buckets": -1}, {"max_size": -1}])
def test_what_makes_no_sense(how):
    with pytest.raises(ValueError, match="must not be negative"):
        Encode(**how)


def test_beside_stock_operators():
    """After a stock operator and before one, in one graph."""
    df = pd.DataFrame({"x": list("aabc"), "y": [1.0, 2.0, np.nan, 4.0]})
    node = (["x"] >> ops.Rename(postfix="_id") >> Encode() >> ops.AddMetadata(tags=[Tags.ITEM_ID])) + (
        ["y"] >> ops.FillMissing(fill_val=2.0) >> Encode() >> ops.Rename(name="level")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = nvtabular.Workflow(node).fit(partitioned(df, (1, 3)))
    assert codes(workflow, df) == {"x_id": [3, 3, 4, 5], "level": [4, 3, 3, 5]}
    assert {Tags.ITEM, Tags.ID} < set(workflow.output_schema["x_id"].tags)


@pytest.mark.parametrize("seed", range(20))
def test_by_joining_distinct_values_as_on_a_gpu(seed):
    """`frames.map_distinct` is written in words that pandas and cudf share."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 200))
    train = pd.DataFrame({"x": rng.integers(0, 30, n + 1)})
    df = pd.DataFrame({"x": rng.integers(0, 60, n)}, index=rng.permutation(n) + 100)
    if seed % 2:
        for frame in (train, df):
            frame["x"] = frame["x"].map(lambda x: None if x == 9 else f"v{x}").astype(object)
    elif seed % 3:
        for frame in (train, df):
            frame["x"] = frame["x"].where(frame["x"] != 9).astype("float64")
    op = Encode(min_count=2, buckets=seed % 4)
    workflow = fitted(train, op)
    expected = workflow.transform(df)["x"]
    op = workflow.output_node.op
    found = frames.map_distinct(df["x"], op._tables["x"].encode if n else lambda values: np.zeros(0, np.int64), NULL)
    assert found.tolist() == expected.tolist()
    assert found.index.tolist() == df.index.tolist()
    assert found.dtype == np.int64
