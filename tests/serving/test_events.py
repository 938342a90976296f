"""Reading the events of a request from files and from standard input."""

from __future__ import annotations

import io
import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from serving.events import read_events

TEXT = {"session_id": ["7", "7"], "item_id": ["007", "чай, ☕"], "price": ["1.5", None]}
TYPED = {"session_id": [7, 7], "item_id": ["007", "чай, ☕"], "price": [1.5, None]}
CSV = 'session_id,item_id,price\n7,007,1.5\n7,"чай, ☕",\n'
ROWS = '[{"session_id": 7, "item_id": "007", "price": 1.5}, {"session_id": 7, "item_id": "чай, ☕"}]'
COLUMNS = '{"session_id": [7, 7], "item_id": ["007", "чай, ☕"], "price": [1.5, null]}'
LINES = '{"session_id": 7, "item_id": "007", "price": 1.5}\n\n{"session_id": 7, "item_id": "чай, ☕"}\n'


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet_bytes(columns: dict[str, list]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


FILES = [
    ("e.csv", CSV, TEXT),
    ("e.CSV", "\ufeff" + CSV.replace("\n", "\r\n"), TEXT),
    ("semicolons.csv", 'session_id;item_id;price\n7;007;1.5\n7;"чай, ☕";\n', TEXT),
    ("tabs.csv", "session_id\titem_id\tprice\n7\t007\t1.5\n\n7\tчай, ☕\t\n", TEXT),
    ("e.json", ROWS, TYPED),
    ("columns.json", COLUMNS, TYPED),
    ("e.jsonl", LINES, TYPED),
    ("e.ndjson", LINES, TYPED),
    ("e.parquet", parquet_bytes(TYPED), TYPED),
]


@pytest.mark.parametrize(("name", "content", "expected"), FILES, ids=[name for name, _, _ in FILES])
def test_every_format_gives_the_same_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes, expected: dict[str, list]
) -> None:
    path = write(tmp_path, name, content)
    assert read_events(path) == expected
    with path.open("rb") as stream:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        assert read_events("-") == expected, "standard input is told by its first characters"


def test_the_format_may_be_given(tmp_path: Path) -> None:
    assert read_events(write(tmp_path, "events", ROWS), form="json") == TYPED
    with pytest.raises(UserError, match="events has no extension that says its format: use one of csv, json"):
        read_events(tmp_path / "events")
    with pytest.raises(UserError, match="format 'xml' is not known"):
        read_events(tmp_path / "events", form="xml")


def test_one_json_object_is_one_event(tmp_path: Path) -> None:
    assert read_events(write(tmp_path, "e.json", '{"session_id": 7, "item_id": "a"}')) == {
        "session_id": [7],
        "item_id": ["a"],
    }


def test_columns_keep_the_order_of_first_appearance_and_parquet_its_times(tmp_path: Path) -> None:
    assert list(read_events(write(tmp_path, "e.jsonl", '{"b": 1}\n{"a": 2, "b": 3}\n'))) == ["b", "a"]
    time = datetime(2024, 5, 1, 10, 30)
    path = write(tmp_path, "e.parquet", parquet_bytes({"time": [time]}))
    assert read_events(path) == {"time": [time]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", "", "{path} is empty: give at least one event"),
        ("e.csv", "a,b\n", "{path} holds no events: give at least one"),
        ("e.csv", "a,b\n1,2\n3\n", "{path}, line 3: 1 fields, but the header has 2"),
        ("e.csv", "a,a\n1,2\n", "{path}, line 1: every column needs a name of its own"),
        ("e.csv", 'a,b\n1,"2"3\n', "{path}, line 2: ',' expected after '\"'"),
        ("e.csv", b"a,b\n1,\xff\n", "{path}, line 2: is not UTF-8 text"),
        ("e.json", '[{"a": 1},\n]', "{path}, line 2: is not JSON ("),
        ("e.json", "[]", "{path} holds no events: give at least one"),
        ("e.json", "3", "{path}: give a list of events or an object of columns"),
        ("e.json", '[{"a": 1}, 2]', "{path}, row 2: is not an object of column names and values"),
        ("e.json", '[{"a": 1}, {"a": [2]}]', "{path}, row 2, column a: holds a list or an object"),
        ("e.json", '{"a": [1], "b": 2}', "{path}, column b: is not a list like the other columns"),
        ("e.json", '{"a": [1], "b": [2, 3]}', "{path}: column b has 2 values, column a has 1"),
        ("e.json", '{"a": [1, {}]}', "{path}, column a, row 2: holds a list or an object"),
        ("e.jsonl", '{"a": 1}\n\n{"a"\n', "{path}, line 3: is not JSON ("),
        ("e.jsonl", '{"a": 1}\n7\n', "{path}, line 2: is not an object of column names and values"),
        ("e.parquet", "a,b\n1,2\n", "{path} is not a readable parquet file ("),
        ("e.parquet", parquet_bytes({"a": []}), "{path} holds no events: give at least one"),
        ("e.parquet", parquet_bytes({"a": [[1]]}), "{path}, column a: holds list<element: int64>, but an event has"),
    ],
)
def test_bad_files_name_the_file_and_the_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UserError) as error:
        read_events(path)
    assert str(error.value).startswith(message.format(path=path))
    assert len(str(error.value)) < 300 + len(str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv cannot be read: No such file or directory"):
        read_events(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_events(tmp_path)
