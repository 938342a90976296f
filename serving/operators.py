"""merlin-systems operators of ours, and the runtime that exports them.

An ensemble is written as ever::

    columns >> TransformEvents(workflow, request) >> RankItems(model_folder)

`NextItemRuntime` turns it into one Triton model of the Python backend that runs the compiled workflow and the
TorchScript model in its own process, and batches the sessions of all clients. merlin-systems' stock executor would
unpickle the workflow and run pandas for every request.

It is not a Triton ``ensemble_scheduling`` block: there, inputs and outputs share one name space, and raw events usually
have the columns ``session_id`` and ``item_id`` that the answer has too; each hop between models costs half a request.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf import text_format

from common.artefacts import PYTHON_CACHE, sha256
from common.errors import UserError
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
from serving import MODEL, RANKER
from serving.compile import compile_workflow, save_program
from serving.libtorch import write_ranker
from serving.runtime import CHECKSUMS, SETTINGS, WEIGHTS
from serving.runtime.options import CANDIDATES, EXCLUDE_SEEN, EXCLUDED, OPTIONS, TOP_K
from serving.runtime.program import RequestProgram
from serving.settings import Backend, ServingSettings

_TYPES = {
    "BYTES": triton.TYPE_STRING,
    "INT64": triton.TYPE_INT64,
    "FP64": triton.TYPE_FP64,
    "BOOL": triton.TYPE_BOOL,
}
_MODEL = '''\
"""Written by nextitem; the code is in the installed package."""

from serving.runtime.executor import TritonPythonModel  # noqa: F401
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
    """

    def __init__(self, model: Path) -> None:
        super().__init__()
        self.model = model

    def compute_output_schema(
        self, input_schema: Schema, col_selector: ColumnSelector, prev_output_schema: Schema | None = None
    ) -> Schema:
        """What a client receives: see the README's contract."""
        names = ("session_id", "item_id", "score", "unknown_events")
        return Schema([ColumnSchema(name) for name in names])


class NextItemRuntime(Runtime):
    """Exports an ensemble of `TransformEvents` and `RankItems`.

    Parameters
    ----------
    settings : ServingSettings
        Batch size, instances, device, and the limits of a request.
    backend : {"python", "pytorch"}
        Of Triton, for the model: in the process that answers, or in a Triton model of its own (`serving.libtorch`).
    """

    def __init__(self, settings: ServingSettings, backend: Backend = "python") -> None:
        super().__init__()
        self.settings = settings
        self.backend = backend

    def export(
        self, ensemble: Any, path: str, version: int = 1, name: str = MODEL
    ) -> tuple[triton.ModelConfig, list[triton.ModelConfig]]:
        """Write the model repository; returns the configuration of the model that clients ask, and none of others."""
        folder = Path(path)
        transform, rank = _steps(ensemble.graph)
        target = folder / name / str(version)
        program = save_program(transform.document, transform.arrays, target)
        _refuse_names(program)
        keys = ("max_batch_size", "max_waiting", "threads", "device")
        facts = self.settings.model_dump(include=set(keys)) | {"limits": self.settings.limits().to_dict()}
        further = {}
        if self.backend == "pytorch":
            facts["ranker"] = RANKER
            ranker = write_ranker(rank.model / WEIGHTS, program, self.settings, folder, version)
            # What Triton loads by itself is verified here too, before this model says that it is ready.
            further[os.path.relpath(ranker, target)] = sha256(ranker)
        else:
            shutil.copy2(rank.model / WEIGHTS, target / WEIGHTS)
        (target / SETTINGS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (target / "model.py").write_text(_MODEL, encoding="utf-8")
        checksums = {file.name: sha256(file) for file in sorted(target.iterdir())} | further
        (target / CHECKSUMS).write_text(json.dumps(checksums, indent=1) + "\n", encoding="utf-8")
        # In the place of the folder that Python would make when it imports model.py: a server that watches its
        # repository would take that for a change, and load everything once more.
        (target / PYTHON_CACHE).touch()
        config = self._config(program, name)
        # The version that is asked for, and no other: `nextitem deploy` moves this line.
        config.version_policy.specific.versions.append(version)
        (folder / name / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
        return config, []

    def _config(self, program: RequestProgram, name: str) -> triton.ModelConfig:
        # A batch size of 0 says that rows are no batch to Triton: they are events, and become fewer sessions.
        config = triton.ModelConfig(name=name, backend="python", max_batch_size=0)
        types = {column.role: _TYPES[column.type] for column in program.columns}
        for column in program.columns:
            config.input.append(triton.ModelInput(name=column.name, data_type=_TYPES[column.type], dims=[-1]))
        for option, kind, size in (
            (TOP_K, triton.TYPE_INT64, 1),
            (EXCLUDE_SEEN, triton.TYPE_BOOL, 1),
            (EXCLUDED, types["item"], -1),
            (CANDIDATES, types["item"], -1),
        ):
            config.input.append(triton.ModelInput(name=option, data_type=kind, dims=[size], optional=True))
        for output, kind, dims in (
            ("session_id", types["session"], [-1]),
            ("item_id", types["item"], [-1, -1]),
            ("score", triton.TYPE_FP32, [-1, -1]),
            ("unknown_events", triton.TYPE_INT64, [-1]),
        ):
            config.output.append(triton.ModelOutput(name=output, data_type=kind, dims=dims))
        kind = triton.ModelInstanceGroup.KIND_CPU
        config.instance_group.append(triton.ModelInstanceGroup(count=self.settings.instances, kind=kind))
        return config


def _refuse_names(program: RequestProgram) -> None:
    for column in program.columns:
        if column.name in OPTIONS:
            raise UserError(
                f"the events have a column {column.name!r}, which is an option of requests ({', '.join(OPTIONS)}): "
                "rename it in the files"
            )


def _steps(graph: Graph) -> tuple[TransformEvents, RankItems]:
    found = [node.op for node in postorder_iter_nodes(graph.output_node)]
    transform = [op for op in found if isinstance(op, TransformEvents)]
    rank = [op for op in found if isinstance(op, RankItems)]
    if len(transform) != 1 or len(rank) != 1:
        raise ValueError("the ensemble must be TransformEvents >> RankItems")
    return transform[0], rank[0]
