"""The evaluation stage: a model folder and a features folder in, every figure of a held-out window out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.artefacts import identity, read_manifest
from common.errors import UserError
from common.progress import say, step
from modeling.baselines import Cooccurrence, Popularity, TrainingWindow
from modeling.compute import pick_device
from modeling.data import Sessions, read_sessions
from modeling.evaluation.bootstrap import by_session
from modeling.evaluation.breakdown import LENGTHS, THIRDS, break_down, figures, length_groups, popularity_groups
from modeling.evaluation.lists import Exposure
from modeling.evaluation.lists import summary as summary_of_lists
from modeling.evaluation.offline import describe_model
from modeling.evaluation.scoring import Scorer, Targets, all_items, all_ranks, last_items, ranks
from modeling.evaluation.sessions_file import compare, read_session_ids, read_table, session_table, write_table
from modeling.model import Model
from modeling.ranking_metric import metrics_by_row, summary
from modeling.schema import Feature, features_of, read_schema


def evaluate(
    model: Path | str,
    features: Path | str,
    window: str = "test",
    ks: Sequence[int] = (10, 20),
    device: str = "auto",
    all_next: bool = False,
    sessions_file: Path | str | None = None,
    against: Sequence[Path | str] | None = None,
) -> dict[str, Any]:
    """Figures of a trained model and of two baselines on a held-out window.

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
    all_next : bool
        Predict every item but the first of each session, too.
    sessions_file : Path or str, optional
        Where to write rank and metrics of every session: see `modeling.evaluation.sessions_file`.
    against : sequence of Path or str, optional
        Such files of other models, to compare with session by session.

    Returns
    -------
    dict
        Models are ``"model"``, ``"popularity"`` and ``"cooccurrence"``; metrics ``"recall@10"``, ``"ndcg@10"``,
        ``"mrr@10"`` and so on. A `figure` is ``{"mean", "low", "high"}``: a mean with its 95% interval from 1,000 draws
        of whole sessions. `figures` are ``{model: {metric: figure}}`` with ``"map@10"`` besides, which equals
        ``"mrr@10"`` as a target is one item.

        =================== ========================================================================================
        ``window``          As given.
        ``exclude``         Items of the session that are not recommended, as the model was trained.
        ``sessions``        Sessions that were measured.
        ``unknown_targets`` Sessions left out, because their last item does not occur in training.
        ``struck_targets``  Measured sessions that no model can get right, because `exclude` strikes their last item.
        ``metrics``         ``{model: {metric: mean}}``
        ``intervals``       `figures` of the same.
        ``differences``     ``{baseline: {metric: figure}}``: the model's minus the baseline's, session by session.
        ``by_length``       ``{"1" | "2" | "3-4" | "5-9" | "10+": {"targets", "intervals": figures}}`` by the events
                            that were seen; groups without a target are missing.
        ``by_popularity``   The same for ``"head"``, ``"mid"`` and ``"tail"``, by the target's popularity: see
                            `modeling.evaluation.breakdown.popularity_groups`.
        ``lists``           ``{"clicked": {"coverage", "popularity", "gini"}, model: {"coverage@10", "popularity@10",
                            "gini@10", ...}}``: of what was recommended to the measured sessions, beside their targets.
                            See `modeling.evaluation.lists`.
        ``all_next``        Only where asked for: ``{"targets", "sessions", "unknown_targets", "metrics", "intervals",
                            "differences", "by_session", "by_length", "by_popularity"}``. Every target weighs the
                            same, but in `by_session` (`figures`), where every session does. Sessions are drawn whole.
        ``against``         Only where asked for: ``{file: {"sessions", "differences": {metric: figure}}}``, this
                            model's minus the other's.
        =================== ========================================================================================

    Raises
    ------
    UserError
        When a folder is missing, altered, empty, or the two do not belong together.
    """
    features = Path(features)
    others = {str(path): read_table(path) for path in against or ()}
    trained, exclude, train_window = _load(Path(model), features, device)
    item, limit = trained.inputs.item, trained.max_sequence_length
    held_out = read_sessions(features, window, trained.features)
    train = read_sessions(features, train_window, [item])
    scorers = scorers_of(trained, train, item)
    exposures = {name: Exposure(item.cardinality, ks) for name in scorers}
    found: dict[str, Tensor] = {}
    with step(f"Evaluating on {window}", len(scorers) * len(held_out)) as bar:
        for name, (scorer, where) in scorers.items():
            options: dict[str, Any] = {"device": where, "advance": bar.advance, "exposure": exposures[name]}
            found[name] = ranks(scorer, held_out, item, limit, exclude, **options)
        measured = ~found["model"].isnan()
        if not bool(measured.any()):
            raise UserError(f"{features / window} has no session whose last item occurs in training")
        metrics = {name: summary(own[measured], ks) for name, own in found.items()}
        bar.say(f"NDCG@{ks[-1]} {metrics['model'][f'ndcg@{ks[-1]}']:.4f}")
    targets = last_items(held_out, item.name, limit)
    counts = torch.bincount(train.values[item.name], minlength=item.cardinality)
    values = {name: metrics_by_row(own[measured], ks) for name, own in found.items()}
    result: dict[str, Any] = {
        "window": window,
        "exclude": exclude,
        "sessions": int(measured.sum()),
        "unknown_targets": int(((held_out.lengths >= 2) & ~measured).sum()),
        # The baselines' scores are finite, so nothing else makes their ranks infinite.
        "struck_targets": int(found["popularity"].isinf().sum()),
        "metrics": metrics,
        "intervals": figures(values),
        "differences": _differences(values),
        **_broken_down(values, targets, measured, counts, item.reserved),
        "lists": summary_of_lists(exposures, targets.item[measured], counts, item.reserved),
    }
    if all_next:
        result["all_next"] = _all_next(scorers, held_out, item, limit, exclude, ks, counts)
    if sessions_file or others:
        table = session_table(found, targets, ks, read_session_ids(features, window))
        if others:
            result["against"] = {path: compare(table, other, ks, where=path) for path, other in others.items()}
        if sessions_file:
            write_table(table, sessions_file)
    return result


def _load(model: Path, features: Path, device: str) -> tuple[Model, str, str]:
    """The model, what it does not recommend, and the window that it was trained on."""
    manifest = read_manifest(model, "model", "nextitem train")
    read_manifest(features, "features", "nextitem preprocess")
    trained = Model.load(model).to(pick_device(device))
    _same_features(trained, features)
    if manifest.get("inputs", {}).get("features") != identity(features):
        say(f"{features} was made anew since {model} was trained on it: its codes may mean other items")
    exclude = str(describe_model(model).get("exclude", "none"))
    return trained, exclude, str(manifest["report"].get("windows", {}).get("train", "train"))


def _same_features(model: Model, folder: Path) -> None:
    known = {feature.name: feature for feature in features_of(read_schema(folder))}
    for feature in model.features:
        if feature != known.get(feature.name):
            raise UserError(f"the model was trained on another {feature.name!r} than {folder} has: train it anew")


def scorers_of(trained: Model, train: Sessions, item: Feature) -> dict[str, tuple[Scorer, torch.device]]:
    """The model and the baselines, and where each of them scores."""
    window = TrainingWindow(train, item.name, item.cardinality, item.reserved)
    popularity, cooccurrence = Popularity(window), Cooccurrence(window)
    cpu = torch.device("cpu")
    return {
        "model": (trained, next(trained.parameters()).device),
        "popularity": (lambda past: popularity.scores(past[item.name]), cpu),
        "cooccurrence": (lambda past: cooccurrence.scores(past[item.name]), cpu),
    }


def _differences(values: dict[str, dict[str, Tensor]], session: Tensor | None = None) -> dict[str, Any]:
    own = values["model"]
    others = {name: metrics for name, metrics in values.items() if name != "model"}
    return figures(
        {name: {m: own[m] - value for m, value in metrics.items()} for name, metrics in others.items()}, session
    )


def _broken_down(
    values: dict[str, dict[str, Tensor]],
    targets: Targets,
    measured: Tensor,
    counts: Tensor,
    reserved: int,
    session: Tensor | None = None,
) -> dict[str, Any]:
    lengths, popularity = length_groups(targets.seen), popularity_groups(counts, reserved)[targets.item]
    return {
        "by_length": break_down(values, lengths[measured], tuple(LENGTHS), session),
        "by_popularity": break_down(values, popularity[measured], THIRDS, session),
    }


def _all_next(
    scorers: dict[str, tuple[Scorer, torch.device]],
    held_out: Sessions,
    item: Feature,
    limit: int,
    exclude: str,
    ks: Sequence[int],
    counts: Tensor,
) -> dict[str, Any]:
    targets = all_items(held_out, item.name, limit)
    found = {}
    with step("Evaluating all next items", len(scorers) * len(targets.item)) as bar:
        for name, (scorer, where) in scorers.items():
            found[name] = all_ranks(scorer, held_out, item, limit, exclude, device=where, advance=bar.advance)
        # Not empty: the last items are among them.
        measured = ~found["model"].isnan()
        metrics = {name: summary(own[measured], ks) for name, own in found.items()}
        bar.say(f"NDCG@{ks[-1]} {metrics['model'][f'ndcg@{ks[-1]}']:.4f}")
    session = targets.session[measured]
    values = {name: metrics_by_row(own[measured], ks) for name, own in found.items()}
    means = {name: {m: by_session(value, session)[0] for m, value in own.items()} for name, own in values.items()}
    return {
        "targets": int(measured.sum()),
        "sessions": len(session.unique()),
        "unknown_targets": int((~measured).sum()),
        "metrics": metrics,
        "intervals": figures(values, session),
        "differences": _differences(values, session),
        "by_session": figures(means),
        **_broken_down(values, targets, measured, counts, item.reserved, session),
    }
