"""Triton model: answers at once, with fixed answers of the shapes that a recommender's have.

`benchmarks.server.repositories` copies this file into a repository, with the answer for each number of sessions beside
it. A request of so many events as the larger answer has sessions gets that one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """See Triton's Python backend for when each method is called."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Read the answers."""
        with np.load(Path(args["model_repository"]) / args["model_version"] / "answers.npz") as stored:
            arrays = dict(stored)
        arrays["item_id"] = arrays["item_id"].astype(object)
        self.most = len(arrays["session_id"])
        self.answers = [{name: array[:sessions] for name, array in arrays.items()} for sessions in (1, self.most)]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer; the price is the column that is quickest to count."""
        sizes = [pb.get_input_tensor_by_name(request, "price").as_numpy().size for request in requests]
        return [
            pb.InferenceResponse([pb.Tensor(*part) for part in self.answers[size >= self.most].items()])
            for size in sizes
        ]
