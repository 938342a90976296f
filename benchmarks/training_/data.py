"""Sessions of item ids that both sides train on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.t4r.schema import schema_of
from benchmarks.training_.timing import Batch
from modeling.data import read_file
from modeling.schema import Feature

SCHEMA, SESSIONS = "schema.json", "train.parquet"


def item_feature(items: int) -> Feature:
    """The only column: codes 1 to `items`, 0 pads."""
    return Feature("item_id", "categorical", items + 1, 1, True)


def make(folder: Path, items: int, sessions: int, shortest: int, length: int) -> None:
    """Write the parquet file and the schema, the same in every call.

    Items with low codes are frequent, as Zipf's law has it: log-uniform. Lengths are uniform.

    Parameters
    ----------
    folder : Path
        Where to; it exists.
    items, sessions : int
        How many.
    shortest, length : int
        Events of a session.
    """
    random = np.random.default_rng(0)
    n = random.integers(shortest, length + 1, sessions)
    drawn = np.exp(random.random(int(n.sum())) * np.log(items + 1)).astype(np.int64).clip(1, items)
    offsets = pa.array(np.r_[0, n.cumsum()].astype(np.int32))
    column = pa.ListArray.from_arrays(offsets, pa.array(drawn))
    pq.write_table(pa.table({"item_id": column}), folder / SESSIONS, row_group_size=50_000)
    (folder / SCHEMA).write_text(json.dumps(schema_of([item_feature(items)], length)), encoding="utf-8")


def in_memory(folder: Path, items: int, length: int, batch_size: int, count: int) -> list[Batch]:
    """Some padded batches in the order of the file, whole ones only; it begins anew where the file ends."""
    sessions = read_file(folder / SESSIONS, [item_feature(items)])
    whole = len(sessions) // batch_size
    order = torch.arange(len(sessions))
    return [
        sessions.padded(order[place * batch_size : (place + 1) * batch_size], length)
        for place in (number % whole for number in range(count))
    ]
