"""Transformers4Rec 23.12 as contenders: trained and ranked in an environment of its own, on the same folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy_.contenders import Result, result_of, runs_of
from benchmarks.accuracy_.data import Data
from benchmarks.accuracy_.kept import Kept, Outcome
from benchmarks.accuracy_.summary import T4R
from benchmarks.t4r import environment
from benchmarks.t4r.process import ask
from common.errors import UserError
from common.progress import step
from modeling.schema import Feature
from modeling.settings import ModelSettings

IDS = " ids"
# Its transformers with the YAML's settings, and with those of our best preset.
SPECS = tuple(f"{model}{inputs}" for model in ("gpt2:clm", "xlnet:mlm", "accurate") for inputs in (IDS, ""))


def contenders(
    data: Data, folder: Path, settings: ModelSettings, seeds: Sequence[int], specs: Sequence[str], kept: Kept
) -> list[Result]:
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
    specs : sequence of str
        Of `SPECS`.
    kept : Kept
        Runs that are known.

    Raises
    ------
    UserError
        When it cannot be installed or fails.
    """
    # Vectors come to it from a data loader of its own only.
    features = [feature for feature in data.features if feature.kind != "embedding"]
    # It knows the exact loss without smoothing, like all that these settings leave out.
    plain = settings.model_copy(update={"loss": "cross-entropy", "label_smoothing": 0.0})
    results = []
    for spec in specs:
        name, ids_only = f"{T4R}{spec}", spec.endswith(IDS)
        if len(features) == 1 and not ids_only:
            continue
        inputs = features[:1] if ids_only else features
        outcomes = []
        for own in runs_of(spec.removesuffix(IDS), plain, seeds):
            outcomes += kept.once(name, own, partial(_train, name, own, inputs, data, folder))
        results.append(result_of(name, outcomes))
    return results


def _train(name: str, settings: ModelSettings, inputs: Sequence[Feature], data: Data, folder: Path) -> list[Outcome]:
    request = {
        "folder": str(folder.resolve()),
        "features": [feature.to_json() for feature in inputs],
        "limit": data.limit,
        "settings": settings.model_dump(),
    }
    interpreter = environment.python()
    with step(f"{name}, seed {settings.seed}") as bar:
        found = ask(interpreter, "benchmarks.t4r.inside.accuracy", request)
        bar.say(f"valid NDCG@20 {found['valid']:.4f}")
    return [outcome_of(name, found, len(data.test))]


def outcome_of(name: str, answer: dict[str, Any], sessions: int) -> Outcome:
    """What came back.

    Raises
    ------
    UserError
        When there is not a rank for each of the test sessions.
    """
    ranks = torch.tensor(answer["ranks"], dtype=torch.float32)
    if len(ranks) != sessions:
        raise UserError(f"{name} ranked other sessions than the {sessions:,} of the test window")
    return Outcome(ranks, answer["valid"], answer["seconds"], answer["epochs"])
