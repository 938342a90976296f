"""The search stage: features/ in, search/ out.

``search(Path("features"), Path("search"), ModelSettings(), trials=20)`` trains one model after the other with other
settings, and writes the best ones, all trials, a page, and the journal from which the same search goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from common.artefacts import identity, new_folder, read_manifest
from common.days import day_identities
from common.errors import UserError
from common.progress import say, step
from modeling.compute import pick_device, threads
from modeling.construction import build_model
from modeling.data import Sessions, read_sessions
from modeling.evidence.fitting import fit_with_evidence
from modeling.fitting import training_window
from modeling.inputs.item_vectors import read_vectors
from modeling.loading import SessionStream
from modeling.model import Model
from modeling.ranking_metric import GOAL
from modeling.schema import features_of, max_length_of, read_schema
from modeling.search.space import DEFAULT, Dimension, Range
from modeling.search.study import OnEpoch, Search
from modeling.search.trials import Trial, best_of
from modeling.settings import ModelSettings

JOURNAL = "journal.log"
BEST = "best.yaml"
# What a model is trained with, without changing what comes out.
_NO_MATTER = {"device", "threads"}


def search(
    features: Path | str,
    output: Path | str,
    settings: ModelSettings | None = None,
    space: Mapping[str, Dimension] | None = None,
    trials: int = 20,
    minutes: float | None = None,
    seed: int = 0,
    window: str = "train",
    valid_window: str = "valid",
    storage: Path | None = None,
) -> dict[str, Any]:
    """Look for the settings with the best NDCG@20 on the validation window.

    Parameters
    ----------
    features : Path or str
        The folder that ``preprocess`` wrote. Its test window is not read.
    output : Path or str
        The folder to make, or in which an earlier search goes on: ``best.yaml`` for ``nextitem train --config``,
        ``trials.jsonl``, ``report.html`` and the journal.
    settings : ModelSettings, optional
        All that is not searched; also the first trial, as far as the ranges have its values.
    space : mapping, optional
        Ranges by setting; `modeling.search.space.DEFAULT` without.
    trials : int
        How many in all, with those of the journal.
    minutes : float, optional
        Begin no trial after that, and end the one under way.
    seed : int
        Of the proposals. The models' own seed is that of `settings`.
    window, valid_window : str
        As for `modeling.training.train`.
    storage : Path, optional
        The journal, where it is not to be in `output`.

    Returns
    -------
    dict
        ``{"output", "windows": {"train", "valid"}, "trials": {"complete", "pruned", "failed"}, "best": {"trial",
        "ndcg@20", "settings"}, "first": NDCG@20 of the first trial or None, "seconds"}``; seconds are those of all
        trials.

    Raises
    ------
    UserError
        When the features cannot be used, the journal is of another search, or no trial came to its end.
    """
    settings, ranges = settings or ModelSettings(), dict(space or DEFAULT)
    windows = {"train": window, "valid": valid_window}
    if "test" in windows.values():
        raise UserError("the test window is for 'nextitem evaluate': settings are chosen on another")
    bench = Bench(Path(features), windows)
    given = {
        "model": settings.model_dump(mode="json", exclude=_NO_MATTER),
        "search": {name: one.model_dump() if isinstance(one, Range) else list(one) for name, one in ranges.items()},
        "seed": seed,
        "windows": windows,
    }
    inputs = {"features": identity(features), **day_identities(Path(features), [window, valid_window])}
    journal = storage or Path(output) / JOURNAL
    with new_folder(output, "search", given, inputs, keep=() if storage else (JOURNAL,)) as folder:
        try:
            found = Search(journal, ranges, settings, seed, {**given, **inputs}).run(bench.measure, trials, minutes)
        except KeyboardInterrupt:
            say(f"what ended is in {journal}: the same command goes on from there")
            raise
        best = best_of(found)
        if best is None:
            raise UserError(
                f"none of {len(found)} trials came to its end: give more --minutes or --trials"
                + next((f"; one failed of: {trial.error}" for trial in found if trial.error), "")
            )
        report = _summary(output, windows, found, best)
        with step("Writing the report"):
            _write(folder.path, settings, ranges, found, best, report)
        folder.report.update(report)
    return report


class Bench:
    """Sessions and inputs that all trials share, and how one of them is measured.

    Parameters
    ----------
    features : Path
        The folder that ``preprocess`` wrote.
    windows : mapping
        ``"train"`` and ``"valid"``: which windows these are.
    """

    def __init__(self, features: Path, windows: Mapping[str, str]) -> None:
        read_manifest(features, "features", "nextitem preprocess")
        schema = read_schema(features)
        self.folder, self.windows = features, dict(windows)
        self.features, self.limit, self.vectors = features_of(schema), max_length_of(schema), read_vectors(features)
        self._sessions: dict[tuple[str, ...], tuple[Sessions, Sessions, Sessions]] = {}

    def measure(self, settings: ModelSettings, on_epoch: OnEpoch) -> dict[str, Any]:
        """Train as ``nextitem train`` does; its report, as far as `modeling.fitting.fit` makes it."""
        device = pick_device(settings.device)
        if device.type == "cuda":
            # What the trial before held: it may have been too large.
            torch.cuda.empty_cache()
        torch.manual_seed(settings.seed)
        with threads(settings.threads):
            model = build_model(self.features, self.limit, settings, self.vectors).to(device)
            _, report = fit_with_evidence(model, *self._read(model, settings), settings, device, on_epoch)
            return report

    def _read(self, model: Model, settings: ModelSettings) -> tuple[Sessions | SessionStream, Sessions, Sessions]:
        """The training window, the same for counting, and the validation window; of the same columns read once."""
        names = tuple(feature.name for feature in model.features)
        if names in self._sessions:
            return self._sessions[names]
        valid = read_sessions(self.folder, self.windows["valid"], model.features)
        train, counted = training_window(self.folder, self.windows["train"], model, settings)
        if isinstance(train, SessionStream):  # whose batches are those of one trial
            return train, counted, valid
        self._sessions[names] = train, counted, valid
        return train, counted, valid


def _summary(output: Path | str, windows: dict[str, str], found: list[Trial], best: Trial) -> dict[str, Any]:
    states = [trial.state for trial in found]
    return {
        "output": str(output),
        "windows": windows,
        "trials": {state: states.count(state) for state in ("complete", "pruned", "failed")},
        "best": {"trial": best.number, GOAL: best.goal, "settings": best.settings},
        "first": found[0].goal,
        "seconds": sum(trial.seconds for trial in found),
    }


def _write(
    folder: Path,
    settings: ModelSettings,
    space: Mapping[str, Dimension],
    found: list[Trial],
    best: Trial,
    report: Mapping[str, Any],
) -> None:
    from modeling.search.page import write_page_of

    (folder / BEST).write_text(best_yaml(settings, best, len(found)), encoding="utf-8")
    lines = "".join(json.dumps(asdict(trial), allow_nan=False) + "\n" for trial in found)
    (folder / "trials.jsonl").write_text(lines, encoding="utf-8")
    write_page_of(folder / "report.html", found, best, space, settings, report)


def best_yaml(settings: ModelSettings, best: Trial, trials: int) -> str:
    """The best settings as YAML: those that were searched, and the others that are not the defaults."""
    whole = settings.model_dump(mode="json", exclude_defaults=True, exclude=_NO_MATTER) | best.settings
    head = f"# Trial {best.number} of {trials}: NDCG@20 {best.goal:.4f} on validation. nextitem train --config {BEST}\n"
    return head + yaml.safe_dump({"model": whole}, sort_keys=False)
