"""A shop so small that every answer can be worked out by hand."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.settings import validate
from preprocessing.settings import Dataset

ROWS = [
    # visit, sku, at, brand, price -- three training sessions, then one each for valid and test
    ("a", "tea", "2024-01-01T10:00", "x", 1.0),
    ("b", "mug", "2024-01-01T10:01", "y", 3.0),
    ("a", "mug", "2024-01-01T10:02", "y", 3.0),
    ("b", "tea", "2024-01-01T10:03", "x", 1.0),
    ("b", "tea", "2024-01-01T10:04", "x", None),
    ("c", "tea", "2024-01-02T10:00", None, 1.0),
    ("c", "cup", "2024-01-02T10:01", "", 5.0),
    ("lonely", "tea", "2024-01-02T11:00", "x", 1.0),
    ("d", "tea", "2024-01-03T10:00", "x", 1.0),
    ("d", "new", "2024-01-03T10:01", "z", 2.0),
    ("e", "cup", "2024-01-04T10:00", "y", 5.0),
    ("e", "mug", "2024-01-04T10:01", "y", 3.0),
]
NAMES = ("visit", "sku", "at", "brand", "price")


def table(rows=ROWS, names=NAMES):
    return pa.table({name: [row[position] for row in rows] for position, name in enumerate(names)})


@pytest.fixture
def make(tmp_path):
    """Write events (a table, or bytes as they are) and describe them: ``make(table, **settings)``."""

    def build(raw=None, name="events.parquet", **settings):
        path = tmp_path / name
        if isinstance(raw, bytes):
            path.write_bytes(raw)
        else:
            pq.write_table(raw if raw is not None else table(), path)
        content = {
            "name": "tiny",
            "data_root": str(tmp_path),
            "events": {"files": name, "session": "visit", "item": "sku", "time": "at"},
            "features": {"item": {"categorical": ["brand"], "continuous": ["price"]}},
            "split": {"valid_from": "2024-01-03", "test_from": "2024-01-04"},
        }
        return validate(content | settings, Dataset, "tiny.yaml")

    return build
