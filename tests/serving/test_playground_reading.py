"""Where the playground's items are from: event files as they are, or the sample beside the features."""

from __future__ import annotations

from pathlib import Path

import pytest

import nextitem
from common.errors import UserError
from serving.playground.catalogue import Click
from serving.playground.reading import read_catalogue

YAML = """\
name: small
data_root: .
events:
  {files: "clicks*.csv", session: visit, item: sku, time: {column: at, unit: s}, order: n,
   where: {kind: {one_of: [go]}}}
features:
  item: {categorical: [brand], continuous: [price]}
  event: {categorical: [device]}
"""
HEADER = "visit,sku,at,n,kind,brand,price,device\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty visits of three events: 007 and 008, of which the price rises, and an item of the visit's own."""
    folder = tmp_path_factory.mktemp("small")
    rows = []
    for visit in range(40):
        begin = 1000 * visit
        rows += [
            f"{visit},007,{begin},1,go,acme,{visit},phone",
            f"{visit},008,{begin},2,go,,{visit}.5,{'phone' if visit % 4 else 'desk'}",
            f"{visit},x{visit % 7},{begin + 5},3,go,other,1,phone",
            f"{visit},bot,{begin + 6},4,stop,acme,1,phone",
        ]
    rows.append("39,007,39007,5,go,acme,,phone")
    # The second file holds the earlier half: what is latest is a matter of time, not of files.
    (folder / "clicks-1.csv").write_text(HEADER + "\n".join(rows[80:]) + "\n")
    (folder / "clicks-2.csv").write_text(HEADER + "\n".join(rows[:80]) + "\n")
    (folder / "shop.yaml").write_text(YAML)
    nextitem.preprocess(folder / "shop.yaml", folder / "features")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_items_of_the_event_files(shop: Path) -> None:
    items, source = read_catalogue(shop / "features")
    assert source == "2 event files"
    assert items.ids == ["007", "008", "x0", "x1", "x2", "x3", "x4", "x5", "x6"], "most events first, then by id"
    assert items.describe("007") == {"brand": "acme", "price": ""}, "of its latest event, in which the price is missing"
    assert items.describe("008") == {"brand": "", "price": "39.5"}
    assert items.choices == {"device": ["phone", "desk"]}
    assert items.kind == "brand"
    assert items.columns([Click("008"), Click("007", 60, {"device": "desk"})]) == {
        "visit": [1, 1],
        "sku": ["008", "007"],
        "at": [39007, 39067],
        "n": [1, 2],
        "brand": [None, "acme"],
        "price": [39.5, None],
        "device": ["phone", "desk"],
    }


def test_items_of_the_sample_where_the_events_are_elsewhere(shop: Path, tmp_path: Path) -> None:
    (shop / "features").rename(tmp_path / "moved")
    try:
        items, source = read_catalogue(tmp_path / "moved")
        assert source == "moved/sample.parquet"
        assert {"007", "008"} <= set(items.ids)
        assert "bot" not in items.ids
        for session in items.sessions:
            assert [click.item for click in session[:2]] == ["007", "008"], "at the same time, by their order"
            assert [click.after for click in session[:3]] == [0, 0, 5]
        again, source = read_catalogue(tmp_path / "moved", f"{shop}/clicks-2.csv")
        assert source == f"{shop}/clicks-2.csv"
        assert again.describe("008")["price"] == "19.5"
    finally:
        (tmp_path / "moved").rename(shop / "features")


def test_files_that_do_not_fit(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file matches 'none\.csv'"):
        read_catalogue(shop / "features", "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="has no column 'visit'"):
        read_catalogue(shop / "features", "other.csv")
    (tmp_path / "empty.csv").write_text(HEADER + "1,bot,5,1,stop,acme,1,phone\n")
    with pytest.raises(UserError, match="holds no event that can be used: name others with --events"):
        read_catalogue(shop / "features", "empty.csv")
    with pytest.raises(UserError, match="run 'nextitem preprocess' first"):
        read_catalogue(tmp_path)
