"""How the command line shows each stage's result to people; scripts read the same with ``--json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.display import show_facts, show_line, show_metrics, show_table

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


def show_evaluate(result: dict[str, Any]) -> None:
    """Metrics beside those of the baselines."""
    known = f"{result['sessions']:,} sessions"
    if result["unknown_targets"]:
        known += f", and {result['unknown_targets']:,} left out whose last item training never saw"
    show_metrics(f"Last item of held-out sessions, whole catalogue ranked ({known})", result["metrics"])


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
