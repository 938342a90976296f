"""Triton model: the TorchScript model alone, over encoded sessions that Triton batches across clients.

`benchmarks.server.repositories` copies this file into a repository, with ``model.pt`` and ``ranker.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb


class TritonPythonModel:
    """See Triton's Python backend for when each method is called."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the model and let TorchScript compile itself."""
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / "ranker.json").read_text(encoding="utf-8"))
        self.inputs, self.top_k = settings["inputs"], settings["top_k"]
        torch.set_num_threads(1)
        self.model = torch.jit.load(str(folder / "model.pt")).eval()
        for _ in range(3):
            self._rank({name: [np.ones((2, 2), dtype=kind)] for name, kind in self.inputs.items()})

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score a batch of requests in one pass."""
        columns = {
            name: [pb.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self.inputs
        }
        scores, ids = self._rank(columns)
        ends = np.cumsum([len(part) for part in next(iter(columns.values()))])[:-1]
        return [
            pb.InferenceResponse([pb.Tensor("scores", some), pb.Tensor("ids", best)])
            for some, best in zip(np.split(scores, ends), np.split(ids, ends), strict=True)
        ]

    def _rank(self, columns: dict[str, list[Any]]) -> tuple[Any, Any]:
        tensors = {name: torch.from_numpy(_stack(parts)) for name, parts in columns.items()}
        with torch.inference_mode():
            scores, ids = self.model(tensors, self.top_k)
        return scores.numpy(), ids.numpy()


def _stack(parts: list[Any]) -> Any:
    """The sessions of several requests as one array, padded to the longest."""
    stacked = np.zeros((sum(map(len, parts)), max(part.shape[1] for part in parts)), dtype=parts[0].dtype)
    begin = 0
    for part in parts:
        stacked[begin : begin + len(part), : part.shape[1]] = part
        begin += len(part)
    return stacked
