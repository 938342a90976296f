"""Evaluation on held-out sessions: the full catalogue is ranked for the last item of each.

The last event of a session is removed with all its features; what is left goes through the same code as a request.
Ties are broken without favour (`modeling.ranking_metric.rank_of`). The two baselines see the same sessions and the
same exclusion.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.artefacts import identity, read_manifest
from common.errors import UserError
from common.progress import say, step
from modeling.baselines import Cooccurrence, Popularity
from modeling.checkpoint import DESCRIPTION
from modeling.compute import pick_device
from modeling.data import Sessions, read_sessions
from modeling.model import Model
from modeling.ranking import strike
from modeling.ranking_metric import rank_of, summary
from modeling.schema import Feature, features_of, read_schema
from modeling.sequence import lengths, without_last

# Scores held at once, so memory does not grow with sessions x items.
_SCORES_AT_ONCE = 1 << 24


def ranks(
    scores: Callable[[dict[str, Tensor]], Tensor],
    sessions: Sessions,
    item: Feature,
    limit: int,
    exclude: str = "none",
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Rank of each session's last item, given the events before it.

    Parameters
    ----------
    scores : callable
        Scores [B, cardinality] from columns [B, L]: a `Model` in evaluation mode, or a baseline.
    sessions : Sessions
        The held-out window.
    item : Feature
        The item column.
    limit : int
        Sessions are cut to their last `limit` events, the target among them.
    exclude : {"none", "last", "seen"}
        Items of the shortened session that are struck from the ranking.
    batch_size : int
        Sessions scored at once, fewer where the catalogue is large.
    device : str or torch.device
        Where to score.
    advance : callable, optional
        Told the number of sessions done.

    Returns
    -------
    Tensor [S], float32
        In the order of the sessions; infinite where the target is struck, NaN where it is a reserved id (an
        item that training never saw) or the session has fewer than two events.
    """
    found = torch.full((len(sessions),), float("nan"))
    batch_size = max(1, min(batch_size, _SCORES_AT_ONCE // item.cardinality))
    with torch.inference_mode():
        for chosen, batch in sessions.batches(batch_size, limit):
            batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            valid = lengths(batch[item.name]) >= 2
            past, target = without_last(batch, item.name, batch.keys() - sessions.whole)
            valid &= target >= item.reserved
            own = rank_of(strike(scores(past), past[item.name], exclude), target)
            found[chosen] = own.masked_fill(~valid, float("nan")).cpu()
            if advance is not None:
                advance(len(chosen))
    return found


def describe_model(model: Path | str) -> dict[str, Any]:
    """The content of a model folder's ``model.json``.

    Raises
    ------
    UserError
        When it is missing or unreadable.
    """
    path = Path(model) / DESCRIPTION
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: run 'nextitem train' first") from error
    return content


def evaluate(
    model: Path | str, features: Path | str, window: str = "test", ks: Sequence[int] = (10, 20), device: str = "auto"
) -> dict[str, Any]:
    """Metrics of a trained model and of two baselines on a held-out window.

    Parameters
    ----------
    model, features : Path or str
        The folders that ``train`` and ``preprocess`` wrote. The baselines are fitted on the window that the model was
        trained on.
    window : str
        ``"test"``, ``"valid"``, or days that were appended: see `common.days.days_in`.
    ks : sequence of int
        Cut-offs.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    dict
        ``{"window", "exclude", "sessions", "unknown_targets", "metrics": {"model" | "popularity" |
        "cooccurrence": {"recall@10": ..., "ndcg@10": ..., "mrr@10": ..., ...}}}``. `sessions` counts those that were
        measured; `unknown_targets` those left out because their target does not occur in training.

    Raises
    ------
    UserError
        When a folder is missing, altered, empty, or the two do not belong together.
    """
    model, features = Path(model), Path(features)
    manifest = read_manifest(model, "model", "nextitem train")
    read_manifest(features, "features", "nextitem preprocess")
    trained = Model.load(model).to(pick_device(device))
    _same_features(trained, features)
    if manifest.get("inputs", {}).get("features") != identity(features):
        say(f"{features} was made anew since {model} was trained on it: its codes may mean other items")
    exclude = str(describe_model(model).get("exclude", "none"))
    item = trained.inputs.item
    held_out = read_sessions(features, window, trained.features)
    train = read_sessions(features, manifest["report"].get("windows", {}).get("train", "train"), [item])
    counts = (train, item.name, item.cardinality, item.reserved)
    popularity, cooccurrence = Popularity(*counts), Cooccurrence(*counts)
    scorers: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {
        "model": trained,
        "popularity": lambda past: popularity.scores(past[item.name]),
        "cooccurrence": lambda past: cooccurrence.scores(past[item.name]),
    }
    result: dict[str, Any] = {"window": window, "exclude": exclude, "metrics": {}}
    with step(f"Evaluating on {window}", len(scorers) * len(held_out)) as bar:
        for name, scorer in scorers.items():
            where = next(trained.parameters()).device if name == "model" else "cpu"
            found = ranks(
                scorer, held_out, item, trained.max_sequence_length, exclude, device=where, advance=bar.advance
            )
            known = found[~found.isnan()]
            if not len(known):
                raise UserError(f"{features / window} has no session whose last item occurs in training")
            result["metrics"][name] = summary(known, ks)
            result["sessions"] = len(known)
        bar.say(f"NDCG@{ks[-1]} {result['metrics']['model'][f'ndcg@{ks[-1]}']:.4f}")
    result["unknown_targets"] = int(((held_out.lengths >= 2) & found.isnan()).sum())
    return result


def _same_features(model: Model, folder: Path) -> None:
    known = {feature.name: feature for feature in features_of(read_schema(folder))}
    for feature in model.features:
        if feature != known.get(feature.name):
            raise UserError(f"the model was trained on another {feature.name!r} than {folder} has: train it anew")


def recommend(
    model: Path | str | Model, inputs: dict[str, Tensor], k: int = 20, exclude: str | None = None
) -> tuple[Tensor, Tensor]:
    """Best items for padded sessions, offline: what a server must answer too.

    Parameters
    ----------
    model : Path, str or Model
        A model, or its folder.
    inputs : dict of Tensor [B, L]
        Encoded columns, right-padded with 0.
    k : int
        How many.
    exclude : {"none", "last", "seen"}, optional
        By default what the model's folder says, "none" for a `Model`.

    Returns
    -------
    tuple of Tensor [B, k]
        Scores float32 and item ids int64, best first.
    """
    from modeling.export.torchscript import recommender

    if not isinstance(model, Model):
        exclude = exclude or str(describe_model(model).get("exclude", "none"))
        model = Model.load(model)
    with torch.inference_mode():
        result: tuple[Tensor, Tensor] = recommender(model.eval(), exclude or "none")(inputs, k)
    return result
