"""Pictures of the events and of the items; each takes the numbers of a report and draws nothing but these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from common.display import plain
from common.page.svg import FIRST, GRID, MUTED, WARNING, WINDOW_COLOURS, bars, figure, room
from preprocessing.report import facts

DAY_BINS = 150
TOP = 12
_REASONS = 12
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NARROWEST = 0.004
# So few bars of a calendar each have their date beneath.
_NAMED = 4


def _short(value: float, _: int) -> str:
    """1.5k, 20M, 3B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _counts(axes: Axes) -> None:
    """Short whole numbers and a quiet grid on the vertical axis."""
    axes.yaxis.set_major_locator(ticker.MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(_short))
    axes.yaxis.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_tick_params(length=0)


def _largest(steps: Sequence[facts.Step]) -> list[facts.Step]:
    """The steps with the smallest reasons for a drop taken together, when there are many."""
    dropped = steps[1:-1]
    if len(dropped) <= _REASONS:
        return list(steps)
    small = sorted(dropped, key=lambda step: abs(step.events))[: len(dropped) - _REASONS + 1]
    other = facts.Step(f"{len(small)} other reasons", sum(step.events for step in small), "dropped")
    return [steps[0], *(step for step in dropped if step not in small), other, steps[-1]]


def account(steps: Sequence[facts.Step]) -> Figure:
    """From events read to events kept: each bar of dropped events begins where what was left before it ends."""
    shown = _largest(steps)
    read = max(shown[0].events, shown[-1].events, 1)
    drawn, axes = figure(0.42 * len(shown) + 0.1, left=2, right=2, top=2, bottom=2)
    bars(axes, range(len(shown)), [read] * len(shown), 0.36, horizontal=True, color=GRID, alpha=0.5)
    left = shown[0].events
    spans: dict[str, list[tuple[int, float, float]]] = {FIRST: [], WARNING: []}
    for row, step in enumerate(shown):
        end = left if step.kind == "dropped" else step.events
        left -= step.events if step.kind == "dropped" else 0
        # A sliver is still to be seen.
        begin = min(left, end - read * _NARROWEST) if step.kind == "dropped" else 0
        spans[WARNING if step.kind == "dropped" else FIRST].append((row, max(begin, 0.0), end))
        axes.text(0, row - 0.3, plain(step.text, 44), va="bottom")
        note = f"{step.events:,} · {facts.share(step.events, read)}"
        axes.text(read, row - 0.3, note, va="bottom", ha="right", color=MUTED)
    for colour, marked in spans.items():
        if marked:
            rows, begins, ends = zip(*marked, strict=True)
            bars(axes, rows, ends, 0.36, begins, horizontal=True, color=colour)
    axes.set(xlim=(0, read), ylim=(len(shown) - 0.75, -0.85))
    axes.set_axis_off()
    return drawn


def days(bins: facts.Bins, windows: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Events a day or longer, with the windows behind them."""
    drawn, axes = figure(2.2, right=20, top=24, bottom=36)
    # Matplotlib counts days from 1970 too.
    edges = np.array([(start - date(1970, 1, 1)).days for start in [*bins.starts, bins.end]], dtype=np.float64)
    begins = []
    for name in facts.among(list(windows)):
        moment = datetime.fromisoformat(windows[name]["begins"]).replace(tzinfo=None) - datetime(1970, 1, 1)
        begins.append((name, min(max(moment / timedelta(days=1), edges[0]), edges[-1])))
    # What lies before the first window belongs to none.
    for (name, begin), end in zip(begins, [*(begin for _, begin in begins[1:]), edges[-1]], strict=True):
        axes.axvspan(begin, end, color=WINDOW_COLOURS.get(name, MUTED), alpha=0.2, linewidth=0, label=name)
    # Bars that are few stand apart; many would drown in their gaps.
    space = np.diff(edges) * (0.06 if len(bins.counts) <= 60 else 0)
    ends = np.column_stack([edges[:-1] + space, edges[1:] - space]).ravel()
    axes.stairs(np.column_stack([bins.counts, np.zeros_like(bins.counts)]).ravel()[:-1], ends, fill=True, color=MUTED)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    if len(bins.counts) <= _NAMED:
        axes.set_xticks((edges[:-1] + edges[1:]) / 2, bins.labels)
    else:
        locator = AutoDateLocator(minticks=3, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    _counts(axes)
    if begins:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=4, handlelength=1.4, borderpad=0.2)
    return drawn


def lengths(counted: Mapping[str, Any], last: int) -> Figure:
    """Sessions by length up to `last` events."""
    drawn, axes = figure(2.2)
    counts = [*counted["counts"], *[0] * last][1 : last + 1]
    bars(axes, range(1, last + 1), counts, 0.84, color=FIRST)
    axes.set(xlim=(0.4, max(last, 4) + 0.6), ylim=(0, None), xlabel="events in the session")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    _counts(axes)
    return drawn


def week(counts: Sequence[Sequence[int]]) -> Figure:
    """Events by weekday and hour: the more, the stronger."""
    drawn, axes = figure(2.2, left=30)
    colour = to_rgb(FIRST)
    # Stronger, not darker: on a dark page more is brighter.
    shades = LinearSegmentedColormap.from_list("shades", [(*colour, 0.04), (*colour, 1.0)])
    axes.pcolormesh(np.array(counts, dtype=np.float64), cmap=shades, vmin=0, vmax=max(1, np.max(counts)), linewidth=0)
    axes.set_yticks(np.arange(7) + 0.5, _WEEKDAYS)
    axes.set_xticks(np.arange(0, 24, 3) + 0.5, [str(hour) for hour in range(0, 24, 3)])
    axes.set_xlabel("hour, UTC")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return drawn


def top(items: Sequence[Mapping[str, Any]]) -> Figure:
    """The items named, most popular first."""
    names = [plain(entry["item"], 24) for entry in items]
    events = [entry["events"] for entry in items]
    right = room([f"{max(events):,}"])
    drawn, axes = figure(0.2 * len(items) + 0.06, left=room(names), right=right, top=2, bottom=2)
    bars(axes, range(len(items)), events, 0.74, horizontal=True, color=FIRST)
    for row, count in enumerate(events):
        axes.annotate(f"{count:,}", (count, row), (4, 0), textcoords="offset points", va="center", color=MUTED)
    axes.set_yticks(range(len(items)), names)
    axes.set(ylim=(len(items) - 0.5, -0.5), xlim=(0, max(1, *events)))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return drawn


def tail(catalogue: Mapping[str, Any]) -> Figure:
    """The share of all events that the most popular items have, by how many of them one takes."""
    drawn, axes = figure(2.2, left=40, right=14)
    rank, share = (np.array(catalogue["tail"][name], dtype=np.float64) for name in ("rank", "share"))
    # From one rank to the very next there is nothing in between: a step.
    steps = np.flatnonzero(np.diff(rank) == 1) + 1
    across, up = np.insert(rank, steps, rank[steps]), np.insert(share, steps, share[steps - 1])
    axes.plot(across, up, color=FIRST, linewidth=2)
    axes.set_xscale("log")
    axes.set(xlim=(1, catalogue["items"]), ylim=(0, 1.02), xlabel="how many of the most popular items")
    heights = [int(percent) / 100 for percent in catalogue["reach"]]
    reached = list(catalogue["reach"].values())
    axes.hlines(heights, 1, reached, color=MUTED, linewidth=0.8, linestyle=":")
    axes.plot(reached, heights, color=WARNING, linewidth=0, marker="o", markersize=4, clip_on=False)
    for items, height in zip(reached, heights, strict=True):
        # Above the curve on the right, where there is room, beneath it on the left.
        right = items**3 > catalogue["items"]
        place: dict[str, Any] = {"ha": "right", "va": "bottom"} if right else {"ha": "left", "va": "top"}
        axes.annotate(f"{items:,}", (items, height), (-4 if right else 4, 0), textcoords="offset points", **place)
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=7))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(_short))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_yticks([0, 0.2, 0.5, 0.8, 0.9, 1.0])
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    return drawn
