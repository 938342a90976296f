"""How the command line shows each stage's result to people; scripts read the same with ``--json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.display import show_facts, show_line, show_table

_ANSWER = ("session_id", "item_id", "score", "unknown_events")


def show_run(result: dict[str, Any]) -> None:
    """All stages of a run, and how to go on."""
    show_preprocess(result["preprocess"])
    show_train(result["train"])
    show_evaluate(result["evaluate"])
    folder = Path(result["output"])
    show_line(f"\nServe it:   nextitem serve {folder / 'model_repository'}")
    show_line(f"Ask it:     nextitem recommend {folder / 'features' / 'sample.parquet'}")


def show_preprocess(report: dict[str, Any]) -> None:
    """What was read, kept and left out; or the days that were appended."""
    from preprocessing.report import show_data, show_days

    if "days" in report:
        show_days(report)
        return
    show_data(report)
    show_facts("Prepared", {name: report[name] for name in ("events", "sessions", "items")})
    rows = [[name, facts["begins"], facts["sessions"], facts["events"]] for name, facts in report["windows"].items()]
    show_table("Windows", ("", "begins", "sessions", "events"), rows)


def show_train(report: dict[str, Any]) -> None:
    """How the training went."""
    show_facts("Training", report)


def show_search(result: dict[str, Any]) -> None:
    """The best settings, and how to train with them."""
    best, first, counts = result["best"], result["first"], result["trials"]
    show_table(
        f"Best settings, of trial {best['trial']}",
        ("", "value"),
        [[name, str(value)] for name, value in best["settings"].items()],
    )
    done = f"{sum(counts.values())} trials, {counts['pruned']} of them cut off and {counts['failed']} failed"
    before = f", {first:.4f} with the settings of the first trial" if first is not None else ""
    show_line(f"NDCG@20 on {result['windows']['valid']}: {best['ndcg@20']:.4f}{before}; {done}.")
    show_line(f"\nTrain with them:   nextitem train --config {Path(result['output']) / 'best.yaml'}")
    show_line(f"Look at them:      {Path(result['output']) / 'report.html'}")


def show_evaluate(result: dict[str, Any]) -> None:
    """Metrics with their intervals beside those of the baselines, what they hide, and what is recommended."""
    if "seeds" in result:
        _show_seeds(result)
        return
    known = _measured(result)
    models = list(result["metrics"])
    # Of the longest lists.
    goal = [name for name in result["metrics"]["model"] if name.startswith("ndcg@")][-1]
    _show_figures(f"Last item of held-out sessions, whole catalogue ranked ({known})", result)
    show_line("In brackets: 95% intervals, from 1,000 draws of whole sessions. With one item to find, MAP is MRR.")
    _show_differences(result["differences"], goal)
    for path, other in result.get("against", {}).items():
        same = f"minus that of {path} on {other['sessions']:,} sessions"
        for name, figure in other["differences"].items():
            if not name.startswith("map@"):
                show_line(f"{name}, this model {same}: {_figure(figure, '+.4f')}")
    _show_groups(f"{goal} by the events that were seen", models, result["by_length"], goal)
    _show_groups(f"{goal} by the item that came: thirds of the training events", models, result["by_popularity"], goal)
    _show_lists(result["lists"])
    if "all_next" in result:
        _show_all_next(result["all_next"], models, goal)


def _measured(result: dict[str, Any]) -> str:
    known = f"{result['sessions']:,} sessions"
    if result["unknown_targets"]:
        known += f", and {result['unknown_targets']:,} left out whose last item training never saw"
    if result["struck_targets"]:
        known += f", {result['struck_targets']:,} of them with a last item that is never recommended"
    return known


def _show_seeds(result: dict[str, Any]) -> None:
    models, seeds, baselines = result["models"], result["seeds"], result["baselines"]
    header = ("", "mean of the seeds", "between seeds", *(f"seed {own['seed']}" for own in models.values()), *baselines)
    rows = []
    for name, figure in seeds.items():
        if name.startswith("map@"):
            continue
        own = [one["metrics"][name] for one in models.values()]
        others = [_figure(baseline[name]) for baseline in baselines.values()]
        rows.append([name, _figure(figure), figure["spread"], *own, *others])
    show_table(f"Last item of held-out sessions, whole catalogue ranked ({_measured(result)})", header, rows)
    show_line(
        "In brackets: 95% intervals, from 1,000 draws of whole sessions. Between seeds: the standard deviation of the "
        f"{len(models)} models."
    )
    _show_differences(result["differences"], [name for name in seeds if name.startswith("ndcg@")][-1])


def _figure(figure: dict[str, float], form: str = ".4f") -> str:
    return f"{figure['mean']:{form}} ({figure['low']:{form}} to {figure['high']:{form}})"


def _show_figures(title: str, result: dict[str, Any]) -> None:
    intervals = result["intervals"]
    rows = [[name, *(_figure(own[name]) for own in intervals.values())] for name in result["metrics"]["model"]]
    show_table(title, ("", *intervals), rows)


def _show_differences(differences: dict[str, Any], goal: str) -> None:
    for baseline, metrics in differences.items():
        show_line(f"{goal}, model minus {baseline} on the same sessions: {_figure(metrics[goal], '+.4f')}")


def _show_groups(title: str, models: list[str], groups: dict[str, Any], goal: str) -> None:
    rows = [
        [name, group["targets"], *(_figure(group["intervals"][model][goal]) for model in models)]
        for name, group in groups.items()
    ]
    show_table(title, ("", "targets", *models), rows)


def _show_lists(lists: dict[str, Any]) -> None:
    names = list(lists["model"])
    clicked = [lists["clicked"][name.partition("@")[0]] for name in names]
    rows = [["clicked", *clicked], *([model, *own.values()] for model, own in lists.items() if model != "clicked")]
    show_table("What is recommended, beside what was clicked", ("", *names), rows)
    show_line(
        "Coverage: share of the catalogue. Popularity: mean percentile by training events, 0.5 of the catalogue. "
        "Gini: 0 if all items are shown as often."
    )


def _show_all_next(result: dict[str, Any], models: list[str], goal: str) -> None:
    known = f"{result['targets']:,} of {result['sessions']:,} sessions"
    if result["unknown_targets"]:
        known += f", and {result['unknown_targets']:,} left out that training never saw"
    _show_figures(f"Every item but the first ({known})", result)
    by_session = (f"{model} {_figure(result['by_session'][model][goal])}" for model in models)
    show_line(f"Here every item weighs the same. {goal} if every session does: {', '.join(by_session)}")
    _show_differences(result["differences"], goal)
    _show_groups(f"Every item but the first: {goal} by the events that were seen", models, result["by_length"], goal)
    title = f"Every item but the first: {goal} by the item that came"
    _show_groups(title, models, result["by_popularity"], goal)


def show_recommend(result: dict[str, Any]) -> None:
    """A row of items a session."""
    rows = []
    for session, items, scores, unknown in zip(*(result[name] for name in _ANSWER), strict=True):
        listed = ", ".join(f"{item} ({score:.2f})" for item, score in zip(items, scores, strict=True))
        rows.append([str(session), listed, str(unknown)])
    show_table("Recommendations, best first (score)", ("session", "items", "unknown events"), rows)


def show_loadtest(result: dict[str, Any]) -> None:
    """A row of throughput and latencies a concurrency."""
    header = ("concurrency", "req_per_s", "p50_ms", "p95_ms", "p99_ms", "errors")
    show_table("Load test", header, [[row[name] for name in header] for row in result["rows"]])


def show_demo(result: dict[str, Any]) -> None:
    """What the demo did."""
    from demo import show

    show(result)
