"""Parquet to flat arrays to padded batches."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from common.errors import UserError
from modeling.data import Sessions, read_sessions
from modeling.schema import Feature

ITEM = Feature("item_id", "categorical", 10, 3, True)
PRICE = Feature("price", "continuous")


def write(folder: Path, name: str = "part-0.parquet", **columns: pa.Array) -> Path:
    (folder / "train").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "train" / name)
    return folder


def lists(kind: pa.DataType, *rows: list[float] | None) -> pa.Array:
    return pa.array(rows, pa.list_(kind))


def test_files_are_read_one_behind_another(tmp_path: Path) -> None:
    write(tmp_path, "b.parquet", item_id=lists(pa.int64(), [6]), price=lists(pa.float32(), [0.6]))
    write(
        tmp_path, "a.parquet", session_id=pa.array(["x", "y"]),
        item_id=lists(pa.int64(), [3, 4, 5], [7, 8]), price=lists(pa.float64(), [0.3, None, 0.5], [0.7, 0.8]),
    )  # fmt: skip
    sessions = read_sessions(tmp_path, "train", [ITEM, PRICE])
    assert sessions.offsets.tolist() == [0, 3, 5, 6]
    assert sessions.values["item_id"].tolist() == [3, 4, 5, 7, 8, 6]
    assert sessions.values["item_id"].dtype == torch.int64
    assert sessions.values["price"].dtype == torch.float32
    assert sessions.values["price"].isnan().tolist() == [False, True, False, False, False, False]
    assert len(sessions) == 3


def test_padding_is_on_the_right_and_the_most_recent_events_stay() -> None:
    sessions = Sessions({"item_id": torch.tensor([3, 4, 5, 6, 7])}, torch.tensor([0, 4, 5]))
    both = torch.tensor([0, 1])
    assert sessions.padded(both, 9)["item_id"].tolist() == [[3, 4, 5, 6], [7, 0, 0, 0]]
    assert sessions.padded(both, 2)["item_id"].tolist() == [[5, 6], [7, 0]]
    # As wide as the longest of the batch.
    assert sessions.padded(torch.tensor([1]), 9)["item_id"].tolist() == [[7]]


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_hold_every_session_once(shuffle: bool) -> None:
    lengths = torch.randint(1, 9, (997,), generator=torch.Generator().manual_seed(0))
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    sessions = Sessions({"item_id": torch.arange(1, int(offsets[-1]) + 1)}, offsets)

    def run(seed: int) -> tuple[list[int], list[int]]:
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        order: list[int] = []
        events: list[int] = []
        for chosen, columns in sessions.batches(32, 20, generator):
            order += chosen.tolist()
            events += columns["item_id"][columns["item_id"] > 0].tolist()
            assert len(chosen) <= 32
        return order, events

    order, events = run(0)
    assert sorted(order) == list(range(997))
    assert sorted(events) == list(range(1, int(offsets[-1]) + 1))
    assert run(0)[0] == order
    assert (run(1)[0] != order) == shuffle


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": lists(pa.int64(), [3])}, "no column 'price'"),
        ({"item_id": lists(pa.int64(), [3]), "price": pa.array([1.0])}, "'price' of .* is double, not a list"),
        ({"item_id": lists(pa.int64(), [3, 4]), "price": lists(pa.float32(), [1])}, "row 0 is not as long"),
        ({"item_id": lists(pa.int64(), [3], None), "price": lists(pa.float32(), [1], [1])}, "empty rows"),
        ({"item_id": lists(pa.int64(), [None]), "price": lists(pa.float32(), [1])}, "empty values"),
        ({"item_id": lists(pa.int64(), [10]), "price": lists(pa.float32(), [1])}, "codes from 10 to 10.*1 to 9"),
        ({"item_id": lists(pa.int64(), [0]), "price": lists(pa.float32(), [1])}, "codes from 0 to 0"),
        ({"item_id": pa.array([["a"]]), "price": lists(pa.float32(), [1])}, "'item_id' of .* is not int64"),
        ({"item_id": lists(pa.int64()), "price": lists(pa.float32())}, "holds no sessions"),
    ],
)
def test_data_that_breaks_the_contract_is_told(columns: dict[str, pa.Array], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_sessions(write(tmp_path, **columns), "train", [ITEM, PRICE])


def test_files_that_are_no_parquet_are_told(tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="no parquet files"):
        read_sessions(tmp_path, "valid", [ITEM])
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "x.parquet").write_text("hello")
    with pytest.raises(UserError, match=r"x\.parquet cannot be read"):
        read_sessions(tmp_path, "valid", [ITEM])
