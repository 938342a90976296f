"""The page: one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.display import number, plain
from preprocessing.report import facts
from preprocessing.report.style import STYLE

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
    from preprocessing.report.svg import style

    with style():
        cards = [card for card in _cards(report) if card]
    body = f"<h1>{_text(name)}</h1>{_summary(report)}{_windows(report)}<main>{''.join(cards)}</main>"
    path.write_text(_PAGE.format(title=_text(name), style=STYLE, body=body), encoding="utf-8")


# The policy forbids scripts and every request, even if some text of the data should ever get past the escaping.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: the data</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _text(value: Any) -> str:
    return html.escape(plain(value))


def _summary(report: Mapping[str, Any]) -> str:
    entries = [("events", report["events"]), ("sessions", report["sessions"]), ("items", report["items"])]
    tiles = "".join(f"<div><dt>{what}</dt><dd>{count:,}</dd></div>" for what, count in entries)
    events = (report.get("data") or {}).get("events")
    span = facts.span(events["days"]) if events else ""
    return f"<dl>{tiles}</dl>" + (f"<p>Events of {span} (UTC)</p>" if span else "")


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
    return _table("Windows of time", ("window", "begins (UTC)", "sessions", "events"), rows)


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls by itself when it is wider than the screen; the first column names the row."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in header)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{_text(number(value))}</td>" for value in others)
        lines.append(f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>')
    title = _text(caption)
    return (
        f'<div class="table" role="region" aria-label="{title}" tabindex="0"><table><caption>{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _card(name: str, title: str, drawn: Any, sentences: Sequence[str], tables: Sequence[str]) -> str:
    """A picture with what it says in words, and the exact numbers folded away beneath."""
    from preprocessing.report.svg import to_svg

    words = _text(" ".join(sentence for sentence in sentences if sentence))
    picture = to_svg(drawn, name, f"{_text(title)}. {words}") if drawn else ""
    exact = f"<details><summary>Exact numbers</summary>{''.join(tables)}</details>" if tables else ""
    return (
        f"<section><h2>{_text(title)}</h2><figure>{picture}<figcaption>{words}</figcaption></figure>{exact}</section>"
    )


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
    tables = [_table("From read to kept", ("", "events", "share of those read"), rows)]
    quarantined = report.get("quarantined")
    if quarantined:
        said.append(f"{quarantined['rows']:,} unusable rows ({facts.share(quarantined['share'])}) are in quarantine.")
        tables.append(_table("Quarantine", ("reason", "rows"), list(quarantined.get("reasons", {}).items())))
    return _card("account", "From events read to events kept", plots.account(steps), said, tables)


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
        table = _table(f"Events a {coarse.unit}", (coarse.unit, "events"), rows)
        cards.append(_card("days", f"Events a {fine.unit}", plots.days(fine, windows), said, [table]))
    cards.append(_lengths(events["lengths"]))
    if np.any(events["week"]):
        day, hour = np.unravel_index(np.argmax(events["week"]), (7, 24))
        said = [
            f"Most events, {events['week'][day][hour]:,}, are of {_WEEKDAYS[day]}s from {hour}:00 to {hour + 1}:00.",
            "The stronger the colour, the more events.",
        ]
        rows = [(name, *counts) for name, counts in zip(_WEEKDAYS, events["week"], strict=True)]
        table = _table("Events by weekday and hour, UTC", ("", *map(str, range(24))), rows)
        cards.append(_card("week", "Hours of the week", plots.week(events["week"]), said, [table]))
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
    table = _table("Sessions by length", ("events", "sessions", "share"), rows)
    return _card("lengths", "Session lengths", plots.lengths(counted, last), said, [table])


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
    top = _table("Most popular items", ("item", "events", "share"), rows)
    tail = catalogue["tail"]
    points = zip(tail["rank"], tail["events"], tail["share"], strict=True)
    rows = [(f"{rank:,}", events, facts.share(share)) for rank, events, share in points]
    ranks = _table("The long tail", ("rank", "events of this item", "share of all down to it"), rows)
    return [
        _card("top", "Most popular items", plots.top(drawn), said, [top]),
        _card(
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
        table = _table("Categorical features", ("feature", "window", "events", "null", "unknown"), rows)
        cards.append(_card("gaps", "Nulls and unknown values", drawn, said, [table]))
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
        table = _table("Continuous features", ("feature", "window", "values", "mean", "deviation", "missing"), rows)
        cards.append(_card("continuous", "Continuous features", feature_plots.histograms(features), said, [table]))
    return cards
