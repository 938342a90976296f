"""Transformers4Rec 23.12 as contenders: trained and ranked in an environment of its own, on the same folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy_.contenders import Result, runs_of
from benchmarks.accuracy_.data import Data
from benchmarks.t4r import environment
from benchmarks.t4r.process import ask
from common.errors import UserError
from common.progress import step
from modeling.settings import ModelSettings

SPECS = ("gpt2:clm", "xlnet:mlm")


def contenders(data: Data, folder: Path, settings: ModelSettings, seeds: Sequence[int]) -> list[Result]:
    """Its models with item ids only and, where there are any, with side features.

    Parameters
    ----------
    data : Data
        What the folder holds.
    folder : Path
        The features.
    settings : ModelSettings
        Sizes and how to train; what Transformers4Rec has no word for is left out.
    seeds : sequence of int
        One run each.

    Raises
    ------
    UserError
        When it cannot be installed or fails.
    """
    interpreter = environment.python()
    # Vectors come to it from a data loader of its own only.
    features = [feature for feature in data.features if feature.kind != "embedding"]
    inputs = {" ids": features[:1]} | ({"": features} if len(features) > 1 else {})
    # It knows the exact loss without smoothing, like all that these settings leave out.
    plain = settings.model_copy(update={"loss": "cross-entropy", "label_smoothing": 0.0})
    results = []
    for spec in SPECS:
        for suffix, chosen in inputs.items():
            answers: list[dict[str, Any]] = []
            for own in runs_of(spec, plain, seeds):
                request = {
                    "folder": str(folder.resolve()),
                    "features": [feature.to_json() for feature in chosen],
                    "limit": data.limit,
                    "settings": own.model_dump(),
                }
                with step(f"t4r {spec}{suffix}, seed {own.seed}") as bar:
                    answers.append(ask(interpreter, "benchmarks.t4r.inside.accuracy", request))
                    bar.say(f"valid NDCG@20 {answers[-1]['valid']:.4f}")
            results.append(result_of(f"t4r {spec}{suffix}", answers, len(data.test)))
    return results


def result_of(name: str, answers: Sequence[dict[str, Any]], sessions: int) -> Result:
    """What came back, a run a seed, as one contender.

    Raises
    ------
    UserError
        When there is not a rank for each of the test sessions.
    """
    ranks = [torch.tensor(answer["ranks"], dtype=torch.float32) for answer in answers]
    if any(len(found) != sessions for found in ranks):
        raise UserError(f"{name} ranked other sessions than the {sessions:,} of the test window")
    valid, seconds = (sum(answer[key] for answer in answers) / len(answers) for key in ("valid", "seconds"))
    epochs = "/".join(str(answer["epochs"]) for answer in answers)
    return Result(name, True, ranks, valid, seconds, {"epochs": epochs})
