"""What each engine serves: a Triton repository with the entry ``nextitem``, made from the files of `build`."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.server import FEATURES, MANY, MODEL_FOLDER, STOCK_WORKFLOW, TOP_K
from serving import MODEL

_TYPES = {"BYTES": "STRING", "int64": "INT64", "float32": "FP32"}
_MODELS = Path(__file__).parent / "models"


def write(engine: str, folder: Path, repository: Path) -> None:
    """Write an engine's repository.

    Parameters
    ----------
    engine : str
        One of `benchmarks.server.ENGINES`.
    folder : Path
        What `benchmarks.server.build` made.
    repository : Path
        The folder to make.
    """
    {"nextitem": _nextitem, "stock": _stock, "model": _model, "noop": _noop}[engine](folder, repository)


def _nextitem(folder: Path, repository: Path) -> None:
    from serving.export import export
    from serving.settings import ServingSettings

    export(folder / FEATURES, folder / MODEL_FOLDER, repository, ServingSettings(top_k=TOP_K))


def _stock(folder: Path, repository: Path) -> None:
    from preprocessing.engine import nvtabular
    from serving.stock import export_stock

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = nvtabular.Workflow.load(str(folder / STOCK_WORKFLOW))
    export_stock(workflow, request_of(folder), folder / MODEL_FOLDER, repository, TOP_K)


def _model(folder: Path, repository: Path) -> None:
    inputs = model_inputs(folder)
    columns = [
        f'{{ name: "{name}" data_type: TYPE_{_TYPES[kind]} dims: [ -1 ] allow_ragged_batch: true }}'
        for name, kind in inputs.items()
    ]
    outputs = [
        '{ name: "scores" data_type: TYPE_FP32 dims: [ -1 ] }',
        '{ name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }',
    ]
    version = _entry(repository, "ranker.py", MANY, columns, outputs, "dynamic_batching { }\n")
    shutil.copy2(folder / MODEL_FOLDER / "model.pt", version)
    (version / "ranker.json").write_text(json.dumps({"inputs": inputs, "top_k": TOP_K}), encoding="utf-8")


def _noop(folder: Path, repository: Path) -> None:
    columns = [
        f'{{ name: "{column["name"]}" data_type: TYPE_{_TYPES.get(column["type"], column["type"])} dims: [ -1 ] }}'
        for column in request_of(folder)["columns"]
    ]
    outputs = [
        '{ name: "session_id" data_type: TYPE_INT64 dims: [ -1 ] }',
        '{ name: "item_id" data_type: TYPE_STRING dims: [ -1, -1 ] }',
    ]
    outputs += [
        '{ name: "score" data_type: TYPE_FP32 dims: [ -1, -1 ] }',
        '{ name: "unknown_events" data_type: TYPE_INT64 dims: [ -1 ] }',
    ]
    version = _entry(repository, "noop.py", 0, columns, outputs)
    items = pq.read_table(folder / FEATURES / "sample.parquet").column("item_id").unique().to_pylist()[:TOP_K]
    np.savez(
        version / "answers.npz",
        session_id=np.arange(MANY),
        item_id=np.tile(np.array([item.encode() for item in items]), (MANY, 1)),
        score=np.zeros((MANY, len(items)), dtype=np.float32),
        unknown_events=np.zeros(MANY, dtype=np.int64),
    )


def _entry(repository: Path, code: str, batch: int, inputs: list[str], outputs: list[str], more: str = "") -> Path:
    """Write the only model of a repository; returns the folder of its version."""
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    shutil.copy2(_MODELS / code, version / "model.py")
    config = (
        f'backend: "python"\nmax_batch_size: {batch}\ninput [ {", ".join(inputs)} ]\noutput [ {", ".join(outputs)} ]\n'
    )
    config += f"instance_group [ {{ count: 1 kind: KIND_CPU }} ]\n{more}"
    (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")
    return version


def request_of(folder: Path) -> dict[str, list[dict[str, str]]]:
    """How clients send events: ``request.json`` of the features."""
    return json.loads((folder / FEATURES / "request.json").read_text(encoding="utf-8"))


def model_inputs(folder: Path) -> dict[str, str]:
    """The model's columns and their types."""
    facts = json.loads((folder / MODEL_FOLDER / "model.json").read_text(encoding="utf-8"))
    return {column["name"]: column["dtype"] for column in facts["inputs"]}
