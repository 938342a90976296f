"""The page: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.page.document import card, paragraph, table, tiles, write_page
from preprocessing.report import facts

_TABLE_BINS = 60
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def write_report(path: Path, name: str, report: Mapping[str, Any]) -> None:
    """Write the picture of a data set as one self-contained page.

    Parameters
    ----------
    path : Path
        The HTML file to write.
    name : str
        The data set's name.
    report : mapping
        The report of a features folder's manifest: ``events_read``, ``events_dropped``, ``events``, ``sessions``,
        ``items``, ``windows``, and where they are known ``quarantined`` and ``data`` with ``events``, ``catalogue``
        and ``features`` (see `preprocessing.statistics`).
    """
    # Matplotlib takes a moment to import, which only those who want the page pay.
    from common.page.svg import style

    with style():
        cards = _cards(report)
    write_page(path, f"{name}: the data", name, _summary(report) + _windows(report), cards)


def _summary(report: Mapping[str, Any]) -> str:
    entries = [("events", report["events"]), ("sessions", report["sessions"]), ("items", report["items"])]
    events = (report.get("data") or {}).get("events")
    span = facts.span(events["days"]) if events else ""
    return tiles(entries) + paragraph(f"Events of {span} (UTC)" if span else "")


def _windows(report: Mapping[str, Any]) -> str:
    windows = report["windows"]
    rows = [
        (
            window,
            str(windows[window]["begins"])[:16].replace("T", " "),
            windows[window]["sessions"],
            windows[window]["events"],
        )
        for window in facts.among(list(windows))
    ]
    return table("Windows of time", ("window", "begins (UTC)", "sessions", "events"), rows)


def _cards(report: Mapping[str, Any]) -> list[str]:
    data = report.get("data") or {}
    cards = [_account(report)]
    if "events" in data:
        cards += _events(data["events"], report["windows"])
    if "catalogue" in data:
        cards += _items(data["catalogue"])
    if "features" in data:
        cards += _features(data["features"])
    return cards


def _account(report: Mapping[str, Any]) -> str:
    from preprocessing.report import plots

    steps, read = facts.steps(report), report["events_read"]
    rows = [(step.text, step.events, facts.share(step.events, read)) for step in steps]
    said = [f"{report['events']:,} of {read:,} events ({facts.share(report['events'], read)}) are kept."]
    tables = [table("From read to kept", ("", "events", "share of those read"), rows)]
    quarantined = report.get("quarantined")
    if quarantined:
        said.append(f"{quarantined['rows']:,} unusable rows ({facts.share(quarantined['share'])}) are in quarantine.")
        tables.append(table("Quarantine", ("reason", "rows"), list(quarantined.get("reasons", {}).items())))
    return card("account", "From events read to events kept", plots.account(steps), said, tables)


def _events(events: Mapping[str, Any], windows: Mapping[str, Any]) -> list[str]:
    from preprocessing.report import plots

    cards = []
    fine = facts.calendar(events["days"], plots.DAY_BINS)
    if fine.counts:
        busiest = int(np.argmax(fine.counts))
        said = [
            f"The most events, {fine.counts[busiest]:,}, fell on {fine.labels[busiest]}."
            if fine.unit == "day"
            else f"The {fine.unit} with the most events, {fine.counts[busiest]:,}, began on {fine.starts[busiest]}.",
            "The first and the last bar may be cut short." if fine.unit != "day" else "",
            facts.strays(events["days"]),
        ]
        coarse = facts.calendar(events["days"], _TABLE_BINS)
        rows = list(zip(coarse.labels, coarse.counts, strict=True))
        exact = table(f"Events a {coarse.unit}", (coarse.unit, "events"), rows)
        cards.append(card("days", f"Events a {fine.unit}", plots.days(fine, windows), said, [exact]))
    cards.append(_lengths(events["lengths"]))
    if np.any(events["week"]):
        day, hour = np.unravel_index(np.argmax(events["week"]), (7, 24))
        said = [
            f"Most events, {events['week'][day][hour]:,}, are of {_WEEKDAYS[day]}s from {hour}:00 to {hour + 1}:00.",
            "The stronger the colour, the more events.",
        ]
        rows = [(name, *counts) for name, counts in zip(_WEEKDAYS, events["week"], strict=True)]
        exact = table("Events by weekday and hour, UTC", ("", *map(str, range(24))), rows)
        cards.append(card("week", "Hours of the week", plots.week(events["week"]), said, [exact]))
    return cards


def _lengths(counted: Mapping[str, Any]) -> str:
    from preprocessing.report import plots

    counts = np.array(counted["counts"], dtype=np.int64)
    sessions = facts.sessions(counted)
    if not sessions:
        return ""
    # The picture ends where nearly all sessions do; words tell of the rest.
    reached = np.flatnonzero(np.cumsum(counts) >= 0.98 * sessions)
    last = max(1, int(reached[0]) if len(reached) else 100)
    longer = sessions - int(counts[: last + 1].sum())
    median = facts.median_length(counted)
    said = [
        f"Half of the sessions have at most {median:,} events."
        if median is not None
        else "Most sessions have over 100 events.",
        f"The longest has {counted['longest']:,}.",
        f"{facts.share(longer, sessions)} of the sessions are longer than shown." if longer else "",
    ]
    rows = [(label, count, facts.share(count, sessions)) for label, count in facts.lengths(counted)]
    exact = table("Sessions by length", ("events", "sessions", "share"), rows)
    return card("lengths", "Session lengths", plots.lengths(counted, last), said, [exact])


def _items(catalogue: Mapping[str, Any]) -> list[str]:
    from preprocessing.report import plots

    if not catalogue["items"]:
        return []
    first, total = catalogue["top"], catalogue["events"]
    drawn = first[: plots.TOP]
    part = facts.share(sum(entry["events"] for entry in drawn), total)
    said = [
        f"The {len(drawn)} most popular of {catalogue['items']:,} items have {part} of the training events."
        if len(drawn) > 1
        else ""
    ]
    rows = [(entry["item"], entry["events"], facts.share(entry["events"], total)) for entry in first]
    top = table("Most popular items", ("item", "events", "share"), rows)
    tail = catalogue["tail"]
    points = zip(tail["rank"], tail["events"], tail["share"], strict=True)
    rows = [(f"{rank:,}", events, facts.share(share)) for rank, events, share in points]
    ranks = table("The long tail", ("rank", "events of this item", "share of all down to it"), rows)
    return [
        card("top", "Most popular items", plots.top(drawn), said, [top]),
        card(
            "tail",
            "The long tail",
            plots.tail(catalogue) if catalogue["items"] > 2 else None,
            [facts.tail(catalogue)],
            [ranks],
        ),
    ]


def _features(features: Mapping[str, Any]) -> list[str]:
    from preprocessing.report import feature_plots

    cards = []
    rows = [
        (
            name,
            window,
            seen["events"],
            *(f"{seen[kind]:,} ({facts.share(seen[kind], seen['events'])})" for kind in ("nulls", "unknown")),
        )
        for window in facts.among(list(features["categorical"]))
        for name, seen in features["categorical"][window].items()
    ]
    if rows:
        drawn = feature_plots.gaps(features)
        said = [
            "Unknown values are those that training did not know."
            if drawn
            else "No value is null, and training knew them all."
        ]
        exact = table("Categorical features", ("feature", "window", "events", "null", "unknown"), rows)
        cards.append(card("gaps", "Nulls and unknown values", drawn, said, [exact]))
    rows = [
        (
            name,
            window,
            seen["n"],
            *("-" if seen[kind] is None else f"{seen[kind]:.3f}" for kind in ("mean", "std")),
            seen["missing"],
        )
        for window in facts.among(list(features["continuous"]))
        for name, seen in features["continuous"][window].items()
    ]
    if rows:
        said = ["As the model sees them; training has mean 0 and deviation 1 where a feature is normalised."]
        exact = table("Continuous features", ("feature", "window", "values", "mean", "deviation", "missing"), rows)
        cards.append(card("continuous", "Continuous features", feature_plots.histograms(features), said, [exact]))
    return cards
