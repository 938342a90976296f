"""Appended days on a screen: what came in, which sessions went on, and how far the days are from the training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.display import show_facts, show_line, show_table
from preprocessing.drift import STABLE

_SHARES = ("unknown", "unknown_in_training", "null", "null_in_training")


def show_days(report: Mapping[str, Any]) -> None:
    """Print what `preprocessing.append.append` returns."""
    facts = {"events read": report["events_read"], "events of open sessions": report["events_carried"]}
    facts |= {f"dropped: {reason}": count for reason, count in report["events_dropped"].items()}
    show_facts("Events", facts | {"events written": report["events"]})
    days = [
        [day, facts["sessions"], facts["continued_sessions"], facts["events"], _percent(facts["items"]["unknown"])]
        for day, facts in report["days"].items()
    ]
    show_table("Days", ("", "sessions", "continued", "events", "unknown items"), days)
    rows = []
    for day, facts in report["days"].items():
        for name, drift in facts["drift"].items():
            if len(days) > 1 and drift["verdict"] in (STABLE, None):
                continue
            shares = [_percent(drift.get(share)) for share in _SHARES]
            shift = "" if drift.get("mean_shift") is None else f"{drift['mean_shift']:+.2f} sd"
            index = ["" if drift[key] is None else f"{drift[key]:.4f}" for key in ("psi", "by_chance")]
            rows.append([name, day, *index, drift["verdict"] or "", *shares, shift])
    header = ("feature", "day", "psi", "by chance", "", "unknown", "in training", "null", "in training", "mean shift")
    if rows:
        show_table("Drift against the training window (population stability index)", header, rows)
    if len(days) > 1:
        show_line("The other features are stable." if rows else "All features are stable.")
    for day in report["days_removed"]:
        show_line(f"{day} has no session any more: removed")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
