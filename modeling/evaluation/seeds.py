"""One way of training under several seeds: the mean of its models, how sure it is, and how much a seed matters."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from common.artefacts import read_manifest
from common.errors import UserError
from common.progress import say
from modeling.evaluation.bootstrap import across_seeds, paired
from modeling.evaluation.sessions_file import read_table
from modeling.evaluation.stage import evaluate
from modeling.ranking_metric import metrics_by_row

# What may differ between models whose figures are averaged: nothing that changes how they are trained.
_MAY_DIFFER = {"seed", "device", "threads"}


def evaluate_seeds(
    models: Sequence[Path | str],
    features: Path | str,
    window: str = "test",
    ks: Sequence[int] = (10, 20),
    device: str = "auto",
) -> dict[str, Any]:
    """Figures of models that differ in their seed alone.

    Parameters
    ----------
    models : sequence of Path or str
        Folders that ``train`` wrote, two or more.
    features, window, ks, device
        As for `modeling.evaluation.evaluate`.

    Returns
    -------
    dict
        What `evaluate` calls ``window``, ``exclude``, ``sessions``, ``unknown_targets`` and ``struck_targets``, and:

        =============== ============================================================================================
        ``models``      ``{folder: {"seed", "metrics": {metric: mean}}}``
        ``seeds``       ``{metric: {"mean", "low", "high", "spread", "runs"}}``: the mean of all models with its 95%
                        interval over sessions, the standard deviation between the models' means, their number.
        ``baselines``   ``{baseline: {metric: {"mean", "low", "high"}}}``
        ``differences`` ``{baseline: {metric: {"mean", "low", "high"}}}``: the mean of all models minus the baseline's,
                        session by session.
        =============== ============================================================================================

    Raises
    ------
    UserError
        When the models share a seed or differ in more than the seed, and as `evaluate` has it.
    """
    described = {str(model): _described(Path(model)) for model in models}
    seeds = _seeds(described, len(models))
    tables: list[pa.Table] = []
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for place, model in enumerate(described):
            say(f"{model}, seed {seeds[model]}")
            file = Path(folder) / f"{place}.parquet"
            results[model] = evaluate(model, features, window, ks, device, sessions_file=file)
            tables.append(read_table(file))
    first = next(iter(results.values()))
    runs = [_metrics(table, "model", ks) for table in tables]
    names = list(runs[0])
    mean = {name: torch.stack([run[name] for run in runs]).mean(0) for name in names}
    # Baselines have no seed: those of the first model are those of all.
    others = {name: _metrics(tables[0], name, ks) for name in first["metrics"] if name != "model"}
    return {
        **{name: first[name] for name in ("window", "exclude", "sessions", "unknown_targets", "struck_targets")},
        "models": {
            model: {"seed": seeds[model], "metrics": result["metrics"]["model"]} for model, result in results.items()
        },
        "seeds": {name: across_seeds([run[name] for run in runs]) for name in names},
        "baselines": {name: first["intervals"][name] for name in others},
        "differences": {name: {m: paired(mean[m], own[m]) for m in names} for name, own in others.items()},
    }


def _described(model: Path) -> dict[str, Any]:
    """What a model was trained with, and on."""
    manifest = read_manifest(model, "model", "nextitem train")
    return {
        "settings": manifest["settings"],
        "features": manifest.get("inputs", {}),
        "windows": manifest["report"].get("windows", {}),
    }


def _seeds(described: dict[str, dict[str, Any]], given: int) -> dict[str, int]:
    """The seed of each model; they must be comparable."""
    if len(described) < given:
        raise UserError("--model names the same folder twice")
    (one, first), *others = described.items()
    seeds = {one: int(first["settings"]["seed"])}
    for model, own in others:
        for what in first:
            mine, theirs = first[what], own[what]
            differ = sorted(key for key in {*mine, *theirs} - _MAY_DIFFER if mine.get(key) != theirs.get(key))
            if differ:
                raise UserError(
                    f"{one} and {model} differ in {what}: {', '.join(differ)}; several --model are for one way of "
                    "training under several seeds, and 'nextitem evaluate --against' compares others"
                )
        seed = int(own["settings"]["seed"])
        if seed in seeds.values():
            raise UserError(f"{model} has the seed {seed} that another --model has too: train it with another --seed")
        seeds[model] = seed
    return seeds


def _metrics(table: pa.Table, name: str, ks: Sequence[int]) -> dict[str, Tensor]:
    """Metrics of the sessions that were measured."""
    ranks = torch.from_numpy(table.column(f"{name}.rank").to_numpy().copy())
    return metrics_by_row(ranks[~ranks.isnan()], ks)
