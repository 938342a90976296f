"""Triton model: the ensemble's entry. Raw events in, original item ids out.

Runs the compiled workflow in this process, asks the ranker (a model of its own, so that Triton batches the
sessions of all clients) and turns its answer back into original ids. A request that cannot be answered gets an
error reply of one line; the server goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from serving.runtime import EXECUTOR_SETTINGS
from serving.runtime.program import RequestError, RequestProgram, Sessions

_LOWEST = np.finfo(np.float32).min


class TritonPythonModel:
    """Loaded once an instance; see Triton's Python backend for when each method is called."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the request-time program."""
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / EXECUTOR_SETTINGS).read_text(encoding="utf-8"))
        self.ranker: str = settings["ranker"]
        self.max_sessions: int = settings["max_batch_size"]
        self.program = RequestProgram.load(folder)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests one by one: a bad one spoils only itself."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            outputs = self._answer(request)
        except RequestError as error:
            return pb.InferenceResponse(error=pb.TritonError(str(error), pb.TritonError.INVALID_ARG))
        except Exception as error:  # the server must outlive any request, so what went wrong is logged, not raised
            pb.Logger.log_error(f"request failed: {type(error).__name__}: {error}")
            message = "the server could not answer this request; its log says why"
            return pb.InferenceResponse(error=pb.TritonError(message, pb.TritonError.INTERNAL))
        return pb.InferenceResponse([pb.Tensor(name, values) for name, values in outputs.items()])

    def _answer(self, request: Any) -> dict[str, np.ndarray[Any, Any]]:
        raw = {
            column.name: pb.get_input_tensor_by_name(request, column.name).as_numpy() for column in self.program.columns
        }
        sessions = self.program.run(raw)
        ids, scores = self._rank(sessions)
        return {
            "session_id": sessions.session_id,
            "item_id": self.program.items.decode(ids),
            # JSON has no infinity: a place that no item could fill gets the lowest number there is.
            "score": np.maximum(scores, _LOWEST),
            "unknown_events": sessions.unknown_events,
        }

    def _rank(self, sessions: Sessions) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        parts = []
        for begin in range(0, len(sessions.session_id), self.max_sessions):
            rows = slice(begin, begin + self.max_sessions)
            inputs = [pb.Tensor(name, np.ascontiguousarray(v[rows])) for name, v in sessions.features.items()]
            call = pb.InferenceRequest(model_name=self.ranker, requested_output_names=["ids", "scores"], inputs=inputs)
            reply = call.exec()
            if reply.has_error():
                raise RuntimeError(reply.error().message())
            parts.append([pb.get_output_tensor_by_name(reply, name).as_numpy() for name in ("ids", "scores")])
        ids, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        return ids, scores
