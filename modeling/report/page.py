"""The model card as a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from common.page.document import card, paragraph, prose, section, table, text, tiles, write_page
from modeling.ranking_metric import GOAL
from modeling.report.facts import Example, Figures, named

_LABELS = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}
_RUN = (
    "architecture",
    "masking",
    "parameters",
    "catalogue_size",
    "sessions",
    "epochs",
    "best_epoch",
    "train_seconds",
    "train_sessions_per_s",
    "seconds",
    "device",
    "peak_mib",
    "gpu_peak_mib",
)


def write_card(
    path: Path,
    report: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    figures: Figures | None,
    names: Sequence[str],
    features: Sequence[str],
) -> None:
    """Write a model card as one self-contained page.

    Parameters
    ----------
    path : Path
        The HTML file.
    report : mapping
        What `modeling.training.train` reports.
    history : sequence of mapping
        A line an epoch: ``epoch``, ``loss``, ``sessions_per_s`` and validation metrics.
    settings : mapping
        Of the model.
    figures : Figures or None
        From `measure`.
    names : sequence of str
        The item of each code, as people know it; codes that it lacks are shown as numbers.
    features : sequence of str
        The columns that the model takes.
    """
    # Matplotlib takes a moment to import, which only those who want the page pay.
    from common.page.svg import style

    title = f"{report['architecture']}, {report['masking']}"
    entries: list[tuple[str, Any]] = [("items", report["catalogue_size"]), ("training sessions", report["sessions"])]
    with style():
        cards = [_learning(report, history)]
        if figures is not None:
            entries.append((f"NDCG@20 on {report['windows']['valid']}", figures.metrics["model"][GOAL]["mean"]))
            cards += [_quality(figures), _lengths(figures)]
        cards += [_run(report), _settings(settings, features)]
        if figures is not None:
            cards.append(_examples(figures.examples, names))
    words = "" if figures else "The validation window has no session whose last item training knows."
    write_page(path, f"{title}: the model", title, tiles(entries) + paragraph(words), cards)


def _learning(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    from modeling.report import plots

    kept = report["best_epoch"]
    said = [f"The weights of epoch {kept} of {len(history)} were kept, the best on validation."]
    if kept == len(history) and len(history) == report.get("epochs_allowed"):
        said.append("The last epoch was the best: more epochs may do better.")
    if report.get("evidence"):
        before, after = report["evidence"]["before"], report["evidence"]["valid"][GOAL]
        said.append(f"The curve is the network's; counts of pairs of items took it from {before:.4f} to {after:.4f}.")
        said.append("What counts weigh was learned on this window: the test window tells without favour.")
    elif "evidence" in report:
        said.append("Counts of pairs of items did not help, and were left out.")
    header = ("epoch", "loss", "sessions/s", *(_label(name) for name in history[0] if "@" in name))
    rows = [
        (str(line["epoch"]), line["loss"], line["sessions_per_s"], *(line[name] for name in line if "@" in name))
        for line in history
    ]
    goal = card("goal", "Validation", plots.curve(history, GOAL, "NDCG@20", kept), said, [])
    lost = plots.curve(history, "loss", "mean loss of a target", kept)
    return goal + card("loss", "Training loss", lost, [], [table("Every epoch", header, rows)])


def _label(metric: str) -> str:
    name, _, k = metric.partition("@")
    return f"{_LABELS.get(name, name)}@{k}"


def _quality(figures: Figures) -> str:
    from modeling.report import plots

    own = figures.metrics["model"][GOAL]
    best = max((name for name in figures.metrics if name != "model"), key=lambda n: figures.metrics[n][GOAL]["mean"])
    other = figures.metrics[best][GOAL]
    if own["low"] > other["high"]:
        verdict = f"The model is better than {best}."
    elif own["high"] < other["low"]:
        verdict = f"The model is worse than {best}: something is wrong, or the data too small."
    else:
        verdict = f"The intervals of the model and of {best} overlap: on this window they cannot be told apart by them."
    said = [
        f"NDCG@20 of {figures.sessions:,} sessions, with 95% intervals from drawing sessions anew. {verdict}",
        "The last item of each session is predicted from those before it, and the whole catalogue is ranked.",
    ]
    rows = [
        (f"{name}: {_label(metric)}", value["mean"], value["low"], value["high"])
        for name, metrics in figures.metrics.items()
        for metric, value in metrics.items()
    ]
    exact = table("Metrics with 95% intervals", ("", "mean", "from", "to"), rows)
    return card("quality", "Beside tables of counts", plots.compared(figures.metrics, GOAL), said, [exact])


def _lengths(figures: Figures) -> str:
    from modeling.report import plots

    rows = [
        (name, found["targets"], *(found["intervals"]["model"][GOAL][end] for end in ("mean", "low", "high")))
        for name, found in figures.by_length.items()
    ]
    exact = table("NDCG@20 by the events seen", ("events", "sessions", "mean", "from", "to"), rows)
    drawn = plots.grouped(figures.by_length, GOAL, "events that the model saw")
    return card("lengths", "By how much was seen", drawn, ["NDCG@20, with 95% intervals."], [exact])


def _examples(examples: Sequence[Example], names: Sequence[str]) -> str:
    rows = []
    for one in examples:
        listed = zip(one.recommended, named(one.recommended, names), strict=True)
        marked = [f"<mark>{text(name)}</mark>" if code == one.came else text(name) for code, name in listed]
        place = f"{one.rank:,.0f}" if isfinite(one.rank) else "not to be recommended"
        past, came = " &rsaquo; ".join(_whole(map(text, named(one.past, names)))), text(named([one.came], names)[0])
        rows.append((past, ", ".join(_whole(marked)), f"{came} ({place})"))
    words = "Sessions of the validation window, evenly from the best prediction to the worst. What came is marked."
    header = ("the session so far", "recommended, best first", "what came, and its place in the ranking")
    return section("Examples", words, prose("Examples", header, rows), wide=True)


def _whole(words: Iterable[str]) -> list[str]:
    """Words that are not to be broken at a hyphen."""
    return [f"<span>{word}</span>" for word in words]


def _run(report: Mapping[str, Any]) -> str:
    rows = [(name.replace("_", " "), report[name]) for name in _RUN if name in report]
    rows += [(f"window: {name}", window) for name, window in report["windows"].items()]
    return section("The run", "", table("Time in seconds, memory in MiB", ("", ""), rows))


def _settings(settings: Mapping[str, Any], features: Sequence[str]) -> str:
    rows = [(name, value) for name, value in settings.items()]
    said = [f"Inputs: {', '.join(features)}."]
    return card("settings", "Settings", None, said, [table("Every setting", ("", ""), rows)])
