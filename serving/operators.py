"""merlin-systems operators of ours, and the runtime that exports them.

An ensemble is written as ever::

    columns >> TransformEvents(workflow, request) >> RankItems(model_folder)

`NextItemRuntime` turns it into a Triton model repository: a Python-backend entry model that runs the compiled
workflow in its own process, and a ranker that Triton batches across clients. merlin-systems' stock executor would
unpickle the workflow and run pandas for every request.

The entry is an executor that calls the ranker, not a Triton ``ensemble_scheduling`` block: there, inputs and outputs
share one name space, and raw events usually have the columns ``session_id`` and ``item_id`` that the answer has too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf import text_format

from preprocessing.engine import (
    ColumnSchema,
    ColumnSelector,
    Graph,
    Operator,
    Runtime,
    Schema,
    nvtabular,
    postorder_iter_nodes,
)
from serving import MODEL
from serving.compile import compile_workflow, save_program
from serving.runtime import EXECUTOR_SETTINGS, RANKER_SETTINGS, RANKER_WEIGHTS

_TYPES = {
    "BYTES": triton.TYPE_STRING,
    "INT64": triton.TYPE_INT64,
    "FP64": triton.TYPE_FP64,
    "BOOL": triton.TYPE_BOOL,
    "int64": triton.TYPE_INT64,
    "float32": triton.TYPE_FP32,
}
_MODEL = '''\
"""Written by nextitem; the code is in the installed package."""

from {} import TritonPythonModel  # noqa: F401
'''


class TransformEvents(Operator):
    """Raw event columns -> encoded sessions, by the compiled workflow.

    Parameters
    ----------
    workflow : nvtabular.Workflow
        Fitted; compiled here, so an operator without a counterpart is refused when the ensemble is put together.
    request : mapping
        The content of ``features/request.json``.
    """

    def __init__(self, workflow: nvtabular.Workflow, request: Mapping[str, Any]) -> None:
        super().__init__()
        self.output_schema: Schema = workflow.output_schema
        self.document, self.arrays = compile_workflow(workflow, request)

    def compute_output_schema(
        self, input_schema: Schema, col_selector: ColumnSelector, prev_output_schema: Schema | None = None
    ) -> Schema:
        """The sessions that the workflow makes."""
        return self.output_schema


class RankItems(Operator):
    """Encoded sessions -> the best items, by the TorchScript model.

    Parameters
    ----------
    model : Path
        The ``model/`` folder.
    settings : mapping
        ``inputs``, ``top_k`` and ``threads`` for the ranker.
    max_batch_size, instances : int
        Sessions that Triton may put into one pass, and processes that it starts.
    """

    def __init__(self, model: Path, settings: Mapping[str, Any], max_batch_size: int, instances: int) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        self.max_batch_size, self.instances = max_batch_size, instances

    def compute_output_schema(
        self, input_schema: Schema, col_selector: ColumnSelector, prev_output_schema: Schema | None = None
    ) -> Schema:
        """What a client receives: see the README's contract."""
        names = ("session_id", "item_id", "score", "unknown_events")
        return Schema([ColumnSchema(name) for name in names])

    def export(self, folder: Path, name: str, version: int) -> triton.ModelConfig:
        """Write the ranker as a Triton model and return its configuration."""
        target = folder / name / str(version)
        target.mkdir(parents=True)
        shutil.copy2(self.model / RANKER_WEIGHTS, target / RANKER_WEIGHTS)
        (target / RANKER_SETTINGS).write_text(json.dumps(self.settings, indent=1) + "\n", encoding="utf-8")
        (target / "model.py").write_text(_MODEL.format("serving.runtime.ranker"), encoding="utf-8")
        config = triton.ModelConfig(name=name, backend="python", max_batch_size=self.max_batch_size)
        for column in self.settings["inputs"]:
            # Clients' sessions differ in length; the ranker pads them to each other.
            config.input.append(
                triton.ModelInput(
                    name=column["name"], data_type=_TYPES[column["dtype"]], dims=[-1], allow_ragged_batch=True
                )
            )
        config.output.append(triton.ModelOutput(name="ids", data_type=triton.TYPE_INT64, dims=[-1]))
        config.output.append(triton.ModelOutput(name="scores", data_type=triton.TYPE_FP32, dims=[-1]))
        config.dynamic_batching.max_queue_delay_microseconds = 0
        _instances(config, self.instances)
        _write(config, folder)
        return config


class NextItemRuntime(Runtime):
    """Exports an ensemble of `TransformEvents` and `RankItems`.

    Parameters
    ----------
    instances : int
        Processes of the entry model: as many requests are prepared at a time.
    """

    def __init__(self, instances: int = 2) -> None:
        super().__init__()
        self.instances = instances

    def export(
        self, ensemble: Any, path: str, version: int = 1, name: str = MODEL
    ) -> tuple[triton.ModelConfig, list[triton.ModelConfig]]:
        """Write the model repository; returns the configuration of the entry and those of its steps."""
        folder, graph = Path(path), ensemble.graph
        transform, rank = _steps(graph)
        ranker = rank.export(folder, f"{name}_ranker", version)
        target = folder / name / str(version)
        program = save_program(transform.document, transform.arrays, target)
        settings = {"ranker": ranker.name, "max_batch_size": rank.max_batch_size}
        (target / EXECUTOR_SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        (target / "model.py").write_text(_MODEL.format("serving.runtime.executor"), encoding="utf-8")
        config = triton.ModelConfig(name=name, backend="python", max_batch_size=0)
        types = {column.role: _TYPES[column.type] for column in program.columns}
        for column in program.columns:
            config.input.append(triton.ModelInput(name=column.name, data_type=_TYPES[column.type], dims=[-1]))
        for output, kind, dims in (
            ("session_id", types["session"], [-1]),
            ("item_id", types["item"], [-1, -1]),
            ("score", triton.TYPE_FP32, [-1, -1]),
            ("unknown_events", triton.TYPE_INT64, [-1]),
        ):
            config.output.append(triton.ModelOutput(name=output, data_type=kind, dims=dims))
        _instances(config, self.instances)
        _write(config, folder)
        return config, [ranker]


def _steps(graph: Graph) -> tuple[TransformEvents, RankItems]:
    found = [node.op for node in postorder_iter_nodes(graph.output_node)]
    transform = [op for op in found if isinstance(op, TransformEvents)]
    rank = [op for op in found if isinstance(op, RankItems)]
    if len(transform) != 1 or len(rank) != 1:
        raise ValueError("the ensemble must be TransformEvents >> RankItems")
    return transform[0], rank[0]


def _instances(config: triton.ModelConfig, count: int) -> None:
    config.instance_group.append(triton.ModelInstanceGroup(count=count, kind=triton.ModelInstanceGroup.KIND_CPU))


def _write(config: triton.ModelConfig, folder: Path) -> None:
    text = text_format.MessageToString(config)
    (folder / config.name / "config.pbtxt").write_text(text, encoding="utf-8")
