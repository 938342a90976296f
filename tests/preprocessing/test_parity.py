"""Encode and Group against Categorify, Groupby and ListSlice on generated events: see `parity` for what is compared."""

import numpy as np
import pandas as pd
import pytest

from .parity import (
    AGGREGATES,
    Ours,
    Stock,
    answer,
    as_arrow,
    as_categories,
    as_objects,
    assert_parity,
    generated,
    plain,
)


@pytest.mark.parametrize("form", [as_objects, as_arrow, as_categories])
@pytest.mark.parametrize("seed", range(4))
def test_codes(tmp_path, seed, form):
    """Null, unknown, rare and known values; text, whole numbers, fractions, numbers with gaps, booleans."""
    df, later = generated(seed), generated(seed + 100)
    names = ["item", "brand", "number", "count", "price", "visit"]
    for min_count in (0, 3):
        assert_parity(
            tmp_path / str(min_count),
            lambda tools, least=min_count: names >> tools.encode(least),
            df,
            later,
            partitions=1 + seed % 4,
            encoded=zip(names, names, strict=True),
            form=form,
        )


@pytest.mark.parametrize("seed", range(4))
def test_codes_of_lists(tmp_path, seed):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame({"item": [[f"i{x}" for x in rng.zipf(1.4, rng.integers(1, 5)) % 20] for _ in range(60)]})
    assert_parity(
        tmp_path, lambda tools: ["item"] >> tools.encode(2), df, df.iloc[20:40], partitions=3, encoded={"item": "item"}
    )


@pytest.mark.parametrize("seed", range(4))
def test_at_most_so_many_codes(tmp_path, seed):
    """Which of equally frequent values falls out is left to each; how often each code is there is not."""
    df = generated(seed, n=150)[["item", "number"]]
    tools = Stock(tmp_path), Ours()
    counted = []
    for each in tools:
        _, (train, _) = answer(each, lambda tools: ["item", "number"] >> tools.encode(max_size=5), df, df, 3, [])
        counted.append([[(train[name] == code).sum() for code in range(9)] for name in ("item", "number")])
    assert counted[0] == counted[1]
    assert all(sum(counts) == 150 and counts[2] > 0 for counts in counted[0])


@pytest.mark.parametrize("form", [as_objects, as_arrow])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", [{}, {"max_length": 2}, {"ascending": False}, {"ascending": False, "max_length": 3}])
def test_groups(tmp_path, seed, form, how):
    """Groups that cross partitions, of one event and of many; every aggregate of every kind of column."""
    df = generated(seed)
    names = ["visit", *AGGREGATES]
    assert_parity(
        tmp_path,
        lambda tools: tools.group(names, names, groupby_cols="visit", sort_cols="when", aggs=AGGREGATES, **how),
        df,
        partitions=1 + seed % 3,
        keys=["visit"],
        form=form,
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ascending", [True, False])
def test_several_group_keys_and_sort_keys(tmp_path, seed, ascending):
    df = generated(seed).assign(place=lambda df: df["when"] // 7)
    # One missing sort key at most: several of them would be a tie.
    df["late"] = df["when"].where(df["when"] != 3).astype(float)
    names = ["visit", "group", "place", "late", "item", "number"]
    aggs = {"item": ["list", "first"], "number": ["list", "last", "sum"], "place": "list"}
    assert_parity(
        tmp_path,
        lambda tools: tools.group(
            names,
            names,
            max_length=4 if seed % 2 else None,
            groupby_cols=["visit", "group"],
            sort_cols=["place", "late"],
            aggs=aggs,
            ascending=ascending,
        ),
        df,
        partitions=1 + seed % 3,
        keys=["visit"],
        form=as_arrow if seed % 2 else as_objects,
    )


@pytest.mark.parametrize("text", [True, False])
def test_sort_by_text(tmp_path, text):
    df = generated(1, n=80).drop_duplicates(["visit", "item"])
    names = ["visit", "item", "number"]
    assert_parity(
        tmp_path,
        lambda tools: tools.group(names, names, groupby_cols="visit", sort_cols="item", aggs={"number": "list"}),
        df,
        form=as_arrow if text else as_objects,
    )


def test_no_sort_key_keeps_the_order_of_the_rows(tmp_path):
    df = generated(5)
    names = ["visit", "number", "item"]
    assert_parity(
        tmp_path, lambda tools: tools.group(names, names, groupby_cols="visit", aggs="list", max_length=3), df
    )


@pytest.mark.parametrize("aggs", ["list", ["first", "count"], {"number": "sum"}])
def test_forms_of_the_aggregates(tmp_path, aggs):
    df = generated(2)
    names = ["visit", "when", "number", "item"]
    assert_parity(
        tmp_path, lambda tools: tools.group(names, names, groupby_cols=["visit"], sort_cols=["when"], aggs=aggs), df
    )


@pytest.mark.parametrize("seed", range(6))
def test_events_with_equal_sort_keys_are_all_there(tmp_path, seed):
    df = generated(seed).assign(when=lambda df: df["when"] % 3)
    names = ["visit", "when", "number"]
    how = {"groupby_cols": "visit", "sort_cols": "when", "aggs": {"number": "list", "when": "list"}}
    answers = [
        answer(tools, lambda t: t.group(names, names, **how), df, df, 1, [])[1][0]
        for tools in (Stock(tmp_path), Ours())
    ]
    pairs = [
        [
            sorted(zip(plain(a), plain(b), strict=True))
            for a, b in zip(each["when_list"], each["number_list"], strict=True)
        ]
        for each in answers
    ]
    assert pairs[0] == pairs[1]
    # Ours keeps the order of the rows.
    kept = df.sort_values("when", kind="stable").groupby("visit")["number"].apply(list)
    assert [plain(value) for value in answers[1]["number_list"]] == kept.tolist()
