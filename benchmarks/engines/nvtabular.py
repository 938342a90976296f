"""The job in stock NVTabular 23.08 on a CPU: nothing but its own operators.

Windows, and partitions of whole sessions, which its Groupby asks for, are made with pandas beforehand. The workflow is
fitted on the training partitions and transforms each partition as a data frame.

This is faster than what NVTabular's examples show. There ids and truncated lists both follow from Groupby in one graph,
and NVTabular runs a node once for every node that uses it: Groupby twice. Written so, with one partition, a million
events took 34 s on two quiet cores; with the truncation in a workflow of its own 17 s; in partitions of 50,000 13 s.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.engines import (
    CODED,
    COLUMNS,
    DAY_MS,
    FEATURES,
    MAX_LENGTH,
    MIN_LENGTH,
    OUTLIER,
    SHARE,
    WINDOWS,
)
from preprocessing.engine import MerlinDataset, dd, nvtabular, ops

# Of 20,000 to 1,000,000 events the fastest: Groupby's lists are Python objects, and fewer of them stay in the cache.
PARTITION_EVENTS = 50_000
# Its Groupby makes Python lists, which have forgotten that they held single precision.
_SCHEMA = pa.schema(
    {
        "session_id": pa.int64(),
        **dict.fromkeys(CODED, pa.list_(pa.int64())),
        **dict.fromkeys(("price", "hour_sin", "hour_cos"), pa.list_(pa.float32())),
    }
)


def settings() -> str:
    """What it is, in a few words."""
    return f"nvtabular {nvtabular.__version__}, pandas {pd.__version__}, partitions of {PARTITION_EVENTS:,} events"


def run(files: list[Path], out: Path) -> None:
    """Do the job of `benchmarks.engines`."""
    warnings.simplefilter("ignore")
    events = pq.read_table(files, columns=list(COLUMNS)).to_pandas()
    events["time"] = events["time"].astype("int64")
    partitions = _partitions(events)
    del events
    with TemporaryDirectory() as scratch:
        workflow = _workflow(scratch)
        workflow.fit(MerlinDataset(dd.concat([dd.from_pandas(part, npartitions=1) for part in partitions["train"]])))
        slicing = _slicing(workflow)
        for window, parts in partitions.items():
            (out / window).mkdir(parents=True)
            for number, part in enumerate(parts):
                table = pa.Table.from_pandas(slicing.transform(workflow.transform(part)), _SCHEMA, preserve_index=False)
                path = out / window / f"part-{number:05d}.parquet"
                pq.write_table(table, path, compression="zstd", compression_level=1)
        (out / "vocabulary").mkdir()
        for name in CODED:
            found = pd.read_parquet(Path(scratch) / "categories" / f"unique.{name}.parquet")
            known = found.rename(columns={name: "value", f"{name}_size": "count"})
            known.to_parquet(out / "vocabulary" / f"{name}.parquet", index=False)


def _partitions(events: pd.DataFrame) -> dict[str, list[pd.DataFrame]]:
    session = events["session_id"]
    found = events.groupby("session_id", sort=False)["time"].agg(["size", "min"])
    found = found[found["size"] >= MIN_LENGTH]
    start = np.sort(found["min"].to_numpy())
    held_out = max(1, round(len(start) * SHARE))
    valid, test = start[len(start) - 2 * held_out], start[len(start) - held_out]
    partitions = {}
    for window, (begin, end) in zip(WINDOWS, ((start[0], valid), (valid, test), (test, None)), strict=True):
        chosen = found[(found["min"] >= begin) & (found["min"] < end if end is not None else True)].sort_values("min")
        number = session.map(chosen["size"].cumsum() // PARTITION_EVENTS)
        partitions[window] = [part.reset_index(drop=True) for _, part in events.groupby(number)]
    return partitions


def _workflow(scratch: str) -> nvtabular.Workflow:
    coded = list(CODED) >> ops.Categorify(out_path=scratch)
    price = ["price"] >> ops.Clip(min_value=0) >> ops.LogOp() >> ops.Normalize(out_dtype=np.float32)
    price = price >> ops.Clip(min_value=-OUTLIER, max_value=OUTLIER) >> ops.FillMissing(fill_val=0)
    nodes: Any = coded + price + ["session_id", "time"]
    for name, function in (("hour_sin", np.sin), ("hour_cos", np.cos)):
        nodes = nodes + (["time"] >> ops.LambdaOp(_Circle(function), dtype=np.float32) >> ops.Rename(name=name))
    sessions = nodes >> ops.Groupby(
        groupby_cols=["session_id"], sort_cols=["session_id", "time"], aggs=dict.fromkeys(FEATURES, "list")
    )
    return nvtabular.Workflow(sessions)


def _slicing(grouped: nvtabular.Workflow) -> nvtabular.Workflow:
    """Truncation, as a workflow of its own so that Groupby runs once."""
    lists = [f"{name}_list" for name in FEATURES] >> ops.ListSlice(-MAX_LENGTH) >> ops.Rename(f=_plain)
    return nvtabular.Workflow(lists + "session_id").fit_schema(grouped.output_schema)


def _plain(name: str) -> str:
    return name.removesuffix("_list")


class _Circle:
    """The hour of a time column as a coordinate of a point on a circle."""

    def __init__(self, function: np.ufunc) -> None:
        self.function = function

    def __call__(self, time: pd.Series) -> pd.Series:
        return self.function((time % DAY_MS) * (2 * np.pi / DAY_MS)).astype(np.float32)
