"""Baselines, chosen by the validation window from a few settings, and models, trained once a seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from benchmarks.accuracy_.data import Data
from benchmarks.accuracy_.kept import Kept, Outcome
from common.errors import UserError
from common.progress import say, step
from modeling.baselines import BASELINES, TrainingWindow
from modeling.baselines.gru4rec import gru4rec
from modeling.compute import pick_device, threads
from modeling.construction import build_model
from modeling.data import Sessions
from modeling.evaluation import ranks
from modeling.evidence.fitting import add_evidence
from modeling.fitting import fit
from modeling.presets import PRESETS, read_preset
from modeling.ranking_metric import GOAL, summary
from modeling.settings import ModelSettings

GRU4REC = "gru4rec"
# Behind the name of a model whose network has the help of counts.
COUNTS = " + counts"
# Chosen on the validation window of the clothing shop; with the rates of transformers it learns far too slowly.
GRU4REC_RATE = 0.01
# Cooccurrence has the order of the Markov chain.
DEFAULT = [name for name in BASELINES if name != "cooccurrence"]
NEED_TIMES = ("recent-popularity",)
# What the validation window chooses from; published ranges, thinned out to what takes seconds.
GRIDS: dict[str, list[dict[str, float]]] = {
    "recent-popularity": [{"days": days} for days in (1, 7, 30)],
    "sequential-rules": [{"steps": steps} for steps in (3, 10, 20)],
    "item-knn": [{"damping": damping} for damping in (20, 100, 500)],
    "v-sknn": [
        {"power": power, "match_power": match, "rarity_weight": rarity}
        for power, match in ((1, 1), (2, 2), (8, 2))
        for rarity in (0, 1)
    ],
    "stan": [
        {"position_decay": position, "distance_decay": distance}
        for position in (0.25, 0.5, 1.02)
        for distance in (1.0, 2.05)
    ],
    "vstan": [
        {"position_decay": position, "match_decay": match, "rarity_weight": rarity}
        for position, match in ((0.25, 0.5), (0.5, 0.5), (1.02, 1.02))
        for rarity in (0, 0.1)
    ],
}


@dataclass
class Result:
    """One contender.

    Attributes
    ----------
    name : str
        What it is.
    trained : bool
        Whether it learned by gradient, from random weights.
    ranks : list of Tensor [S]
        Of the test window, one a seed.
    valid : float
        NDCG@20 on validation; of several seeds the mean.
    seconds : float
        To fit it once; of several seeds the mean.
    chosen : dict
        The settings that validation chose, or those of the model that matter.
    """

    name: str
    trained: bool
    ranks: list[Tensor]
    valid: float
    seconds: float
    chosen: dict[str, Any] = field(default_factory=dict)


def baseline(name: str, data: Data, exclude: str, grids: dict[str, list[dict[str, float]]] = GRIDS) -> Result | None:
    """Fit a baseline with each of its settings, and measure the one that is best on validation.

    Returns
    -------
    Result or None
        None where the baseline needs times and there are none.
    """
    if name in NEED_TIMES and data.times is None:
        say(f"{name} is left out: the data does not tell when the training sessions began")
        return None
    item, best = data.item, None
    window = TrainingWindow(data.train, item.name, item.cardinality, item.reserved, data.times)
    choices = grids.get(name, [{}])
    with step(name, len(choices)) as bar:
        for arguments in choices:
            began = time.perf_counter()
            fitted = BASELINES[name](window, **arguments)
            seconds = time.perf_counter() - began

            def scorer(past: dict[str, Tensor], fitted: Any = fitted) -> Tensor:
                scores: Tensor = fitted.scores(past[item.name])
                return scores

            valid = _goal(_ranks(scorer, data, data.valid, exclude))
            if best is None or valid > best[0]:
                best = valid, scorer, arguments, seconds
            bar.advance()
        assert best is not None
        valid, scorer, arguments, seconds = best
        found = _ranks(scorer, data, data.test, exclude)
        bar.say(f"valid NDCG@20 {valid:.4f}")
    return Result(name, False, [found], valid, seconds, dict(arguments))


def runs_of(spec: str, settings: ModelSettings, seeds: Sequence[int], epochs: int | None = None) -> list[ModelSettings]:
    """The settings of each training run of a model.

    Parameters
    ----------
    spec : str
        ``architecture``, ``architecture:masking``, a preset such as ``accurate``, or ``gru4rec``.
    settings : ModelSettings
        All else.
    seeds : sequence of int
        One run each.
    epochs : int, optional
        At most so many, whatever the settings or the preset say.

    Raises
    ------
    UserError
        When there is no such model.
    """
    architecture, _, masking = spec.partition(":")
    own: dict[str, Any] = {"architecture": architecture, "masking": masking or None}
    if spec == GRU4REC:
        own = {"learning_rate": GRU4REC_RATE, "evidence": False}
    elif spec in PRESETS:
        own = read_preset(spec)
    if epochs is not None:
        own["epochs"] = epochs
    try:
        return [ModelSettings(**settings.model_dump() | own | {"seed": seed}) for seed in seeds]
    except ValidationError as error:
        raise UserError(f"--models {spec}: {error.errors()[0]['msg']}") from error


def model(spec: str, data: Data, runs: Sequence[ModelSettings], kept: Kept) -> list[Result]:
    """Train a model once for each of the settings of `runs_of`, as ``nextitem train`` does.

    Returns
    -------
    list of Result
        The network alone; and, where the settings ask for evidence of counts, the model with it: what a user gets.
    """
    outcomes = [kept.once(spec, settings, partial(_train, spec, data, settings)) for settings in runs]
    names = (spec, f"{spec}{COUNTS}")
    return [result_of(name, found) for name, found in zip(names, zip(*outcomes, strict=True), strict=False)]


def _train(spec: str, data: Data, settings: ModelSettings) -> list[Outcome]:
    device = pick_device(settings.device)
    torch.manual_seed(settings.seed)
    say(f"{spec}, seed {settings.seed}")
    with threads(settings.threads):
        if spec == GRU4REC:
            made = gru4rec(data.item, data.limit, settings)
        else:
            made = build_model(data.features, data.limit, settings, data.vectors)
        _, report = fit(made.to(device), data.train, data.valid, settings, device)
        made.eval()
        valid, seconds, epoch = report["valid"], report["train_seconds"], report["best_epoch"]
        outcomes = [Outcome(_ranks(made, data, data.test, settings.exclude, device), valid[GOAL], seconds, epoch)]
        if settings.evidence:
            began = time.perf_counter()
            found = add_evidence(made, data.train, data.valid, settings.exclude, device, valid[GOAL])
            seconds += time.perf_counter() - began
            valid = found["valid"] if found else valid
            outcomes.append(
                Outcome(_ranks(made, data, data.test, settings.exclude, device), valid[GOAL], seconds, epoch)
            )
    return outcomes


def result_of(name: str, outcomes: Sequence[Outcome]) -> Result:
    """Runs of one model with several seeds, as one contender."""
    valid, seconds = (fmean(getattr(outcome, key) for outcome in outcomes) for key in ("valid", "seconds"))
    epochs = "/".join(str(outcome.epoch) for outcome in outcomes)
    return Result(name, True, [outcome.ranks for outcome in outcomes], valid, seconds, {"epochs": epochs})


def _ranks(
    scorer: Callable[[dict[str, Tensor]], Tensor],
    data: Data,
    window: Sessions,
    exclude: str,
    device: torch.device | str = "cpu",
) -> Tensor:
    return ranks(scorer, window, data.item, data.limit, exclude, device=device)


def _goal(found: Tensor) -> float:
    return summary(found[~found.isnan()], (20,))[GOAL]
