"""What happened, as Prometheus counters beside Triton's own metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

_WHAT = {
    "requests": "requests that were answered",
    "refused": "requests that were refused, as malformed or because too many waited",
    "failed": "requests that met an error of the server",
    "sessions": "sessions that were ranked",
    "events": "events in requests",
    "unknown_events": "events of items that the model does not know",
    "batches": "passes of the model",
}
# Telling Triton costs more than counting.
_EVERY_S = 0.2


class Counters:
    """Counts in this process, and tells Triton of it now and then.

    Parameters
    ----------
    pb : module
        ``triton_python_backend_utils``.
    model, version : str
        Labels of the metrics.
    """

    def __init__(self, pb: Any, model: str, version: str) -> None:
        labels = {"model": model, "version": version}
        families = {
            name: pb.MetricFamily(name=f"nextitem_{name}_total", description=text, kind=pb.MetricFamily.COUNTER)
            for name, text in _WHAT.items()
        }
        # A metric goes when its family does.
        self._families = families
        self._metrics = {name: family.Metric(labels=labels) for name, family in families.items()}
        self._told = dict.fromkeys(_WHAT, 0)
        self._last = 0.0
        self.requests = self.refused = self.failed = self.sessions = self.events = self.unknown_events = 0
        self.batches = 0

    def answered(self, requests: Sequence[Any], answers: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Count requests that were ranked together."""
        self.batches += 1
        self.requests += len(requests)
        self.sessions += sum(map(len, requests))
        self.events += sum(request.events for request in requests)
        self.unknown_events += sum(int(answer["unknown_events"].sum()) for answer in answers)

    def publish(self) -> None:
        """Tell Triton, unless it was told a moment ago."""
        now = time.monotonic()
        if now - self._last < _EVERY_S:
            return
        self._last = now
        for name, metric in self._metrics.items():
            value = getattr(self, name)
            if value > self._told[name]:
                metric.increment(value - self._told[name])
                self._told[name] = value
