"""The Triton model `nextitem`: raw events in, original item ids out.

The thread that Triton calls checks a request and queues it; a second thread encodes and ranks the sessions of all that
wait. So `execute` returns before its answers are sent, through the response sender of each request.
A request that cannot be answered gets an error reply of one line; the server goes on.
"""

from __future__ import annotations

import functools
import json
import math
import queue
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from serving.runtime.arms import Arms
from serving.runtime.batcher import Batcher
from serving.runtime.columns import RequestError
from serving.runtime.counters import Complaints, Counters
from serving.runtime.engine import Engine
from serving.runtime.options import CANDIDATES, EXCLUDED
from serving.runtime.shares import read_shares

_BUSY = "the server is busy: more requests wait than it can hold; try again"
_WRONG = "the server could not answer this request; its log says why"
_Answer = dict[str, np.ndarray[Any, Any]]


class TritonPythonModel:
    """Loaded once an instance; see Triton's Python backend for when each method is called."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Verify and load what was exported, and answer once, so that the first client does not wait for it."""
        folder, version = Path(args["model_repository"]), int(args["model_version"])
        shares = read_shares(json.loads(args["model_config"])) or {version: 1.0}
        warn = pb.Logger.log_warn
        self.engine: Arms | Engine
        self.engine = Arms(folder, shares, warn) if len(shares) > 1 else Engine(folder / str(version), warn)
        self.batcher: Batcher[Any, _Answer] = Batcher(
            self._answer, len, self.engine.max_batch_size, self.engine.max_waiting
        )
        items = len(self.engine.program.items)
        self.counters = Counters(pb, args["model_name"], args["model_version"], items, lambda: self.batcher.waiting)
        self.refused, self.failed = Complaints(pb.Logger.log_warn), Complaints(pb.Logger.log_error)
        columns = self.engine.program.columns
        self.limits = {column.name: self.engine.limits.events for column in columns}
        self.limits |= {EXCLUDED: self.engine.limits.listed, CANDIDATES: self.engine.limits.listed}

    def execute(self, requests: list[Any]) -> None:
        """Take requests; each is answered through its own response sender."""
        arrived = time.monotonic()
        for request in requests:
            sender = request.get_response_sender()
            try:
                work = self.engine.read(self._raw(request))
                self.batcher.submit(work, functools.partial(self._reply, sender, arrived))
            except queue.Full:
                self._refuse(sender, _BUSY, pb.TritonError.UNAVAILABLE)
            except Exception as error:  # a bad request, or a fault of ours: the server must outlive both
                self._reply(sender, arrived, error)

    def finalize(self) -> None:
        """Answer what waits before the process ends."""
        self.batcher.close()
        self.counters.close()

    def _answer(self, requests: Sequence[Any]) -> list[_Answer]:
        answers = self.engine.answer(requests)
        self.counters.answered(requests, answers)
        return answers

    def _raw(self, request: Any) -> dict[str, np.ndarray[Any, Any]]:
        raw = {}
        # Triton lets no input through that the configuration does not name.
        for tensor in request.inputs():
            name = tensor.name()
            # Text becomes Python objects one by one: too many are refused before that.
            size, limit = math.prod(tensor.shape()), self.limits.get(name)
            if limit is not None and size > limit:
                raise RequestError(f"'{name}' has {size} values: send at most {limit}")
            raw[name] = tensor.as_numpy()
        return raw

    def _reply(self, sender: Any, arrived: float, result: _Answer | Exception) -> None:
        if isinstance(result, RequestError):
            self._refuse(sender, str(result), pb.TritonError.INVALID_ARG)
            return
        if isinstance(result, Exception):
            # What went wrong is for the log, not for the client.
            self.counters.fail()
            self.failed(f"request failed: {type(result).__name__}: {result}")
            self._fail(sender, _WRONG, pb.TritonError.INTERNAL)
            return
        tensors = [pb.Tensor(name, values) for name, values in result.items()]
        self._send(sender, pb.InferenceResponse(tensors))
        self.counters.durations.observe(time.monotonic() - arrived)

    def _refuse(self, sender: Any, message: str, code: int) -> None:
        self.counters.refuse()
        self.refused(f"request refused: {message}")
        self._fail(sender, message, code)

    def _fail(self, sender: Any, message: str, code: int) -> None:
        self._send(sender, pb.InferenceResponse(error=pb.TritonError(message, code)))

    def _send(self, sender: Any, response: Any) -> None:
        sender.send(response, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
