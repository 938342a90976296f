"""Run a graph with the operators of NVTabular and with ours, and compare all that comes out.

Compared are values, dtypes and schemas, but for

* codes of equally frequent values, which Categorify orders as its Dask group-by leaves them and Encode by value;
* the order of events with equal sort keys: Groupby's sort of one key is not stable, Group's is;
* lists: Groupby makes Python objects, Group Arrow lists (where NaN is null);
* the schema's notes of Categorify's files and arguments (``cat_path`` and so on), and Groupby's slip with columns whose
  name is part of the aggregate's: it takes "i-list" for no list;
* ``max_size``: Categorify counts its three reserved codes in, Encode does not.
"""

import warnings

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from preprocessing.engine import ColumnSelector, MerlinDataset, nvtabular, ops
from preprocessing.kernels import RESERVED
from preprocessing.operators import Encode, Group


class Stock:
    """The operators of NVTabular."""

    def __init__(self, folder):
        self.folder, self.made = str(folder), []

    def encode(self, min_count=0, max_size=0):
        size = max_size + RESERVED if max_size else 0
        self.made.append(ops.Categorify(freq_threshold=min_count, max_size=size, out_path=self.folder))
        return self.made[-1]

    def group(self, node, names, max_length=None, **how):
        """Groupby, then ListSlice of its lists."""
        grouped = node >> ops.Groupby(**how)
        if max_length is None:
            return grouped
        outputs = ops.Groupby(**how).column_mapping(ColumnSelector(names))
        lists = [name for name in outputs if name.endswith("_list")]
        part = ops.ListSlice(-max_length) if how.get("ascending", True) else ops.ListSlice(0, max_length)
        return grouped[[name for name in outputs if name not in lists]] + (grouped[lists] >> part)

    def values(self, name):
        """Known values in the order of their codes, and their counts."""
        found = pd.read_parquet(next(op.categories[name] for op in self.made if name in op.categories))
        assert found.index.tolist() == list(range(RESERVED, RESERVED + len(found)))
        return found[name].tolist(), found[f"{name}_size"].tolist()


class Ours:
    """The operators of this project."""

    def __init__(self):
        self.made = []

    def encode(self, min_count=0, max_size=0):
        self.made.append(Encode(min_count, max_size))
        return self.made[-1]

    def group(self, node, names, max_length=None, **how):
        return node >> Group(max_length=max_length, **how)

    def values(self, name):
        op = next(op for op in self.made if name in op.values)
        return op.values[name].to_pylist(), op.counts[name].tolist()


def as_objects(df):
    return df


def as_arrow(df):
    """Text as Arrow columns, as the pipeline has it."""
    text = [name for name in df.columns if df[name].dtype == object and not isinstance(df[name].iloc[0], list)]
    return df.assign(**{name: df[name].astype(pd.ArrowDtype(pa.string())) for name in text})


def as_categories(df):
    """Text as pandas categories, which Arrow calls dictionaries; Merlin's schema has no name for them."""
    return df.assign(**{name: df[name].astype("category") for name in df.columns if name in ("item", "brand")})


def dataset_of(df, partitions, keys):
    size = max(1, -(-len(df) // partitions))
    dataset = MerlinDataset(dd.from_pandas(df, chunksize=size, sort=False))
    return dataset.shuffle_by_keys(keys) if keys and partitions > 1 else dataset


def answer(tools, graph, df, later, partitions, keys, form=as_objects):
    """What a graph gives for the events that it is fitted on, and for later ones; and its workflow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, test = (
            # Both get the same partitions: the text takes its form behind the shuffle.
            MerlinDataset(
                dataset_of(part, partitions, keys)
                .to_ddf()
                .map_partitions(lambda df: form(df.reset_index(drop=True)), meta=form(part.iloc[:1]).iloc[:0])
            )
            for part in (df, later)
        )
        workflow = nvtabular.Workflow(graph(tools)).fit(train)
        return workflow, [workflow.transform(part).to_ddf().compute(scheduler="synchronous") for part in (train, test)]


def plain(value):
    if isinstance(value, list | np.ndarray):
        return [plain(entry) for entry in value]
    return None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value


def translation(stock, ours, name):
    """Categorify's code -> Encode's, after a look at the counts."""
    (values, counts), (known, seen) = stock.values(name), ours.values(name)
    assert counts == seen  # falling, code by code
    assert dict(zip(map(plain, values), counts, strict=True)) == dict(zip(known, seen, strict=True))
    place = {value: RESERVED + position for position, value in enumerate(known)}
    return {code: code for code in range(RESERVED)} | {
        RESERVED + position: place[plain(value)] for position, value in enumerate(values)
    }


def translated(value, codes):
    return [translated(entry, codes) for entry in value] if isinstance(value, list) else codes[value]


def assert_close(one, two, where):
    if isinstance(one, list):
        assert len(one) == len(two), where
        for left, right in zip(one, two, strict=True):
            assert_close(left, right, where)
    elif isinstance(one, float) and two is not None:
        assert one == pytest.approx(two, rel=2e-6, abs=1e-6), where
    else:
        assert one == two, where


def assert_parity(tmp_path, graph, df, later=None, partitions=1, keys=(), encoded=(), form=as_objects):
    """Values, dtypes and schema; `encoded`: output column -> the column whose codes it holds."""
    later = df if later is None else later
    stock, ours = Stock(tmp_path), Ours()
    expected, theirs = answer(stock, graph, df, later, partitions, list(keys))
    workflow, found = answer(ours, graph, df, later, partitions, list(keys), form)
    encoded = dict(encoded)
    for one, two in zip(theirs, found, strict=True):
        assert set(one.columns) == set(two.columns)
        for name in one.columns:
            left, right = ([plain(value) for value in frame[name]] for frame in (one, two))
            if name in encoded:
                codes = translation(stock, ours, encoded[name])
                left = [translated(value, codes) for value in left]
            assert_close(left, right, name)
            if two[name].dtype != object and not isinstance(two[name].dtype, pd.ArrowDtype | pd.CategoricalDtype):
                assert one[name].dtype == two[name].dtype, name
    assert_same_schema(expected.output_schema, workflow.output_schema)
    return workflow, found


def assert_same_schema(stock, ours):
    assert set(stock.column_names) == set(ours.column_names)
    for column in stock:
        other = ours[column.name]
        assert other.tags == column.tags, column.name
        assert (other.is_list, other.is_ragged) == (column.is_list, column.is_ragged), column.name
        for name in ("value_count", "domain", "embedding_sizes"):
            assert other.properties.get(name) == column.properties.get(name), (column.name, name)
        kinds = {kind.dtype.element_type.value for kind in (column, other)}
        # Merlin calls Python objects "object", and Arrow's text what it is.
        if kinds != {"object", "string"}:
            assert other.dtype.without_shape == column.dtype.without_shape, column.name


AGGREGATES = {
    "item": ["list", "first", "last", "count"],
    "brand": ["list", "first", "last", "count"],
    "colour": ["first", "min", "max"],  # Groupby's fail where text is missing
    "number": ["list", "first", "last", "count", "min", "max", "mean", "sum"],
    "price": ["list", "first", "last", "count", "min", "max", "mean", "sum"],
    "flag": ["list", "first", "sum", "mean", "min", "max"],
    "moment": ["list", "first", "last", "count", "min", "max"],
    "when": ["first", "last", "list"],
}


def generated(seed, n=None, nulls=0.15):
    """Events with gaps in every role, frequent and rare values, one-event groups and empty text."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 160)) if n is None else n

    def gaps(values, gap=None, share=nulls):
        return [gap if rng.random() < share else value for value in values]

    key = rng.zipf(1.3, n) % 30
    return pd.DataFrame(
        {
            "visit": gaps([f"v{k}" for k in key], share=0.05) if seed % 2 else np.where(key == 7, 2**40, -key),
            "group": gaps(rng.integers(0, 3, n).astype(float).tolist(), np.nan, 0.05),
            "when": rng.permutation(n),
            "item": gaps(gaps([f"i{x}" for x in rng.zipf(1.4, n) % 40]), ""),
            "brand": gaps(rng.choice(["x", "y", "Z", "ä"], n).tolist()),
            "colour": rng.choice(["red", "Blue", ""], n).astype(object),
            "number": rng.integers(-5, 9, n),
            "count": gaps((rng.zipf(1.5, n) % 9).astype(float).tolist(), np.nan),
            "price": gaps(np.round(rng.gamma(2, 5, n), 2).tolist(), np.nan),
            "flag": rng.random(n) < 0.5,
            "moment": gaps(pd.to_datetime(rng.integers(0, 2**40, n) * 10**6).tolist(), pd.NaT),
        }
    ).astype({"visit": object if seed % 2 else "int64"})
