"""Our side of `benchmarks.training`, in a process of its own; see `benchmarks.t4r.process.ask`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.t4r.process import answering
from benchmarks.training_.data import SCHEMA, SESSIONS, in_memory, item_feature
from benchmarks.training_.timing import Batch, endless, measure, memory
from modeling.construction import build_model
from modeling.loading import SessionStream
from modeling.losses.sampled import SampledLoss
from modeling.model import Model
from modeling.schema import Feature, features_of, read_schema
from modeling.settings import ModelSettings


def _build(features: list[Feature], request: dict[str, Any]) -> Model:
    names = ("architecture", "masking", "loss", "d_model", "n_layer", "n_head", "dropout")
    # What Transformers4Rec masks: each event with 15%, and one more.
    masked: dict[str, Any] = {"mlm_probability": 0.15, "last_item_probability": 0.0}
    settings = ModelSettings(**{name: request[name] for name in names}, **masked, features="ids")
    model = build_model(features, request["length"], settings)
    objective = model.head.tasks[0].objective
    if isinstance(objective, SampledLoss):
        objective.n_samples = request["negatives"]
    return model


def _batches(request: dict[str, Any], features: list[Feature]) -> Iterator[Batch]:
    folder, size, length = Path(request["folder"]), request["batch_size"], request["length"]
    if request["mode"] == "raw":
        count = request["warm_up"] + request["steps"]
        return iter(in_memory(folder, request["items"], length, size, count))
    stream = SessionStream.of(folder / SESSIONS, features, batch_size=size, limit=length, drop_last=True)
    return endless(stream, lambda element: element[1])


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Measure one run."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = features_of(read_schema(Path(request["folder"]) / SCHEMA))
    _build([item_feature(10)], request)  # what is imported on first use
    imports = memory("VmRSS")
    model = _build(features, request)

    def loss(columns: Batch) -> tuple[Tensor, int]:
        found = model(columns, training=True)
        return found["loss"], found["targets"]

    return measure(model, loss, _batches(request, features), request, imports)


if __name__ == "__main__":
    answering(run)
