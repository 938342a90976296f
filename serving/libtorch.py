"""`nextitem export --backend pytorch`: the model as a Triton model of its own, which Triton's PyTorch backend runs.

The repository then has two models. Clients ask `nextitem` as ever; it checks, batches and encodes in the Python backend
and asks `nextitem_ranker` inside the server, one request for a whole batch. The versions of both go together: version 3
of the one asks version 3 of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf import text_format
from numpy.typing import NDArray

from common.errors import UserError
from modeling.export.plain import export_plain
from serving import RANKER
from serving.runtime import WEIGHTS
from serving.runtime.options import CANDIDATES, EXCLUDED, TOP_K
from serving.runtime.program import RequestProgram
from serving.runtime.remote import IDS, NO_LIST, SCORES
from serving.settings import ServingSettings

_TYPES = {"int64": triton.TYPE_INT64, "float32": triton.TYPE_FP32}
_LISTS = (TOP_K, EXCLUDED, CANDIDATES)
# TorchScript compiles itself during the first calls: for one session, and for several.
_WARM_SESSIONS, _WARM_CALLS = (1, 3), 3


def write_ranker(
    source: Path, program: RequestProgram, settings: ServingSettings, repository: Path, version: int
) -> Path:
    """Write the model `nextitem_ranker` into a repository.

    Parameters
    ----------
    source : Path
        The ``model.pt`` of the ``model/`` folder.
    program : RequestProgram
        Makes what the model takes.
    settings : ServingSettings
        Instances, threads and device.
    repository : Path
        The repository's folder.
    version : int
        The version.

    Returns
    -------
    Path
        The file that the backend loads.

    Raises
    ------
    UserError
        When a feature has the name of an option, the device is a GPU, or the model is of another time.
    """
    if settings.device == "cuda":
        raise UserError(
            "serving.device is cuda, and --backend pytorch exports the model for the CPU: set serving.device to cpu, "
            "or export without --backend pytorch"
        )
    example = _example(program)
    folder = repository / RANKER
    target = folder / str(version) / WEIGHTS
    target.parent.mkdir(parents=True)
    try:
        export_plain(source, target, *_LISTS)
    except RuntimeError as error:
        raise UserError(f"{source} cannot be exported for Triton's PyTorch backend: run 'nextitem train' again") from (
            error
        )
    config = ranker_config(example, settings)
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
    (folder / "warmup").mkdir(exist_ok=True)
    for sessions in _WARM_SESSIONS:
        for number, values in enumerate(_rows(example, sessions).values()):
            (folder / "warmup" / _file(number, sessions)).write_bytes(values.tobytes())
    return target


def ranker_config(example: Mapping[str, NDArray[Any]], settings: ServingSettings) -> triton.ModelConfig:
    """Triton's configuration of the model.

    Parameters
    ----------
    example : mapping of str to array
        All inputs, for one session.
    settings : ServingSettings
        Instances and threads.
    """
    # `nextitem` has batched already: a batch size of 0 leaves all dimensions to the two of them.
    config = triton.ModelConfig(name=RANKER, platform="pytorch_libtorch", backend="pytorch", max_batch_size=0)
    # The backend hands a forward method with one dictionary all inputs by their names.
    for name, values in example.items():
        dims = [1] if name == TOP_K else [-1] * values.ndim
        config.input.append(triton.ModelInput(name=name, data_type=_TYPES[values.dtype.name], dims=dims))
    for name, kind in ((SCORES, triton.TYPE_FP32), (IDS, triton.TYPE_INT64)):
        config.output.append(triton.ModelOutput(name=name, data_type=kind, dims=[-1, -1]))
    # Versions are chosen by `nextitem`. This model must not lose one that is still asked while another takes over.
    config.version_policy.all.SetInParent()
    kind = triton.ModelInstanceGroup.KIND_CPU
    config.instance_group.append(triton.ModelInstanceGroup(count=settings.instances, kind=kind))
    parameters = {
        "INFERENCE_MODE": "true",
        "ENABLE_WEIGHT_SHARING": "true",
        "INTRA_OP_THREAD_COUNT": str(settings.threads),
        "INTER_OP_THREAD_COUNT": "1",
    }
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    for sessions in _WARM_SESSIONS:
        warm = config.model_warmup.add(name=f"{sessions} at a time", batch_size=1, count=_WARM_CALLS)
        for number, (name, values) in enumerate(_rows(example, sessions).items()):
            warm.inputs[name].data_type = _TYPES[values.dtype.name]
            warm.inputs[name].dims.extend(values.shape)
            warm.inputs[name].input_data_file = _file(number, sessions)
    return config


def _example(program: RequestProgram) -> dict[str, NDArray[Any]]:
    """What the model takes, for a session of one event."""
    features = program.run(program.example()).features
    taken = [name for name in _LISTS if name in features]
    if taken:
        raise UserError(f"the features have a column {taken[0]!r}, which is an option of requests: rename it")
    lists = {TOP_K: np.array([1]), EXCLUDED: np.zeros((1, 1), np.int64), CANDIDATES: np.full((1, 1), NO_LIST)}
    return features | lists


def _rows(example: Mapping[str, NDArray[Any]], sessions: int) -> dict[str, NDArray[Any]]:
    return {name: values if name == TOP_K else np.repeat(values, sessions, 0) for name, values in example.items()}


def _file(number: int, sessions: int) -> str:
    return f"input-{number}-of-{sessions}"
