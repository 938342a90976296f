"""Whether a server answers: asked for a real recommendation, not only whether a port is open.

Triton calls a model ready from the moment it is loaded, also when the process that computes its answers is gone. So
an example session is sent, and what comes back is looked at. Importing this module loads neither pandas nor torch.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from serving import MODEL
from serving.client import NextItemClient
from serving.columns import NUMPY
from serving.exchange import Contract
from serving.runtime.options import OPTIONS

_MOMENT = datetime(2026, 11, 20, 9, 30)
# What the server says of a text that is no time of the data's own format.
_FORMAT = re.compile(r"'(?P<column>.+)' in event 0 is b.*: send a time like (?P<format>.+)$")


class Unhealthy(UserError):
    """The server does not answer as it should; the line says how."""

    # Docker keeps 2 for itself.
    exit_code = 1


def check_health(
    url: str = "127.0.0.1:8001",
    protocol: str = "grpc",
    timeout: float = 5.0,
    token: str | None = None,
    ca_file: Path | str | None = None,
) -> dict[str, Any]:
    """Ask a server for the readiness of its model and for one recommendation.

    Parameters
    ----------
    url : str
        ``host:port`` of the protocol's port; with ``https://`` or ``grpcs://`` in front, over TLS.
    protocol : {"grpc", "http"}
        How to ask.
    timeout : float
        Seconds that one question may take.
    token, ca_file
        As for `NextItemClient`.

    Returns
    -------
    dict
        ``ready`` True; ``answered_ms``, how long the recommendation took; ``version``, which version gave it;
        ``versions``, those that are loaded; ``items``, how many it recommended.

    Raises
    ------
    Unhealthy
        When nobody answers, the model is not ready, or the answer is an error or makes no sense.
    UserError
        When `url`, `protocol` or `ca_file` cannot be used.
    """
    probe = _Probe(url, protocol, timeout, token, ca_file=ca_file)
    with probe:
        try:
            return probe.check()
        except Unhealthy:
            raise
        except UserError as error:
            raise Unhealthy(str(error)) from error


class _Probe(NextItemClient):
    def check(self) -> dict[str, Any]:
        ready = self._call("is_model_ready", MODEL)
        # Over HTTP "not ready" is also what a wrong token gets; this one gets the reason.
        metadata = self._call("get_model_metadata", MODEL)
        if not ready:
            raise Unhealthy(f"the server at {self.url} is there, but its model {MODEL} is not ready: see its log")
        self._contract = Contract.of(metadata)
        versions = metadata["versions"] if isinstance(metadata, dict) else metadata.versions
        events = {name: [_example(kind)] for name, kind in self._contract.inputs.items()}
        try:
            began = time.perf_counter()
            reply = self._ask(events)
        except UserError as error:
            found = _FORMAT.search(str(error))
            if found is None or found["column"] not in events:
                raise
            # The contract does not say which text is a time, nor how this data set writes it; the refusal does.
            events[found["column"]] = [_MOMENT.strftime(found["format"])]
            began = time.perf_counter()
            reply = self._ask(events)
        answered_ms = round((time.perf_counter() - began) * 1000, 1)
        answer = self._answer(reply, None)
        items = len(answer.item_id[0]) if len(answer) == 1 else 0
        if not items or not np.isfinite(answer.score).all():
            raise Unhealthy(f"the server at {self.url} answers, but recommends nothing that can be used: see its log")
        response = reply.get_response()
        version = response["model_version"] if isinstance(response, dict) else response.model_version
        return {
            "ready": True,
            "answered_ms": answered_ms,
            "version": str(version),
            "versions": sorted(versions, key=int),
            "items": items,
        }

    def _ask(self, events: dict[str, list[Any]]) -> Any:
        assert self._contract is not None
        return self._call("infer", MODEL, self._tensors(self._contract, events, dict.fromkeys(OPTIONS)))


def _example(kind: str) -> Any:
    """A value that any column of this type takes: text could be an id, but also a time."""
    return _MOMENT.isoformat() if kind == "BYTES" else np.dtype(NUMPY.get(kind, np.float64)).type(1).item()
