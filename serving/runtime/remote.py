"""The model as another Triton model: features and options go there as plain tensors, scores and ids come back.

`PlainRanker` is called as the TorchScript model is. How the tensors travel is somebody else's matter: `ask_triton`
sends them inside the server (Triton calls it business logic scripting), and `ask_module` hands them to the same module
in this process, so that export and tests run what the server will run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serving.runtime.options import CANDIDATES, EXCLUDED, TOP_K

Array = NDArray[Any]
Ask = Callable[[Mapping[str, Array]], tuple[Array, Array]]
# What the model is asked for, in the order in which its forward method returns them.
SCORES, IDS = OUTPUTS = ("scores__0", "ids__1")
# In the place of candidates: none were named. 0 fills up a row, and a list of nothing else leaves nothing to rank.
NO_LIST = -1
# A version is told apart from one that will never come by waiting: the two models load side by side.
_PATIENCE_S = 60.0
_PAUSE_S = 0.1


class PlainRanker:
    """Stands where the TorchScript model would.

    Parameters
    ----------
    ask : callable
        Takes the tensors by name: the features, `TOP_K` int64 [1], `EXCLUDED` and `CANDIDATES` int64 [S, at least 1].
        Returns scores float32 [S, k] and ids int64 [S, k].
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __call__(
        self,
        features: Mapping[str, torch.Tensor],
        top_k: int,
        excluded: torch.Tensor | None,
        candidates: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rank; see `modeling.export.torchscript.Recommender`.

        Parameters
        ----------
        features : mapping of str to Tensor [S, L]
            On the CPU, at least one session.
        top_k : int
            How many.
        excluded, candidates : Tensor [S, M], int64, optional
            Filled up with 0.

        Returns
        -------
        Tensor [S, k], float32, and Tensor [S, k], int64
        """
        tensors = {name: values.numpy() for name, values in features.items()}
        sessions = len(next(iter(tensors.values())))
        tensors[TOP_K] = np.array([top_k])
        tensors[EXCLUDED] = _listed(excluded, sessions, 0)
        tensors[CANDIDATES] = _listed(candidates, sessions, NO_LIST)
        scores, ids = self._ask(tensors)
        return torch.from_numpy(scores), torch.from_numpy(ids)


def _listed(codes: torch.Tensor | None, sessions: int, absent: int) -> Array:
    """A list as the model takes it: there in any case, and never without a column."""
    if codes is None:
        return np.full((sessions, 1), absent, dtype=np.int64)
    return codes.numpy() if codes.shape[1] else np.zeros((sessions, 1), dtype=np.int64)


def ask_module(path: Path) -> Ask:
    """Ask the exported module, in this process.

    Parameters
    ----------
    path : Path
        The ranker's ``model.pt``.
    """
    model = torch.jit.load(str(path), map_location="cpu").eval()

    def ask(tensors: Mapping[str, Array]) -> tuple[Array, Array]:
        with torch.inference_mode():
            scores, ids = model({name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in tensors.items()})
        return scores.numpy(), ids.numpy()

    return ask


def ask_triton(name: str, version: int, patience_s: float = _PATIENCE_S) -> Ask:
    """Ask another model of the server that this process belongs to.

    Parameters
    ----------
    name : str
        The model.
    version : int
        Its version.
    patience_s : float
        So long from now on a model that is not there yet is waited for.

    Returns
    -------
    callable
        Raises `RuntimeError` with the model's words when it does not answer. May be called from any thread, but only
        after `initialize` has returned: before, Triton 2.51 may abort.
    """
    import triton_python_backend_utils as pb

    here = pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0)
    deadline = time.monotonic() + patience_s

    def ask(tensors: Mapping[str, Array]) -> tuple[Array, Array]:
        while True:
            response = pb.InferenceRequest(
                model_name=name,
                model_version=version,
                requested_output_names=list(OUTPUTS),
                inputs=[pb.Tensor(key, np.ascontiguousarray(values)) for key, values in tensors.items()],
                preferred_memory=here,
            ).exec()
            if not response.has_error():
                scores, ids = (pb.get_output_tensor_by_name(response, key).as_numpy() for key in OUTPUTS)
                return scores, ids
            there = pb.is_model_ready(model_name=name, model_version=str(version))
            if there or time.monotonic() > deadline:
                raise RuntimeError(f"model '{name}', version {version}: {response.error().message()}")
            time.sleep(_PAUSE_S)

    return ask
