"""Each kind of feature against answers worked out by hand, and in graphs of stock NVTabular operators."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from common.errors import UserError
from common.settings import validate
from modeling.schema import read_schema
from preprocessing import feature_kernels, frames, operators
from preprocessing.engine import MerlinDataset, Tags, dd, nvtabular, ops
from preprocessing.feature_settings import Features
from preprocessing.preprocess import load_workflow, preprocess
from preprocessing.tables import JoinedTable
from preprocessing.workflow import build, schema_of

from .conftest import ROWS, table

NAN = float("nan")


def sessions(folder, window, column):
    read = pq.read_table(folder / window).to_pydict()
    return dict(zip(read["session_id"], read[column], strict=True))


def normalised(values, of):
    """Values by the mean and the sample deviation of others; missing ones at the mean."""
    of = np.array([value for value in of if value == value], dtype=np.float64)
    return [0.0 if value != value else (value - of.mean()) / of.std(ddof=1) for value in values]


# Hashing


def test_the_hash_is_a_fixed_function_of_the_value():
    # SplitMix64 from seed 0 is known to begin with e220a8397b1dcdaf.
    numbers = feature_kernels.stable_hash(np.array([0, 1, -1]))
    assert numbers.dtype == np.uint64
    assert [hex(value) for value in numbers.tolist()] == [
        "0xe220a8397b1dcdaf", "0x910a2dec89025cc1", "0xe4d971771b652c20",
    ]  # fmt: skip
    text = feature_kernels.stable_hash(np.array(["a", b"a", "ü", "ü".encode()], dtype=object))
    assert text[0] == text[1] == 3405396810240292928
    assert text[2] == text[3] != text[0]
    assert feature_kernels.stable_hash(np.array([0.0, -0.0, 1.0, -1.0])).tolist() == numbers[[0, 0, 1, 2]].tolist()
    assert feature_kernels.stable_hash(np.array([False, True])).tolist() == numbers[:2].tolist()
    fractions = feature_kernels.stable_hash(np.array([0.5, 0.25, 1e300, 2.0**63]))
    assert len(set(fractions.tolist())) == 4


def test_hash_codes_leave_the_reserved_ones_out_and_spread_evenly():
    assert feature_kernels.hash_codes(np.array(["", None, "x"], dtype=object), 1).tolist() == [1, 1, 3]
    assert feature_kernels.hash_codes(np.array([NAN, 2.0]), 1).tolist() == [1, 3]
    counts = np.bincount(feature_kernels.hash_codes(np.arange(100_000), 10))
    assert counts[:3].tolist() == [0, 0, 0]
    assert len(counts) == 13
    # 10,000 each; the deviation of a fair draw is 95.
    assert np.abs(counts[3:] - 10_000).max() < 500


def test_hashed_and_bucketed_categories(make, tmp_path):
    features = {"item": {"categorical": [{"column": "brand", "hash": 100}]}, "event": {"categorical": ["price"]}}
    preprocess(make(features=features), tmp_path / "hashed")
    x, y, z = feature_kernels.hash_codes(np.array(["x", "y", "z"]), 100).tolist()
    assert sessions(tmp_path / "hashed", "train", "brand") == {"a": [x, y], "b": [y, x, x], "c": [1, 1]}
    assert sessions(tmp_path / "hashed", "valid", "brand") == {"d": [x, z]}, "training need not have seen it"
    features = {"item": {"categorical": [{"column": "brand", "min_count": 3, "buckets": 5}]}}
    preprocess(make(features=features), tmp_path / "bucketed")
    # x is seen three times and known, behind five buckets; y is seen twice, and rare; z is unknown.
    y, z = feature_kernels.hash_codes(np.array(["y", "z"]), 5).tolist()
    assert sessions(tmp_path / "bucketed", "train", "brand") == {"a": [8, y], "b": [y, 8, 8], "c": [1, 1]}
    assert sessions(tmp_path / "bucketed", "valid", "brand") == {"d": [8, z]}
    preprocess(make(features={"item": {"categorical": [{"column": "brand", "min_count": 3}]}}), tmp_path / "rare")
    assert sessions(tmp_path / "rare", "train", "brand") == {"a": [3, 2], "b": [2, 3, 3], "c": [1, 1]}


def test_whole_numbers_with_gaps_hash_as_what_they_are():
    hashed = operators.HashBuckets(50)
    frame = frames.from_table(
        pa.table({"whole": [7, 8], "gaps": pa.array([8, None], pa.float64()), "flag": [True, False]})
    )
    found = (["whole", "gaps", "flag"] >> hashed).op.transform(
        nvtabular.ColumnSelector(["whole", "gaps", "flag"]), frame
    )
    assert found["gaps"].tolist() == [found["whole"][1], 1]
    assert found["flag"].tolist() == feature_kernels.hash_codes(np.array([1, 0]), 50).tolist()
    lists = frames.from_table(pa.table({"tags": [["a", None], [], ["b"]]}))
    a, b = feature_kernels.hash_codes(np.array(["a", "b"]), 50).tolist()
    assert list(map(list, hashed.transform(nvtabular.ColumnSelector(["tags"]), lists)["tags"])) == [[a, 1], [], [b]]


# Time


def test_time_since_the_previous_event(make, tmp_path):
    preprocess(make(features={"time": ["since_previous"]}), tmp_path / "features")
    # Two minutes in a, then two minutes and one in b, one in c: log(1 + seconds), normalised over those four.
    two, one = np.log(121), np.log(61)
    of = [two, two, one, one]
    found = sessions(tmp_path / "features", "train", "since_previous")
    assert found["a"] == pytest.approx(normalised([NAN, two], of), abs=1e-6)
    assert found["b"] == pytest.approx(normalised([NAN, two, one], of), abs=1e-6)
    assert sessions(tmp_path / "features", "test", "since_previous")["e"] == pytest.approx(
        normalised([NAN, one], of), abs=1e-6
    )
    # The schema says what with, so that a model can undo it.
    column = read_schema(tmp_path / "features")["since_previous"]
    assert column.properties["mean"] == pytest.approx(np.mean(of))
    assert column.properties["deviation"] == pytest.approx(np.std(of, ddof=1))


def test_time_since_previous_by_gap_order_and_repeats():
    second = 1_000_000_000
    key = np.array([0, 1, 0, 0, 0, 1])
    item = np.array([5, 5, 6, 5, 5, 7])
    time = np.array([10, 0, 10, 40, 100, 3]) * second
    order = np.array([2, 0, 1, 0, 0, 0])

    def since(**options):
        return np.expm1(feature_kernels.since_previous(key, item, time, **options)).round(9).tolist()

    plain = since()
    assert plain[2:] == [0, 30, 60, 3]
    assert plain[0] != plain[0], "the first of a session has none"
    # The order puts row 2 (item 6) before row 0 (item 5) at the same moment.
    ordered = since(order=order)
    assert ordered[2] != ordered[2]
    assert ordered[0] == 0
    # After more than 30 seconds another session begins.
    split = since(gap=30 * second)
    assert split[3] == 30
    assert split[4] != split[4]
    # Rows 0, 3 and 4 show item 5 in a row, by that order: the first is kept, and the time counts from there.
    collapsed = since(order=order, collapse_repeats=True)
    assert [collapsed[0], collapsed[5]] == [0, 3]
    assert all(collapsed[row] != collapsed[row] for row in (1, 2, 3, 4))
    without = since(left_out=np.array([False, False, False, True, False, False]))
    assert without[3] != without[3]
    assert without[4] == 90


def test_sessions_of_one_event_have_no_time_since_the_previous():
    found = feature_kernels.since_previous(np.arange(3), np.zeros(3, int), np.arange(3))
    assert np.isnan(found).all()
    assert len(feature_kernels.since_previous(*[np.zeros(0, np.int64)] * 3)) == 0


# Relative and counted


def test_price_relative_to_its_brand(make, tmp_path):
    features = {"relative": [{"column": "price", "to": "brand"}]}
    preprocess(make(features=features), tmp_path / "features")
    # Brand x costs 1 in training, brand y 3, all events 14/6: what null and unknown brands are compared with.
    overall = 14 / 6
    low, high = np.log(1 / overall), np.log(5 / overall)
    of = [0, 0, 0, 0, low, high]
    found = sessions(tmp_path / "features", "train", "price_relative_to_brand")
    assert found["a"] == pytest.approx(normalised([0, 0], of), abs=1e-6)
    assert found["b"] == pytest.approx(normalised([0, 0, NAN], of), abs=1e-6)
    assert found["c"] == pytest.approx(normalised([low, high], of), abs=1e-6)
    unknown = sessions(tmp_path / "features", "valid", "price_relative_to_brand")["d"]
    assert unknown == pytest.approx(normalised([0, np.log(2 / overall)], of), abs=1e-6)


def test_differences_take_every_number_and_ratios_positive_ones():
    means = np.array([2.0, 2.0, 2.0, 4.0, 0.0])
    values, code = np.array([8.0, 0.0, -1.0, NAN, 8.0, 6.0]), np.array([3, 3, 3, 3, 4, 9])
    found = feature_kernels.relative(values, code, means, log=True)
    np.testing.assert_allclose(found, [np.log(2), NAN, NAN, NAN, NAN, np.log(3)])
    found = feature_kernels.relative(values, code, means, log=False)
    np.testing.assert_allclose(found, [4, -4, -5, NAN, 8, 4])


def test_counts_of_values(make, tmp_path):
    preprocess(make(features={"frequency": ["sku", "brand"]}), tmp_path / "features")
    tea, mug, cup, new = np.log([5, 3, 2, 1])
    of = [tea, mug, mug, tea, tea, tea, cup]
    found = sessions(tmp_path / "features", "train", "sku_frequency")
    assert found["b"] == pytest.approx(normalised([mug, tea, tea], of), abs=1e-6)
    assert found["c"] == pytest.approx(normalised([tea, cup], of), abs=1e-6)
    unknown = sessions(tmp_path / "features", "valid", "sku_frequency")["d"]
    assert unknown == pytest.approx(normalised([tea, new], of), abs=1e-6)
    # Brand x is there three times, y twice; a missing brand is at the mean.
    x, y = np.log([4, 3])
    found = sessions(tmp_path / "features", "train", "brand_frequency")
    assert found["a"] == pytest.approx(normalised([x, y], [x, y, y, x, x]), abs=1e-6)
    assert found["c"] == [0, 0]


# Event types


def test_event_types_as_a_feature_and_as_a_filter(make, tmp_path):
    kinds = ["view", "view", "cart", "buy", "view", "view", "refund", "view", "view", "cart", "view", "buy"]
    events = table().append_column("kind", pa.array(kinds))
    dataset = make(events, features={"event": {"categorical": ["kind"]}})
    preprocess(dataset, tmp_path / "all")
    # In training view is there four times, and buy, cart and refund once each: by name.
    assert sessions(tmp_path / "all", "train", "kind") == {"a": [3, 5], "b": [3, 4, 3], "c": [3, 6]}
    schema = schema_of(load_workflow(tmp_path / "all"))
    assert {Tags.CATEGORICAL, Tags.CONTEXT} <= set(schema["kind"].tags)
    where = {"kind": {"one_of": ["view", "cart", "buy"]}}
    content = {"files": "events.parquet", "session": "visit", "item": "sku", "time": "at", "where": where}
    dataset = make(events, features={"event": {"categorical": ["kind"]}}, events=content)
    report = preprocess(dataset, tmp_path / "some")
    assert report["events_dropped"]["where kind"] == 1
    # Session c has one event left, too short to learn from.
    assert sessions(tmp_path / "some", "train", "kind") == {"a": [3, 5], "b": [3, 4, 3]}


# Settings


def test_categories_are_named_or_described():
    features = validate({"item": {"categorical": ["a", {"column": "b", "hash": 9}]}}, Features, "x.yaml")
    assert [entry.column for entry in features.item.categorical] == ["a", "b"]
    with pytest.raises(UserError, match="'hash' keeps no vocabulary"):
        validate({"item": {"categorical": [{"column": "b", "hash": 9, "buckets": 2}]}}, Features, "x.yaml")
    with pytest.raises(UserError, match=r"no key 'item\.categorical\.0\.bucket'"):
        validate({"item": {"categorical": [{"column": "b", "bucket": 9}]}}, Features, "x.yaml")


def test_a_bare_on_in_yaml_is_the_key():
    join, vectors = "{files: p.csv, on: sku, columns: [kind]}", "{name: text, files: v.parquet, on: id, column: v}"
    content = yaml.safe_load(f"joins: [{join}]\nvectors: [{vectors}]")
    features = validate(content, Features, "x.yaml")
    assert (features.joins[0].on, features.vectors[0].on) == ("sku", "id")


JOIN = {"files": "p.parquet", "on": "sku", "columns": ["kind"]}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"joins": [JOIN, JOIN]}, "'kind' comes from two tables"),
        ({"joins": [JOIN | {"columns": ["visit"]}]}, "the events have the column 'visit' already"),
        ({"joins": [JOIN, {**JOIN, "on": "kind", "columns": ["b"]}]}, "the key 'kind' must be a column of the events"),
        ({"relative": [{"column": "price", "to": "at"}]}, "features.relative: 'at' is the time"),
        ({"relative": [{"column": "sku", "to": "brand"}]}, "'sku' must be a number"),
        ({"frequency": ["brand", "brand"]}, "have the name 'brand_frequency'"),
        ({"frequency": ["brand"], "item": {"categorical": ["brand_frequency"]}}, "have the name 'brand_frequency'"),
        ({"vectors": [{"name": "brand", "files": "v", "column": "v"}], "item": {"categorical": ["brand"]}}, "'brand'"),
        ({"frequency": ["a/b"]}, "the column name 'a/b' cannot be used"),
    ],
)
def test_features_that_contradict_each_other_are_refused(make, features, message):
    with pytest.raises(UserError, match=message):
        make(features=features)


# Graphs


def graph(tmp_path):
    """Stock operators and ours in one graph, without any of the pipeline around them."""
    codes = ["brand"] >> ops.Categorify(out_path=str(tmp_path / "categories"))
    product = ["sku"] >> operators.JoinTable(_products(tmp_path))
    kind = product["kind"] >> operators.Encode()
    price = ["price"] >> ops.FillMissing(fill_val=2.0)
    relative = (price + codes) >> operators.Relative("price_next_to_brand")
    counted = (codes + kind) >> operators.Frequency()
    since = ["visit", "sku", "at"] >> operators.SincePrevious("visit", "sku", "at")
    hashed = ["brand", "sku"] >> operators.HashBuckets(20) >> ops.Rename(postfix="_hash")
    weight = product["weight"] >> ops.Normalize()
    age = ((["sku"] >> operators.Encode()) + ["at"]) >> operators.ItemAge()
    return codes + kind + relative + counted + since + hashed + weight + age


def _products(tmp_path):
    columns = {
        "sku": [f"s{i}" for i in range(0, 40, 2)],
        "kind": ["kαnd", "b", None, "c"] * 5,
        "weight": pa.array([1.5, None] * 10, pa.float64()),
    }
    return JoinedTable("sku", pa.table(columns), "products.parquet")


def frame(seed=0, count=600):
    rng = np.random.default_rng(seed)
    events = {
        "visit": np.sort(rng.integers(0, 150, count)),
        "sku": [f"s{i}" for i in rng.integers(0, 40, count)],
        "at": np.sort(rng.integers(0, 10**15, count)),
        "brand": rng.choice(np.array(["x", "y", "z", None], dtype=object), count),
        "price": np.where(rng.random(count) < 0.1, NAN, rng.lognormal(1, 1, count)),
    }
    return frames.from_table(pa.table(events))


def fitted(tmp_path, events, pieces):
    """A workflow fitted on partitions of whole sessions."""
    bounds = np.searchsorted(events["visit"], np.linspace(0, 151, pieces + 1).astype(int))
    # Stock Categorify wants the rows of each partition numbered from 0.
    pieces = [events.iloc[a:b].reset_index(drop=True) for a, b in itertools.pairwise(bounds)]
    parts = [dd.from_pandas(piece, npartitions=1) for piece in pieces]
    workflow = nvtabular.Workflow(graph(tmp_path / str(len(pieces))))
    return workflow.fit(MerlinDataset(dd.concat(parts) if len(parts) > 1 else parts[0]))


@pytest.mark.filterwarnings("ignore")
def test_operators_in_any_graph_whatever_the_partitions(tmp_path):
    events, other = frame(), frame(1)
    one = fitted(tmp_path, events, 1)
    expected = one.transform(other)
    assert expected["since_previous"].notna().sum() > 300
    assert set(expected["kind"]) == {1, 3, 4, 5}
    for pieces in (2, 7):
        found = fitted(tmp_path, events, pieces).transform(other)
        for name in expected.columns:
            if name == "weight":  # stock Normalize adds up floats as they come
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
            else:
                np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    one.save(str(tmp_path / "saved"))
    again = nvtabular.Workflow.load(str(tmp_path / "saved")).transform(other)
    for name in expected.columns:
        np.testing.assert_array_equal(again[name], expected[name], err_msg=name)


@pytest.mark.filterwarnings("ignore")
def test_schemas_of_the_operators(tmp_path):
    schema = fitted(tmp_path, frame(), 1).output_schema
    numbers = ("price_next_to_brand", "brand_frequency", "kind_frequency", "since_previous", "age", "weight")
    for name in numbers:
        assert schema[name].dtype.is_float, name
        assert set(schema[name].tags) == {Tags.CONTINUOUS}, name
        assert "domain" not in schema[name].properties, name
    for name, size in (("brand_hash", 23), ("sku_hash", 23), ("kind", 6)):
        assert schema[name].dtype.is_integer
        assert set(schema[name].tags) == {Tags.CATEGORICAL}
        assert schema[name].int_domain.max == size - 1
        assert schema[name].properties["embedding_sizes"] == {"cardinality": size, "dimension": 16}


def test_the_models_contract(make, tmp_path):
    pq.write_table(pa.table({"sku": ["tea", "mug"], "kind": ["a", "b"], "weight": [1, 3]}), tmp_path / "p.parquet")
    features = {
        "item": {"categorical": ["kind"], "continuous": ["weight"]},
        "time": ["since_previous"],
        "relative": [{"column": "price", "to": "kind"}],
        "frequency": ["sku"],
        "joins": [JOIN | {"columns": ["kind", "weight"]}],
    }
    preprocess(make(features=features), tmp_path / "features")
    schema = schema_of(load_workflow(tmp_path / "features"))
    numbers = {"weight", "price_relative_to_kind", "sku_frequency", "since_previous"}
    assert set(schema.select_by_tag(Tags.CONTINUOUS).column_names) == numbers
    assert set(schema.select_by_tag(Tags.CATEGORICAL).column_names) - {"session_id"} == {"item_id", "kind"}
    assert schema["kind"].properties["reserved_ids"] == 3
    for name in numbers:
        assert (schema[name].dtype.name, schema[name].is_list) == ("float32", True)
        assert "reserved_ids" not in schema[name].properties


def test_a_plain_column_that_is_also_counted_is_encoded_once(make):
    features = {
        "item": {"categorical": ["brand"]},
        "frequency": ["brand"],
        "relative": [{"column": "price", "to": "brand"}],
    }
    workflow = build(make(features=features))
    from preprocessing.engine import postorder_iter_nodes

    found = {id(node) for node in postorder_iter_nodes(workflow.output_node) if isinstance(node.op, operators.Encode)}
    assert len(found) == 2, "the item's and the brand's"
    assert len(ROWS) == 12
