"""Whole graphs with stock operators around ours, on generated and on real events: see `parity` for what is compared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from merlin.schema import Tags

from preprocessing import frames
from preprocessing.engine import nvtabular, ops, postorder_iter_nodes
from preprocessing.operators import Encode
from preprocessing.preprocess import load_workflow
from preprocessing.windows import WINDOWS

from .helpers import run
from .parity import (
    Ours,
    Stock,
    answer,
    as_arrow,
    as_categories,
    as_objects,
    assert_close,
    assert_parity,
    assert_same_schema,
    generated,
    plain,
    translated,
    translation,
)

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real data of ../shared/data is not there")


def sessions_graph(tools):
    """Encode, normalise and group: the graph of a session-based model, with stock operators in between."""
    items = ["item"] >> tools.encode(2) >> ops.AddMetadata(tags=[Tags.ITEM_ID])
    brand = ["brand"] >> tools.encode() >> ops.Rename(postfix="_code")
    price = ["price"] >> ops.FillMissing(fill_val=1) >> ops.LogOp() >> ops.Normalize(out_dtype=np.float32)
    level = ["number"] >> ops.LambdaOp(lambda column: column.astype("float64") + 6) >> ops.Normalize()
    names = ["visit", "when", "item", "brand_code", "price", "number"]
    aggs = dict.fromkeys(names[2:], "list") | {"item": ["list", "count"], "when": ["first", "last"]}
    return tools.group(
        items + brand + price + level + ["visit", "when"],
        names,
        max_length=4,
        groupby_cols=["visit"],
        sort_cols=["when"],
        aggs=aggs,
    )


SESSIONS = {"item_list": "item", "brand_code_list": "brand"}


@pytest.mark.parametrize("form", [as_objects, as_arrow, as_categories])
@pytest.mark.parametrize("seed", range(4))
def test_a_whole_graph(tmp_path, seed, form):
    workflow, _ = assert_parity(
        tmp_path,
        sessions_graph,
        generated(seed),
        generated(seed + 50),
        partitions=1 + seed % 4,
        keys=["visit"],
        encoded=SESSIONS,
        form=form,
    )
    item = workflow.output_schema["item_list"]
    assert {Tags.ITEM, Tags.ID, Tags.CATEGORICAL, Tags.LIST} == set(item.tags)


def test_a_whole_graph_saved_and_loaded(tmp_path):
    df = generated(3)
    workflow, (found, _) = assert_parity(tmp_path, sessions_graph, df, encoded=SESSIONS, form=as_arrow)
    workflow.save(str(tmp_path / "workflow"))
    loaded = nvtabular.Workflow.load(str(tmp_path / "workflow"))
    again = loaded.transform(as_arrow(df))
    for name in found.columns:
        assert [plain(value) for value in again[name]] == [plain(value) for value in found[name]]
    assert_same_schema(workflow.output_schema, loaded.output_schema)


def test_stock_operators_behind_ours(tmp_path):
    """Arrow lists go into ListSlice, Normalize, LogOp and Rename as lists of Python objects do."""

    def graph(tools):
        grouped = tools.group(
            (["item"] >> tools.encode()) + ["visit", "when", "price", "number"],
            ["visit", "when", "item", "price", "number"],
            groupby_cols=["visit"],
            sort_cols=["when"],
            aggs={"item": "list", "price": "list", "number": ["list", "sum"]},
        )
        items = grouped["item_list"] >> ops.ListSlice(1, 4) >> ops.Rename(name="items")
        price = grouped["price_list"] >> ops.Normalize()
        number = grouped["number_list"] >> ops.LambdaOp(lambda column: column) >> ops.ListSlice(-2, pad=True)
        return items + price + number + (grouped["number_sum"] >> ops.Clip(min_value=0) >> ops.LogOp())

    df = generated(4, nulls=0)
    assert_parity(tmp_path, graph, df, encoded={"items": "item"}, form=as_arrow)


def test_value_count_behind_ours(tmp_path):
    """ValueCount measures the lists that it gets."""

    def graph(tools):
        grouped = tools.group(
            ["visit", "when", "number"],
            ["visit", "when", "number"],
            groupby_cols=["visit"],
            sort_cols=["when"],
            aggs={"number": "list"},
            max_length=5,
        )
        return grouped["number_list"] >> ops.ValueCount()

    workflow, _ = assert_parity(tmp_path, graph, generated(8), form=as_arrow)
    assert workflow.output_schema["number_list"].properties["value_count"]["max"] == 5


@pytest.mark.parametrize("form", [as_objects, as_arrow])
def test_filters_before_ours(tmp_path, form):
    """Merlin hands Groupby's keys on unfiltered, so a filter and a grouping need a workflow each."""

    def graph(tools):
        kept = ["item", "brand", "number"] >> ops.Dropna() >> ops.Filter(f=lambda df: df[df["number"] > 0])
        return (kept[["item", "brand"]] >> tools.encode(2)) + kept["number"]

    encoded = {"item": "item", "brand": "brand"}
    assert_parity(tmp_path, graph, generated(7), generated(8), partitions=2, encoded=encoded, form=form)


@pytest.mark.parametrize("form", [as_objects, as_arrow])
def test_no_later_event(tmp_path, form):
    """An empty data frame; stock Categorify and Groupby have no answer to it."""

    def graph(tools):
        names = ["visit", "when", "item", "price"]
        events = (["item"] >> tools.encode()) + (["price"] >> ops.Normalize()) + ["visit", "when"]
        aggs = {"item": ["list", "first", "count"], "price": ["list", "mean", "max"]}
        return tools.group(events, names, groupby_cols=["visit"], sort_cols=["when"], aggs=aggs, max_length=3)

    df = generated(3, nulls=0)
    workflow, _ = answer(Ours(), graph, df, df, 1, [], form)
    result = workflow.transform(form(df).iloc[:0])
    assert len(result) == 0
    assert set(result.columns) == set(workflow.output_schema.column_names)


# The stage as a whole: stock operators on the events of its windows, brought together by key beforehand.


def assert_stage_parity(tmp_path, dataset, df, names, partition_events):
    """`names`: session, item, time, category and number; times differ inside a session."""
    session, item, time, brand, price = names
    report = run(dataset, tmp_path / "features", partition_events=partition_events)
    assert len(list((tmp_path / "features" / "train").iterdir())) > 1
    df = df[df.groupby(session)[item].transform("size") >= 2].reset_index(drop=True)
    start = df.groupby(session)[time].transform("min")
    bounds = [pd.Timestamp(report["windows"][window]["begins"]) for window in WINDOWS] + [pd.Timestamp.max]

    def graph(tools):
        number = [price] >> ops.Normalize(out_dtype=np.float32) >> ops.Clip(min_value=-10, max_value=10)
        number = number >> ops.FillMissing(fill_val=0)
        aggs = {item: "list", brand: "list", price: "list"}
        node = ([item, brand] >> tools.encode()) + number + [session, time]
        return tools.group(node, names, groupby_cols=[session], sort_cols=[time], aggs=aggs, max_length=5)

    stock, ours = Stock(tmp_path / "stock"), Ours()
    nodes = postorder_iter_nodes(load_workflow(tmp_path / "features").output_node)
    ours.made = [node.op for node in nodes if isinstance(node.op, Encode)]
    train = df[(start >= bounds[0]) & (start < bounds[1])].reset_index(drop=True)
    for window, begin, end in zip(WINDOWS, bounds[:-1], bounds[1:], strict=True):
        events = df[(start >= begin) & (start < end)].reset_index(drop=True)
        _, (_, expected) = answer(stock, graph, train, events, 1, [])
        found = {s["session_id"]: s for s in pq.read_table(tmp_path / "features" / window).to_pylist()}
        assert set(found) == set(expected[session])
        for _, row in expected.iterrows():
            mine = found[row[session]]
            assert_close(translated(row[f"{item}_list"], translation(stock, ours, item)), mine["item_id"], item)
            assert_close(translated(row[f"{brand}_list"], translation(stock, ours, brand)), mine[brand], brand)
            assert_close(plain(row[f"{price}_list"]), mine[price], price)


@pytest.mark.parametrize("seed", range(3))
def test_the_stage_on_generated_events(make, tmp_path, seed):
    df = generated(seed, n=400)[["visit", "item", "brand", "price"]].dropna(subset=["visit"])
    df = df.assign(
        item=df["item"].where(df["item"] != ""), at=pd.Timestamp("2024-01-01") + pd.to_timedelta(range(len(df)), "h")
    )
    df = df.dropna(subset=["item"]).sample(frac=1, random_state=seed).reset_index(drop=True)
    dataset = make(
        pa.Table.from_pandas(df, preserve_index=False),
        events={"files": "events.parquet", "session": "visit", "item": "item", "time": "at"},
        sessions={"max_length": 5},
        split={"valid": 0.2, "test": 0.2},
    )
    assert_stage_parity(tmp_path, dataset, df, ["visit", "item", "at", "brand", "price"], 60)


# Real events.


def first_rows(path, columns, sessions, n):
    """Whole sessions from about the first `n` events."""
    table = pq.read_table(path, columns=columns)
    known = table.slice(0, n).column(sessions).unique()
    return frames.from_table(table.filter(pc.is_in(table.column(sessions), known))).astype(
        {name: object for name in columns if pa.types.is_large_string(table.schema.field(name).type)}
    )


@real
@pytest.mark.parametrize("partitions", [1, 4])
def test_clicks_in_an_online_shop(tmp_path, partitions):
    names = ["session ID", "order", "page 2 (clothing model)", "page 1 (main category)", "colour", "country", "price"]
    df = first_rows(DATA / "eshop_clothing_2008/events.parquet", names, "session ID", 20_000)
    coded = names[2:6]

    def graph(tools):
        price = ["price"] >> ops.LambdaOp(lambda column: column.astype("float64")) >> ops.Normalize()
        events = ["session ID", "order"] + (coded >> tools.encode(3)) + price
        aggs = {name: ["list", "first", "last"] for name in coded} | {
            "price": ["list", "mean", "max"],
            "order": "count",
        }
        return tools.group(events, names, max_length=20, groupby_cols=["session ID"], sort_cols=["order"], aggs=aggs)

    encoded = {f"{name}_{agg}": name for name in coded for agg in ("list", "first", "last")}
    assert_parity(tmp_path, graph, df, partitions=partitions, keys=["session ID"], encoded=encoded)


@real
@pytest.mark.parametrize("partitions", [1, 3])
def test_invoices_of_a_wholesaler(tmp_path, partitions):
    """Text keys, missing customers, negative quantities; one time an invoice, so the row says the order."""
    names = ["InvoiceNo", "StockCode", "Description", "Quantity", "UnitPrice", "CustomerID", "Country"]
    df = first_rows(DATA / "online_retail/events.parquet", names, "InvoiceNo", 30_000).assign(
        row=lambda df: np.arange(len(df))
    )
    coded = ["StockCode", "Description", "CustomerID", "Country"]

    def graph(tools):
        price = ["UnitPrice"] >> ops.Clip(min_value=0) >> ops.LogOp() >> ops.Normalize()
        events = ["InvoiceNo", "row", "Quantity"] + (coded >> tools.encode(5)) + price
        aggs = {
            "StockCode": "list",
            "Description": "list",
            "CustomerID": "first",
            "Country": "last",
            "UnitPrice": "list",
        }
        aggs |= {"Quantity": ["sum", "min", "max", "mean"]}
        return tools.group(
            events, [*names, "row"], max_length=10, groupby_cols=["InvoiceNo"], sort_cols=["row"], aggs=aggs
        )

    encoded = {"StockCode_list": "StockCode", "Description_list": "Description"}
    encoded |= {"CustomerID_first": "CustomerID", "Country_last": "Country"}
    later = df.iloc[: len(df) // 4].assign(StockCode="never seen")
    assert_parity(tmp_path, graph, df, later, partitions=partitions, keys=["InvoiceNo"], encoded=encoded, form=as_arrow)


@real
def test_baskets_of_households(tmp_path):
    """Two keys, whole-number ids beyond 32 bits, several baskets a household."""
    names = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "retail_disc"]
    path = DATA / "complete_journey/events.parquet"
    df = first_rows(path, names, "household_id", 60).assign(row=lambda df: np.arange(len(df)))

    def graph(tools):
        events = ["household_id", "basket_id", "row"] + (["product_id"] >> tools.encode(2))
        events += ["sales_value", "retail_disc"] >> ops.Normalize()
        aggs = {"product_id": "list", "sales_value": ["list", "sum", "max"], "retail_disc": "mean", "row": "count"}
        return tools.group(
            events,
            [*names, "row"],
            max_length=15,
            groupby_cols=["household_id", "basket_id"],
            sort_cols=["row"],
            aggs=aggs,
        )

    keys = ["household_id"]
    assert_parity(tmp_path, graph, df, partitions=3, keys=keys, encoded={"product_id_list": "product_id"})


@real
def test_the_stage_on_invoices(make, tmp_path):
    """Customers as sessions: many events of equal times, so one a time is kept."""
    names = ["CustomerID", "StockCode", "InvoiceDate", "Country", "UnitPrice"]
    df = first_rows(DATA / "online_retail/events.parquet", names, "InvoiceDate", 30_000)
    df = df.dropna(subset=["CustomerID"]).drop_duplicates(["CustomerID", "InvoiceDate"]).reset_index(drop=True)
    df = df.astype({"CustomerID": "int64"})
    dataset = make(
        pa.Table.from_pandas(df, preserve_index=False),
        events={"files": "events.parquet", "session": "CustomerID", "item": "StockCode", "time": "InvoiceDate"},
        features={"event": {"categorical": ["Country"], "continuous": ["UnitPrice"]}},
        sessions={"max_length": 5},
        split={"valid": 0.1, "test": 0.1},
    )
    assert_stage_parity(tmp_path, dataset, df, names, 300)
