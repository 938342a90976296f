"""What happened, as Prometheus counters, gauges and a histogram beside Triton's own metrics.

Triton's own durations end when `execute` returns, which is before the answer: those of requests are measured here.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
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
    "cpu_seconds": "processor time of the model's process",
}
_DURATION = "seconds from the arrival of a request to its answer, for requests that were answered"
_GAUGES = {
    "waiting": "requests that wait for the model",
    "items": "items in the catalogue",
    "resident_bytes": "memory of the model's process",
}
# Telling Triton of one number takes some 60 microseconds, and a thread in between: counting is cheap, telling is not.
_EVERY_S = 1.0
BOUNDS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0),
)


class Durations:
    """How many requests took at most how long; for any threads."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._lock = threading.Lock()
        self._counts = [0] * (len(BOUNDS_S) + 1)

    def observe(self, seconds: float) -> None:
        """Count one request."""
        with self._lock:
            self._counts[bisect_left(BOUNDS_S, seconds)] += 1
            self.total_s += seconds

    def cumulative(self) -> list[int]:
        """Requests of at most each of `BOUNDS_S` seconds, and, last, all of them."""
        return list(accumulate(self._counts[:]))


class Counters:
    """Counts in this process; a thread of its own tells Triton once a second.

    Parameters
    ----------
    pb : module
        ``triton_python_backend_utils``.
    model, version : str
        Labels of the metrics.
    items : int
        Items in the catalogue.
    waiting : callable
        How many requests wait.
    """

    def __init__(self, pb: Any, model: str, version: str, items: int, waiting: Callable[[], int]) -> None:
        self._labels = {"model": model, "version": version}
        # A metric goes when its family does.
        self._families: list[Any] = []
        self._metrics = {f"{name}_total": self._metric(pb, f"{name}_total", text) for name, text in _WHAT.items()}
        self._gauges = {name: self._metric(pb, name, text, "GAUGE") for name, text in _GAUGES.items()}
        # Triton has histograms too, but they must be told of every single request. Counters named like the parts of
        # one are the same for Prometheus.
        for part in ("sum", "count"):
            name = f"request_seconds_{part}"
            self._metrics[name] = self._metric(pb, name, _DURATION)
        buckets = self._family(pb, "request_seconds_bucket", _DURATION)
        for bound in (*BOUNDS_S, float("inf")):
            le = "+Inf" if bound == float("inf") else f"{bound:g}"
            self._metrics[f"le={le}"] = buckets.Metric(labels=self._labels | {"le": le})
        self._buckets = [name for name in self._metrics if name.startswith("le=")]
        self._told: dict[str, float] = dict.fromkeys(self._metrics, 0)
        self._items, self._waiting = items, waiting
        self.requests = self.failed = self.sessions = self.events = self.unknown_events = self.batches = 0
        self.refused, self.cpu_seconds = 0, 0.0
        self.durations = Durations()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tell_on, name="counters", daemon=True)
        self._thread.start()

    def _family(self, pb: Any, name: str, text: str, kind: str = "COUNTER") -> Any:
        kind = getattr(pb.MetricFamily, kind)
        self._families.append(pb.MetricFamily(name=f"nextitem_{name}", description=text, kind=kind))
        return self._families[-1]

    def _metric(self, pb: Any, name: str, text: str, kind: str = "COUNTER") -> Any:
        return self._family(pb, name, text, kind).Metric(labels=self._labels)

    def answered(self, requests: Sequence[Any], answers: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Count requests that were ranked together."""
        self.batches += 1
        self.requests += len(requests)
        self.sessions += sum(map(len, requests))
        self.events += sum(request.events for request in requests)
        self.unknown_events += sum(int(answer["unknown_events"].sum()) for answer in answers)

    def refuse(self) -> None:
        """Count a request that was refused; from any thread."""
        with self._lock:
            self.refused += 1

    def fail(self) -> None:
        """Count a request that met an error of the server; from any thread."""
        with self._lock:
            self.failed += 1

    def close(self) -> None:
        """Tell Triton the last numbers, and end the thread."""
        self._end.set()
        self._thread.join()

    def _tell_on(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(_EVERY_S)
            self._publish()

    def _publish(self) -> None:
        cumulative = self.durations.cumulative()
        self.cpu_seconds = time.process_time()
        now: dict[str, float] = {f"{name}_total": getattr(self, name) for name in _WHAT}
        now |= {"request_seconds_sum": self.durations.total_s, "request_seconds_count": cumulative[-1]}
        now |= dict(zip(self._buckets, cumulative, strict=True))
        for name, value in now.items():
            if value > self._told[name]:
                self._metrics[name].increment(value - self._told[name])
                self._told[name] = value
        self._gauges["waiting"].set(self._waiting())
        self._gauges["items"].set(self._items)
        self._gauges["resident_bytes"].set(resident_bytes())


class Complaints:
    """At most one line a second, whatever comes: clients must not be able to fill the log.

    Parameters
    ----------
    write : callable
        Receives the lines.
    every_s : float
        Seconds between two lines.
    """

    def __init__(self, write: Callable[[str], None], every_s: float = 1.0) -> None:
        self._write, self._every_s = write, every_s
        self._next, self._kept = 0.0, 0
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        """Write the line, with the number of those that were kept back before it, or keep it back too."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                self._kept += 1
                return
            kept, self._kept, self._next = self._kept, 0, now + self._every_s
        self._write(f"{line} (and {kept} more before it)" if kept else line)


def resident_bytes() -> int:
    """Memory that this process holds, or 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
