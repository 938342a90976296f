"""The sessions of a catalogue of any size: a shop's log in which every item of the training window is known.

Sessions of 2 to some 40 events, a minute apart from each other. Each item is bought once at least in the training
window, the others as popularity has it. The last tenth of the training sessions' number comes on top for validation
and for testing; requests are test sessions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.server import MAX_LENGTH
from preprocessing.settings import Dataset

EVENTS = "events.parquet"
FIRST_MS, SESSION_MS, GAP_MS = 1_738_368_000_000, 60_000, 90_000  # from 2025-02-01
CATEGORIES, SESSION_EVENTS, FEWEST_SESSIONS = 500, 8, 2000


def make(folder: Path, items: int, seed: int = 0) -> Dataset:
    """Write the events of a catalogue.

    Parameters
    ----------
    folder : Path
        Gets ``events.parquet`` with ``session_id`` (int64), ``item_id`` and ``category`` (text), ``price`` (float64)
        and ``time`` (int64, milliseconds).
    items : int
        Items in the training window.
    seed : int
        Of the random numbers.

    Returns
    -------
    Dataset
        Their description, for `preprocessing.preprocess`.
    """
    rng = np.random.default_rng(seed)
    train = max(FEWEST_SESSIONS, round(1.25 * items / SESSION_EVENTS))
    held_out = max(FEWEST_SESSIONS // 2, train // 10)
    lengths = 2 + rng.geometric(1 / (SESSION_EVENTS - 1), size=train + 2 * held_out) - 1
    while lengths[:train].sum() < items:
        lengths[:train] += 1
    session = np.repeat(np.arange(len(lengths)), lengths)
    # Zipf's law by its inverse: item r of the most popular is drawn about as often as 1/r.
    drawn = np.exp(rng.random(len(session)) * np.log(items)).astype(np.int64) % items
    learned = int(lengths[:train].sum())
    drawn[rng.permutation(learned)[:items]] = np.arange(items)
    begins = np.cumsum(lengths) - lengths
    elapsed = np.cumsum(1 + rng.exponential(GAP_MS, size=len(session)).astype(np.int64))
    time = FIRST_MS + session * SESSION_MS + elapsed - elapsed[begins][session]
    categories = pa.array([f"category-{number:03d}" for number in range(CATEGORIES)])
    of_item, prices = rng.integers(CATEGORIES, size=items), np.round(rng.lognormal(3.0, 1.0, size=items), 2)
    columns = {
        "session_id": session * 7919 + 1_000_003,
        "item_id": pa.array([f"sku-{number:08d}" for number in range(items)]).take(pa.array(drawn)),
        "category": categories.take(pa.array(of_item[drawn])),
        "price": prices[drawn],
        "time": time,
    }
    table = pa.table(columns).take(pa.array(np.argsort(time, kind="stable")))
    pq.write_table(table, folder / EVENTS, compression="zstd", store_schema=False)
    return describe(folder, train, held_out)


def describe(folder: Path, train: int, held_out: int) -> Dataset:
    """The description of the events: windows by the sessions' starts, so that anybody can find the training events."""
    starts = [FIRST_MS + number * SESSION_MS for number in (train, train + held_out)]
    valid, test = (datetime.fromtimestamp(start / 1000, UTC).isoformat() for start in starts)
    settings: dict[str, Any] = {
        "name": "serving-benchmark",
        "data_root": folder,
        "events": {
            "files": EVENTS,
            "session": "session_id",
            "item": "item_id",
            "time": {"column": "time", "unit": "ms"},
        },
        "features": {
            "item": {"categorical": ["category"], "continuous": [{"column": "price", "log": True}]},
            "time": ["hour"],
        },
        "sessions": {"max_length": MAX_LENGTH},
        "split": {"valid_from": valid, "test_from": test},
    }
    return Dataset.model_validate(settings)


def training_events(folder: Path, dataset: Dataset) -> pa.Table:
    """The events of sessions that start in the training window."""
    events = pq.read_table(folder / EVENTS)
    assert dataset.split.valid_from is not None
    first = int(dataset.split.valid_from.timestamp() * 1000)
    # Sessions are numbered in the order in which they start, a minute apart.
    train = (first - FIRST_MS) // SESSION_MS
    return events.filter(pa.array((events.column("session_id").to_numpy() - 1_000_003) // 7919 < train))
