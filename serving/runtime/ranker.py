"""Triton model: TorchScript scores a batch of sessions and picks the best items.

Inputs are the encoded features ``[batch, length]``, outputs ``ids`` and ``scores`` ``[batch, k]``. Triton's
dynamic batcher hands over the requests of several clients at once; they are padded to one length and scored in
one pass.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb

from serving.runtime import RANKER_SETTINGS, RANKER_WEIGHTS
from serving.runtime.devices import load_where_it_answers


class TritonPythonModel:
    """Loaded once an instance; see Triton's Python backend for when each method is called."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the TorchScript model and answer once, so that the first client does not wait for it."""
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / RANKER_SETTINGS).read_text(encoding="utf-8"))
        self.inputs: list[dict[str, str]] = settings["inputs"]
        self.top_k: int = settings["top_k"]
        torch.set_num_threads(settings["threads"])
        warm_up = {i["name"]: np.ones((2, 2), dtype=i["dtype"]) for i in self.inputs}

        def answers(model: Any, device: str) -> None:
            self.model, self.device = model, device
            # TorchScript compiles itself during the first calls.
            for _ in range(3):
                self._rank(warm_up)

        load_where_it_answers(folder / RANKER_WEIGHTS, settings["device"], answers, pb.Logger.log_warn)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, in their order."""
        columns = {
            i["name"]: [pb.get_input_tensor_by_name(request, i["name"]).as_numpy() for request in requests]
            for i in self.inputs
        }
        first = columns[self.inputs[0]["name"]]
        ids, scores = self._rank({name: _stack(parts) for name, parts in columns.items()})
        responses, begin = [], 0
        for part in first:
            rows = slice(begin, begin + len(part))
            outputs = [pb.Tensor("ids", ids[rows]), pb.Tensor("scores", scores[rows])]
            responses.append(pb.InferenceResponse(outputs))
            begin += len(part)
        return responses

    def _rank(self, columns: dict[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(values).to(self.device) for name, values in columns.items()}
            scores, ids = self.model(tensors, self.top_k)
            return ids.cpu().numpy(), scores.cpu().numpy()


def _stack(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    if len(parts) == 1:
        # Triton's memory is read-only for us, and torch wants to own what it may write to.
        return parts[0].copy()
    longest = max(part.shape[1] for part in parts)
    stacked = np.zeros((sum(len(part) for part in parts), longest), dtype=parts[0].dtype)
    begin = 0
    for part in parts:
        stacked[begin : begin + len(part), : part.shape[1]] = part
        begin += len(part)
    return stacked
