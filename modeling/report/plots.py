"""Pictures of a training run; each takes numbers and draws nothing but these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.page.svg import FIRST, GRID, INK, MUTED, SECOND, WIDTH, figure, room

_COLOURS = {"model": FIRST}


def _grid(axes: Axes) -> None:
    axes.yaxis.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_tick_params(length=0)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(4))


def curve(history: Sequence[Mapping[str, Any]], name: str, label: str, kept: int) -> Figure:
    """A number over the epochs, with a mark at the epoch whose weights were kept."""
    drawn, axes = figure(1.9, top=20, bottom=34)
    epochs = [line["epoch"] for line in history]
    values = [line[name] for line in history]
    axes.plot(epochs, values, color=FIRST, marker="o", markersize=3, linewidth=1.6)
    best = next((line[name] for line in history if line["epoch"] == kept), None)
    if best is not None:
        axes.plot([kept], [best], marker="o", markersize=8, markerfacecolor="none", color=SECOND, markeredgewidth=2)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch")
    axes.set_title(label, loc="left")
    axes.margins(x=0.04, y=0.12)
    _grid(axes)
    return drawn


def compared(metrics: Mapping[str, Mapping[str, Mapping[str, float]]], metric: str) -> Figure:
    """A metric of each model: a dot with its 95% interval."""
    names = list(metrics)
    drawn, axes = figure(0.34 * len(names) + 0.5, left=room(names), top=4, bottom=24)
    for row, name in enumerate(names):
        own = metrics[name][metric]
        colour = _COLOURS.get(name, MUTED)
        axes.plot([own["low"], own["high"]], [row, row], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([own["mean"]], [row], marker="o", markersize=6, color=colour)
        axes.annotate(
            f"{own['mean']:.4f}",
            (own["high"], row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            annotation_clip=False,
        )
    top = max(own[metric]["high"] for own in metrics.values())
    # Room for the number behind the longest interval.
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, max(top, 1e-6) * (1 + 1.1 / WIDTH)))
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.grid(color=GRID, linewidth=0.6)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_tick_params(length=0)
    return drawn


def grouped(groups: Mapping[str, Mapping[str, Any]], metric: str, label: str) -> Figure:
    """A metric of the model by groups of sessions, with 95% intervals."""
    drawn, axes = figure(2.0, top=8, bottom=36)
    names = list(groups)
    own = [groups[name]["intervals"]["model"][metric] for name in names]
    for at, one in enumerate(own):
        axes.plot([at, at], [one["low"], one["high"]], color=FIRST, linewidth=2, solid_capstyle="round")
        axes.plot([at], [one["mean"]], marker="o", markersize=6, color=FIRST)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel(label)
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, None))
    _grid(axes)
    return drawn
