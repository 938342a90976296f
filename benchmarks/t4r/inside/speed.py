"""Transformers4Rec's side of `benchmarks.training`: a plain loop over its model, which is faster than its Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers4rec.torch.utils.data_utils import MerlinDataLoader  # type: ignore[import-not-found]

from benchmarks.t4r.inside.model import build, read
from benchmarks.t4r.process import answering
from benchmarks.t4r.schema import schema_of
from benchmarks.training_.data import SCHEMA, SESSIONS, in_memory, item_feature
from benchmarks.training_.timing import Batch, endless, measure, memory


def _loader(file: Path, schema: Any, request: dict[str, Any]) -> Any:
    """Its own loader, without the torch DataLoader around it, as its ``Model.fit`` takes it."""
    loader = MerlinDataLoader.from_schema(
        schema,
        str(file),
        batch_size=request["batch_size"],
        max_sequence_length=request["length"],
        shuffle=True,
        drop_last=True,
    )
    return loader.dataset


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Measure one run."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder, length = Path(request["folder"]), request["length"]
    schema = read(json.loads((folder / SCHEMA).read_text(encoding="utf-8")))
    build(read(schema_of([item_feature(10)], length)), length, request)  # what is imported on first use
    imports = memory("VmRSS")
    model = build(schema, length, request)
    if request["mode"] == "raw":
        count = request["warm_up"] + request["steps"]
        batches = iter(in_memory(folder, request["items"], length, request["batch_size"], count))
    else:
        batches = endless(_loader(folder / SESSIONS, schema, request), lambda element: element[0])

    def loss(columns: Batch) -> tuple[Tensor, int]:
        found = model(columns, training=True)
        return found["loss"], len(found["labels"])

    return measure(model, loss, batches, request, imports)


if __name__ == "__main__":
    answering(run)
