"""Two versions at a time: each session is answered by one of them, chosen by a hash of its id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.feature_kernels import stable_hash
from serving.runtime.engine import Engine, Request
from serving.runtime.options import OPTIONS, TOP_K
from serving.runtime.steps import codes

Array = NDArray[Any]
_HASHES = float(2**64)


@dataclass
class Divided:
    """A request whose sessions go to several versions.

    Attributes
    ----------
    parts : dict of int to Request
        Version -> the events of its sessions.
    places : dict of int to int64 array
        Version -> the places of its sessions in the answer.
    sessions, events : int
        Of the whole request.
    """

    parts: dict[int, Request]
    places: dict[int, Array]
    sessions: int
    events: int

    def __len__(self) -> int:
        return self.sessions


class Arms:
    """Several versions behind one face, each with its share of sessions.

    Parameters
    ----------
    folder : Path
        Holds the versions, each in a folder named by its number.
    shares : mapping of int to float
        Version -> its share; they add up to 1.
    warn : callable
        As for `Engine`.
    """

    def __init__(self, folder: Path, shares: Mapping[int, float], warn: Callable[[str], None] = print) -> None:
        self.versions = sorted(shares)
        self.engines = {version: Engine(folder / str(version), warn) for version in self.versions}
        self._bounds = np.cumsum([shares[version] for version in self.versions])[:-1]
        newest = self.engines[self.versions[-1]]
        # Who does not ask for a number gets one that every version can give.
        top_k = min(engine.limits.top_k for engine in self.engines.values())
        self.limits, self.program = replace(newest.limits, top_k=top_k), newest.program
        self.max_batch_size, self.max_waiting = newest.max_batch_size, newest.max_waiting

    def read(self, raw: Mapping[str, Array]) -> Divided:
        """Check a request, and divide it; see `Engine.read`."""
        newest = self.engines[self.versions[-1]]
        whole = newest.read(raw)
        columns = [column.name for column in self.program.columns]
        session = raw[self.program.session]
        number_of, first = codes(session)
        arm = choose(session[first], self._bounds)
        of_event = arm[number_of]
        options = {TOP_K: np.array([self.limits.top_k])} | {name: raw[name] for name in OPTIONS if name in raw}
        parts, places = {}, {}
        for number, version in enumerate(self.versions):
            rows = np.flatnonzero(of_event == number)
            if len(rows):
                part = options | {name: raw[name][rows] for name in columns}
                parts[version] = self.engines[version].read(part)
                places[version] = np.flatnonzero(arm == number)
        return Divided(parts, places, whole.sessions, whole.events)

    def answer(self, requests: Sequence[Divided]) -> list[dict[str, Array]]:
        """Rank the items for all sessions of several requests; see `Engine.answer`."""
        found: list[list[tuple[Array, dict[str, Array]]]] = [[] for _ in requests]
        for version, engine in self.engines.items():
            mine = [number for number, request in enumerate(requests) if version in request.parts]
            answers = engine.answer([requests[number].parts[version] for number in mine]) if mine else []
            for number, answer in zip(mine, answers, strict=True):
                found[number].append((requests[number].places[version], answer))
        return [_merged(parts) for parts in found]


def choose(session_id: Array, bounds: Array) -> NDArray[np.int64]:
    """Which arm each session belongs to: the same everywhere and always, while the shares are the same.

    Parameters
    ----------
    session_id : array [S]
        Ids, as numbers or as text.
    bounds : float array [A - 1]
        Where one arm's share ends and the next one's begins, between 0 and 1.

    Returns
    -------
    int64 [S]
    """
    return np.searchsorted(bounds, stable_hash(session_id) / _HASHES, side="right").astype(np.int64)


def _merged(parts: list[tuple[Array, dict[str, Array]]]) -> dict[str, Array]:
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    return {name: np.concatenate([answer[name] for _, answer in parts])[order] for name in parts[0][1]}
