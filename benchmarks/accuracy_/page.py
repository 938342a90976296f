"""The page: the table, and three pictures of it, in one HTML file without network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy_.summary import METRICS, comparisons, settings_of
from common.page.document import card, paragraph, table, tiles, write_page
from common.page.svg import FIRST, GRID, MUTED, SECOND, figure, room, style
from modeling.ranking_metric import GOAL

# What takes less is drawn here, as the scale is logarithmic.
_SHORTEST = 1e-3


def write(path: Path, result: dict[str, Any]) -> None:
    """Write what `benchmarks.accuracy` found as a page."""
    rows = result["rows"]
    with style():
        cards = [
            card(
                "accuracy",
                "NDCG@20, with 95% intervals",
                _intervals(rows, [row["metrics"][GOAL] for row in rows]),
                ["The whole catalogue is ranked for the last item of each session.", _colours(rows)],
                [],
            ),
            card(
                "difference",
                f"Difference to {rows[0]['to_beat']}",
                _intervals(rows, [row["differences"][GOAL] for row in rows], zero=True),
                [
                    "NDCG@20 of each session, paired: much surer than two intervals side by side.",
                    "The baseline to beat is the one that is best on validation.",
                ],
                [],
            ),
            card(
                "seconds",
                "What a figure costs",
                _cost(rows),
                ["Seconds to fit once, on a logarithmic scale, without choosing settings and without scoring."],
                [table("Seconds to fit once", ("", "seconds"), [(row["model"], row["seconds"]) for row in rows])],
            ),
        ]
    entries = [("sessions measured", result["sessions"]), ("items", result["items"]), ("contenders", len(rows))]
    words = (
        f"Struck from the lists: {result['exclude']}. {result['left_out']:,} sessions whose last item training never "
        f"saw are left out for all alike. Seeds of what is trained: {', '.join(map(str, result['seeds']))}."
    )
    write_page(
        path, f"{result['name']}: accuracy", result["name"], tiles(entries) + paragraph(words) + _exact(rows), cards
    )


def _colours(rows: Sequence[dict[str, Any]]) -> str:
    said = "Peers are blue, circles where they count and squares where they learn; our models are orange."
    return said if any(row["trained"] for row in rows) else ""


def _exact(rows: Sequence[dict[str, Any]]) -> str:
    header = ("", *METRICS, "low", "high", "spread of seeds", *comparisons(rows[0]), "settings")
    lines = [
        (
            row["model"],
            *(row["metrics"][name]["mean"] for name in METRICS),
            row["metrics"][GOAL]["low"],
            row["metrics"][GOAL]["high"],
            row["metrics"][GOAL]["spread"] if row["metrics"][GOAL]["runs"] > 1 else "",
            *comparisons(row).values(),
            settings_of(row),
        )
        for row in rows
    ]
    return table("Interval of NDCG@20 over sessions; * more than chance among them", header, lines)


def _look(row: dict[str, Any]) -> dict[str, Any]:
    return {"color": SECOND if row["ours"] else FIRST, "marker": "s" if row["trained"] else "o"}


def _intervals(rows: Sequence[dict[str, Any]], found: Sequence[dict[str, float]], zero: bool = False) -> Figure:
    """A point and a line a contender."""
    names = [row["model"] for row in rows]
    drawn, axes = figure(0.26 * len(rows) + 0.6, left=room(names))
    for place, (row, one) in enumerate(zip(rows, found, strict=True)):
        look = _look(row)
        axes.plot([one["low"], one["high"]], [place, place], color=look["color"], linewidth=1.6)
        axes.plot([one["mean"]], [place], linestyle="none", markersize=5, **look)
    if zero:
        axes.axvline(0, color=MUTED, linewidth=0.8)
    _names(axes, names)
    return drawn


def _cost(rows: Sequence[dict[str, Any]]) -> Figure:
    """Seconds of fitting, a row a contender."""
    names = [row["model"] for row in rows]
    drawn, axes = figure(0.26 * len(rows) + 0.6, left=room(names))
    for place, row in enumerate(rows):
        axes.plot([max(row["seconds"], _SHORTEST)], [place], linestyle="none", markersize=5, **_look(row))
    axes.set_xscale("log")
    # Powers of ten would be written as formulas.
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    _names(axes, names)
    return drawn


def _names(axes: Axes, names: Sequence[str]) -> None:
    """A row a contender, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_tick_params(length=0)
