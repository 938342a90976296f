"""The data on a screen: what was read, what was dropped and why, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from common.display import plain, show_bars, show_line
from preprocessing.report import facts

_ROWS = 14
_TOP = 5
_NAMED = 3


def show_data(report: Mapping[str, Any]) -> None:
    """Print a small picture of the data, 80 columns wide.

    Parameters
    ----------
    report : mapping
        The report of a features folder's manifest. What it lacks, as an older one lacks ``data``, is left out.
    """
    read = report["events_read"]
    show_bars(
        "Events",
        [(step.text, step.events, facts.share(step.events, read) if read else "") for step in facts.steps(report)],
    )
    data = report.get("data") or {}
    if "events" in data:
        _show_events(data["events"])
    if "catalogue" in data:
        _show_catalogue(data["catalogue"])
    if "features" in data:
        _show_unknown(data["features"])


def _show_events(events: Mapping[str, Any]) -> None:
    bins = facts.calendar(events["days"], _ROWS)
    if bins.counts:
        show_bars(
            f"Events a {bins.unit}, {facts.span(events['days'])} (UTC)",
            [(label, count, "") for label, count in zip(bins.labels, bins.counts, strict=True)],
        )
        if stray := facts.strays(events["days"]):
            _say(stray)
    sessions = facts.sessions(events["lengths"])
    if sessions:
        show_bars(
            "Sessions by their number of events",
            [(label, count, facts.share(count, sessions)) for label, count in facts.lengths(events["lengths"])],
        )


def _show_catalogue(catalogue: Mapping[str, Any]) -> None:
    if not catalogue["items"]:
        return
    total = catalogue["events"]
    show_bars(
        "Most popular items",
        [
            (plain(entry["item"], 40), entry["events"], facts.share(entry["events"], total))
            for entry in catalogue["top"][:_TOP]
        ],
    )
    _say(facts.tail(catalogue))


def _show_unknown(features: Mapping[str, Any]) -> None:
    shares = [(name, part) for name, part in facts.unknown(features) if part][:_NAMED]
    if shares:
        named = ", ".join(f"{plain(name, 20)} {facts.share(part)}" for name, part in shares)
        _say(f"Test events that training did not know: {named}.")


def _say(sentence: str) -> None:
    show_line(fill(sentence, 80))
