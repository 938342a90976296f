"""What a user of stock merlin-systems 23.8 would export: the fitted workflow itself, run by pandas for every request.

    export_stock(load_workflow(features), request, model / "model.pt", repository)
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        ask_stock(server.addresses["grpc"], events)["item_ids"]       # [S, k] codes, sessions in ascending order

It is there to be compared with, and keeps what stock merlin-systems keeps: the ensemble ``TransformWorkflow >>
predict``, the stock runtime, one executor that calls a second Python model for the workflow, no batching. Clients send
raw events as plain columns, since the workflow groups rows; time as the workflow was fitted on it (nanoseconds, by our
operators); text in ASCII, for merlin-systems reads no other. Answers are codes.

One thing differs. merlin-systems' own `PredictPyTorch` needs Triton's ``pytorch`` backend, which the server of the
nvidia-pytriton wheel lacks, and it cannot pad sessions of different lengths. `PredictTorchScript` does the same work
inside the executor's process, which spares the stock variant one more call.
"""

from __future__ import annotations

import copy
import importlib
import json
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from common.errors import UserError
from common.merlin import importing_merlin
from serving import MODEL
from serving.client import server_reason
from serving.columns import Column, convert_events

with importing_merlin():
    import merlin.dtypes as md
    from merlin.dag import BaseOperator, ColumnSelector
    from merlin.schema import ColumnSchema, Schema
    from merlin.table import TensorTable

_MODEL_FILE = "model.pt"
SCORES, IDS = "item_id_scores", "item_ids"


class PredictTorchScript(BaseOperator):
    """Encoded sessions -> the best items, by a TorchScript model in the executor's process.

    Parameters
    ----------
    path : Path
        The TorchScript file: ``model(columns [S, L], k) -> (scores [S, k], ids [S, k])``.
    inputs : mapping of str to str
        Its columns and their types, ``"int64"`` or ``"float32"``.
    top_k : int
        How many items a session.
    session : ColumnSchema, optional
        The column with the session's id, which is handed through.
    """

    def __init__(self, path: Path, inputs: Mapping[str, str], top_k: int, session: ColumnSchema | None = None) -> None:
        super().__init__()
        self.path, self.inputs, self.top_k, self.session = str(path), dict(inputs), top_k, session
        self.model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # The ensemble is pickled; the model lies beside it, and the path is of the machine that exported.
        return self.__dict__ | {"model": None, "path": ""}

    def save_artifacts(self, artifact_path: Any = None) -> None:
        """Put the model beside the ensemble."""
        shutil.copy2(self.path, Path(artifact_path) / _MODEL_FILE)

    def load_artifacts(self, artifact_path: Any = None) -> None:
        """Load the model in the server; merlin-systems also calls this with nothing, while it exports."""
        if not artifact_path:
            return
        import torch

        torch.set_num_threads(1)
        self.model = torch.jit.load(str(Path(artifact_path) / _MODEL_FILE)).eval()

    def compute_output_schema(
        self, input_schema: Schema, col_selector: ColumnSelector, prev_output_schema: Schema | None = None
    ) -> Schema:
        """The names that Transformers4Rec gives to its answer, after the session's id."""
        dims = (None, self.top_k)
        columns = [ColumnSchema(SCORES, dtype=np.float32, dims=dims), ColumnSchema(IDS, dtype=np.int64, dims=dims)]
        if self.session is not None:
            columns.insert(0, ColumnSchema(self.session.name, dtype=self.session.dtype, dims=(None,)))
        return Schema(columns)

    def transform(self, col_selector: ColumnSelector, transformable: Any) -> Any:
        """Pad the sessions of a request to each other and rank the catalogue for each."""
        import torch

        columns = {name: torch.from_numpy(_padded(transformable[name], kind)) for name, kind in self.inputs.items()}
        with torch.inference_mode():
            scores, ids = self.model(columns, self.top_k)
        answer = {SCORES: scores.numpy(), IDS: ids.numpy()}
        if self.session is not None:
            answer[self.session.name] = transformable[self.session.name].values
        return TensorTable(answer)


def _padded(column: Any, kind: str) -> NDArray[Any]:
    """A list column as [S, longest], filled up with 0 on the right."""
    values, offsets = np.asarray(column.values), np.asarray(column.offsets)
    lengths = np.diff(offsets)
    padded = np.zeros((len(lengths), max(1, int(lengths.max(initial=0)))), dtype=kind)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = values
    return padded


def export_stock(
    workflow: Any, request: Mapping[str, Any], model: Path | str, output: Path | str, top_k: int = 20
) -> dict[str, Any]:
    """Write the Triton repository of the stock variant.

    Parameters
    ----------
    workflow : nvtabular.Workflow
        Fitted, of stock operators or of ours.
    request : mapping
        The content of ``features/request.json``: the columns that clients send.
    model : Path or str
        The ``model/`` folder, of which ``model.json`` and ``model.pt`` are read.
    output : Path or str
        The repository's folder; it is made when it does not exist. The entry is called ``nextitem``.
    top_k : int
        Recommendations a session.

    Returns
    -------
    dict
        ``ensemble``, ``inputs`` and ``outputs``: names.

    Raises
    ------
    UserError
        When the workflow takes columns that clients do not send, or does not make what the model takes.
    """
    facts = json.loads((Path(model) / "model.json").read_text(encoding="utf-8"))
    inputs = {column["name"]: column["dtype"] for column in facts["inputs"]}
    columns = [column["name"] for column in request["columns"] if column["name"] in workflow.input_schema.column_names]
    _require(workflow.input_schema.column_names, columns, "the workflow takes", "the request does not have")
    _require(inputs, workflow.output_schema.column_names, "the model takes", "the workflow does not make")
    workflow = _with_objects(workflow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from merlin.systems.dag.ensemble import Ensemble
        from merlin.systems.dag.ops.workflow import TransformWorkflow

        predict = PredictTorchScript(Path(model) / _MODEL_FILE, inputs, top_k, _session(workflow, request))
        graph = columns >> TransformWorkflow(workflow) >> predict
        ensemble = Ensemble(graph, workflow.input_schema)
        entry, _ = ensemble.export(str(output), name=MODEL)
    names = [[tensor.name for tensor in tensors] for tensors in (entry.input, entry.output)]
    return {"ensemble": entry.name, "inputs": names[0], "outputs": names[1]}


def _with_objects(workflow: Any) -> Any:
    """A copy whose text columns are of numpy's object type, in which Triton hands text over.

    merlin-systems casts every column to its type in the schema, and pandas' object columns have that one. With a schema
    that says string it answers every request with an error: Triton does not take numpy's own strings.
    """
    workflow = copy.deepcopy(workflow)
    ends = [(leaf, kind) for leaf in workflow.graph.leaf_nodes for kind in ("input_schema", "output_schema")]
    for node, kind in [*ends, (workflow.graph.output_node, "output_schema")]:
        columns = [c.with_dtype(md.object_) if c.dtype == md.string else c for c in getattr(node, kind)]
        setattr(node, kind, Schema(columns))
    return workflow


def _require(wanted: Iterable[str], found: Iterable[str], who: str, problem: str) -> None:
    missing = [name for name in wanted if name not in set(found)]
    if missing:
        raise UserError(f"{who} {', '.join(missing)}, which {problem}")


def _session(workflow: Any, request: Mapping[str, Any]) -> ColumnSchema | None:
    """The column of the workflow's output that names the session, if it hands it on."""
    key = next(column["name"] for column in request["columns"] if column["role"] == "session")
    return next(
        (workflow.output_schema[name] for name in (key, "session_id") if name in workflow.output_schema.column_names),
        None,
    )


def ask_stock(
    url: str, events: Mapping[str, Column], protocol: str = "grpc", timeout: float = 60.0
) -> dict[str, NDArray[Any]]:
    """Ask a running server for the stock variant's answer.

    Parameters
    ----------
    url : str
        ``host:port`` of the protocol's port.
    events : mapping of str to sequence
        Column name -> N values, of raw events.
    protocol : str
        ``"grpc"`` or ``"http"``.
    timeout : float
        Seconds that the request may take.

    Returns
    -------
    dict of str to ndarray
        ``item_id_scores`` and ``item_ids`` [S, k], the ids as codes, and the session's column [S] if the workflow
        hands it on. NVTabular's Groupby answers in ascending order of the sessions' ids.

    Raises
    ------
    UserError
        When the events do not convert, no server answers, or with the server's reason for refusing.
    """
    module = importlib.import_module(f"tritonclient.{protocol}")
    options = {} if protocol == "grpc" else {"connection_timeout": timeout, "network_timeout": timeout}
    late = {"client_timeout": timeout} if protocol == "grpc" else {}
    try:
        with module.InferenceServerClient(url, **options) as connection:
            as_json = {"as_json": True} if protocol == "grpc" else {}
            metadata = connection.get_model_metadata(MODEL, **as_json)
            wanted = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
            tensors = []
            for name, column in convert_events(events, wanted).items():
                tensors.append(module.InferInput(name, list(column.shape), wanted[name]))
                tensors[-1].set_data_from_numpy(column)
            answer = connection.infer(MODEL, tensors, **late)
            return {tensor["name"]: np.asarray(answer.as_numpy(tensor["name"])) for tensor in metadata["outputs"]}
    except InferenceServerException as error:
        raise UserError(f"the server at {url} refused: {server_reason(str(error.message()))}") from error
    except OSError as error:
        raise UserError(f"no server answers at {url}: {error}") from error
