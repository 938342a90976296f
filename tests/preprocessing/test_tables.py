"""Columns that a table adds to the events."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from preprocessing.preprocess import preprocess
from preprocessing.tables import read_joins

NAN = float("nan")


def sessions(folder, window, column):
    read = pq.read_table(folder / window).to_pydict()
    return dict(zip(read["session_id"], read[column], strict=True))


def normalised(values, of):
    """Values by the mean and the sample deviation of others; missing ones at the mean."""
    of = np.array(of, dtype=np.float64)
    return [0.0 if value != value else (value - of.mean()) / of.std(ddof=1) for value in values]


PRODUCTS = {"sku": ["tea", "mug", "cup", "unsold"], "kind": ["drink", "dish", None, "?"], "weight": [1, 3, None, 9]}


def joined(tmp_path, make, products=PRODUCTS, name="products.parquet", join=None, **features):
    if isinstance(products, str):
        (tmp_path / name).write_text(products)
    else:
        pq.write_table(pa.table(products), tmp_path / name)
    join = {"files": name, "on": "sku", "columns": ["kind", "weight"]} | (join or {})
    item = {"categorical": ["kind"], "continuous": ["weight"]}
    return make(features={"item": item, "joins": [join]} | features)


CSV = "kind,sku,weight\ndrink,tea,1\ndish,mug,3\n,cup,NA\n?,unsold,9\n"


@pytest.mark.parametrize(("products", "name"), [(PRODUCTS, "products.parquet"), (CSV, "products.csv")])
def test_columns_of_a_table(make, tmp_path, products, name):
    dataset = joined(tmp_path, make, products, name, frequency=["kind"], relative=[{"column": "price", "to": "kind"}])
    preprocess(dataset, tmp_path / "features")
    # drink is seen four times in training, dish twice; cup's kind is missing, and new is in no table.
    assert sessions(tmp_path / "features", "train", "kind") == {"a": [3, 4], "b": [4, 3, 3], "c": [3, 1]}
    assert sessions(tmp_path / "features", "valid", "kind") == {"d": [3, 1]}
    of = [1, 3, 3, 1, 1, 1]
    weights = sessions(tmp_path / "features", "train", "weight")
    assert weights["c"] == pytest.approx(normalised([1, NAN], of), abs=1e-6)
    assert sessions(tmp_path / "features", "train", "kind_frequency")["c"][1] == 0, "missing: at the mean"
    request = json.loads((tmp_path / "features" / "request.json").read_text())
    assert [column["name"] for column in request["columns"]] == ["visit", "sku", "at", "price"]


def test_the_key_of_a_table_is_asked_for_even_if_it_is_no_feature(make, tmp_path):
    pq.write_table(pa.table({"brand": ["x", "y"], "country": ["NL", "DE"]}), tmp_path / "brands.parquet")
    join = {"files": "brands.parquet", "on": "brand", "columns": ["country"]}
    dataset = make(features={"item": {"categorical": ["country"]}, "joins": [join]})
    assert dataset.columns() == ["visit", "sku", "at", "brand"]
    preprocess(dataset, tmp_path / "features")
    assert sessions(tmp_path / "features", "train", "country") == {"a": [3, 4], "b": [4, 3, 3], "c": [1, 1]}


def test_only_columns_that_are_used_are_read(make, tmp_path):
    products = PRODUCTS | {"odd": [[1], [2], [3], [4]]}
    (found,) = read_joins(joined(tmp_path, make, products, join={"columns": ["kind", "weight", "odd"]}))
    assert found.table.column_names == ["sku", "kind", "weight"]


@pytest.mark.parametrize(
    ("products", "message"),
    [
        (PRODUCTS | {"sku": ["tea", "mug", "tea", "cup"]}, "products.parquet: .*'tea' is there 2 times"),
        (PRODUCTS | {"sku": ["tea", None, "mug", "cup"]}, "the key 'sku' is missing in 1 rows"),
        (PRODUCTS | {"sku": [1, 2, 3, 4]}, "the key 'sku' holds numbers where the events hold text"),
        (PRODUCTS | {"sku": [1.5, 2, 3, 4]}, "the key 'sku' is double: keys are whole numbers or text"),
        (PRODUCTS | {"weight": ["heavy", "", "", ""]}, "column 'weight' is string, but the features want numbers"),
        (PRODUCTS | {"kind": [[1], [2], [3], [4]]}, "column 'kind' is list.* features are numbers, booleans or text"),
        (PRODUCTS | {"weight": [1, 2**53 + 1, 2, 3]}, "whole numbers beyond 2\\^53"),
        ({"sku": ["tea"], "kind": ["drink"]}, "has no column 'weight'"),
        ({name: [] for name in PRODUCTS}, "there is no row"),
    ],
)
def test_unusable_tables_are_told(make, tmp_path, products, message):
    with pytest.raises(UserError, match=message):
        preprocess(joined(tmp_path, make, products), tmp_path / "features")


def test_a_column_that_both_have_is_refused(make, tmp_path):
    pq.write_table(pa.table({"sku": ["tea"], "brand": ["x"]}), tmp_path / "products.parquet")
    join = {"files": "products.parquet", "on": "sku", "columns": ["brand"]}
    dataset = make(features={"item": {"categorical": ["brand"]}, "joins": [join]})
    with pytest.raises(UserError, match=r"the events have a column 'brand' too \(.*events.parquet\)"):
        read_joins(dataset)
    with pytest.raises(UserError, match=r"no file matches 'none.csv' .* features.joins.files"):
        read_joins(joined(tmp_path, make, join={"files": "none.csv"}))
