"""Finished training runs in a folder: an interrupted comparison goes on, and a later one is joined with them.

A run is known by its name, its settings and the sessions of all three windows. What the code did at that time is not in
it: after a change of the models the folder is to be removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.accuracy_.data import Data
from common.progress import say
from modeling.data import Sessions
from modeling.settings import ModelSettings

# Settings that say where a model runs, not what it is.
_ELSEWHERE = {"device", "threads"}


@dataclass
class Outcome:
    """What one training run came to.

    Attributes
    ----------
    ranks : Tensor [S], float32
        Of the targets of the test window; NaN where training never saw it.
    valid : float
        NDCG@20 on validation.
    seconds : float
        To train it.
    epoch : int
        The best one.
    """

    ranks: Tensor
    valid: float
    seconds: float
    epoch: int


class Kept:
    """The runs of a folder.

    Parameters
    ----------
    folder : Path, optional
        Made when the first run is written; None keeps nothing.
    data : Data
        What is trained on, chosen by and measured with.
    """

    def __init__(self, folder: Path | None, data: Data) -> None:
        self.folder = folder
        windows = (data.train, data.valid, data.test)
        self._data = [data.limit, *map(_digest, windows)] if folder else []

    def once(self, name: str, settings: ModelSettings, train: Callable[[], list[Outcome]]) -> list[Outcome]:
        """What a run came to: read where it is known, and trained and written down where it is not.

        Parameters
        ----------
        name : str
            Which model.
        settings : ModelSettings
            Of the run.
        train : callable
            Gives its outcomes, always as many.
        """
        if self.folder is None:
            return train()
        asked = {"name": name, "settings": settings.model_dump(mode="json", exclude=_ELSEWHERE), "data": self._data}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{settings.seed}-{key}.json"
        if path.exists():
            say(f"{name}, seed {settings.seed}: known from {path}")
            found = json.loads(path.read_text(encoding="utf-8"))["outcomes"]
            return [Outcome(**outcome | {"ranks": torch.tensor(outcome["ranks"])}) for outcome in found]
        outcomes = train()
        rows = [vars(outcome) | {"ranks": outcome.ranks.tolist()} for outcome in outcomes]
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.part")  # another comparison may write into the folder, too
        draft.write_text(json.dumps(asked | {"outcomes": rows}), encoding="utf-8")
        draft.replace(path)
        return outcomes


def _digest(sessions: Sessions) -> str:
    found = hashlib.sha256(sessions.offsets.numpy().tobytes())
    for name in sorted(sessions.values):
        found.update(name.encode())
        found.update(sessions.values[name].contiguous().numpy().tobytes())
    return found.hexdigest()
