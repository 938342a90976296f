"""Every engine of the preprocessing benchmark gives the answer that was worked out by hand."""

import importlib
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.engines import check

HOUR_MS = 3_600_000
E = math.e
# item -> category, price
SHOP = {10: ("b", 0.0), 20: ("a", E - 1), 30: (None, None), 99: ("b", -5.0)}
# 16 zeros and 16 ones in training: mean 1/2, sample variance 8/31.
LOW, HIGH = -math.sqrt(31 / 32), math.sqrt(31 / 32)


def _write(path, events):
    session, item, time = zip(*events, strict=True)
    category, price = zip(*(SHOP[one] for one in item), strict=True)
    columns = {
        "session_id": pa.array(session, pa.int64()),
        "item_id": pa.array(item, pa.int64()),
        "category": pa.array(category, pa.string()),
        "price": pa.array(price, pa.float64()),
        "time": pa.array(time, pa.timestamp("ms")),
    }
    pq.write_table(pa.table(columns), path, store_schema=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Session k starts at hour k with 10, in the first file, and 20 at the same moment, in the second."""
    folder = tmp_path_factory.mktemp("events")
    first = [(k, 10, k * HOUR_MS) for k in reversed(range(20))]
    second = [(k, 20, k * HOUR_MS) for k in range(20)]
    # 21 more events make session 0 too long; 99 is only in a session of one event and in the last of all.
    second += [(0, 30, 60_000 * minute) for minute in range(1, 22)]
    second += [(777, 99, 2 * HOUR_MS), (19, 99, 19 * HOUR_MS + 1)]
    _write(folder / "events-0000.parquet", first)
    _write(folder / "events-0001.parquet", second)
    return [folder / "events-0000.parquet", folder / "events-0001.parquet"]


def _circle(hours, events):
    return [[math.sin(math.pi * hours / 12)] * events, [math.cos(math.pi * hours / 12)] * events]


@pytest.mark.parametrize("name", ["polars", "duckdb", "pandas", "nextitem", "nvtabular"])
def test_engine(name, files, tmp_path):
    if name in ("polars", "duckdb"):
        pytest.importorskip(name)
    engine = importlib.import_module(f"benchmarks.engines.{name}")
    out = tmp_path / "out"
    engine.run(files, out)
    # 30 was seen 21 times in training, 10 and 20 both 16 times, in the order of their values.
    vocabulary = check.vocabulary(name, out)
    assert vocabulary["item_id"].column("value").to_pylist() == [30, 10, 20]
    assert vocabulary["item_id"].column("count").to_pylist() == [21, 16, 16]
    assert vocabulary["category"].column("value").to_pylist() == ["a", "b"]
    found = {}
    for window in ("train", "valid", "test"):
        for row in pq.read_table(out / window).to_pylist():
            found[row.pop("session_id")] = (window, row)
    windows = {"train": range(16), "valid": (16, 17), "test": (18, 19)}
    assert {key: window for key, (window, _) in found.items()} == {k: w for w, keys in windows.items() for k in keys}
    long = found[0][1]
    assert long["item_id"] == [3] * 20
    assert long["category"] == [1] * 20
    assert long["price"] == [0.0] * 20
    last = [np.sin(np.pi * minute / 720) for minute in range(2, 22)]
    np.testing.assert_allclose(long["hour_sin"], last, atol=1e-6)
    for key in range(1, 20):
        row = found[key][1]
        extra = key == 19
        assert row["item_id"] == [4, 5] + [2] * extra
        assert row["category"] == [4, 3] + [4] * extra
        np.testing.assert_allclose(row["price"], [LOW, HIGH] + [LOW] * extra, atol=1e-6)
        sine, cosine = _circle(key, 2 + extra)
        np.testing.assert_allclose(row["hour_sin"], sine, atol=1e-6)
        np.testing.assert_allclose(row["hour_cos"], cosine, atol=1e-6)
