"""Pictures of a search; each takes numbers and draws nothing but these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.page.svg import FIRST, GRID, MUTED, SECOND, bars, figure, room
from modeling.search.space import Dimension, Range
from modeling.search.trials import Trial

_WHOLE: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "color": FIRST}
_CUT: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 4, "color": MUTED}
_BEST: dict[str, Any] = {
    **{"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none"},
    **{"color": SECOND, "markeredgewidth": 2},
}


def _grid(axes: Axes) -> None:
    axes.yaxis.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_tick_params(length=0)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(4))
    axes.margins(x=0.04, y=0.12)


def _floor(trials: Sequence[Trial]) -> float:
    """Below this a trial is drawn at the lower edge: one that went wrong would make all others look alike."""
    known = sorted(trial.goal for trial in trials if trial.goal is not None)
    middle, top = known[len(known) // 2], known[-1]
    return max(known[0], top - 3 * (top - middle), 0.0) if top > middle else known[0]


def _points(axes: Axes, at: Mapping[int, float], trials: Sequence[Trial], best: Trial) -> None:
    """A mark a trial: whole ones, those cut off, and the best."""
    floor = _floor(trials)
    for state, look in (("pruned", _CUT), ("complete", _WHOLE)):
        chosen = [trial for trial in trials if trial.state == state and trial.goal is not None]
        axes.plot([at[trial.number] for trial in chosen], [max(trial.goal or 0.0, floor) for trial in chosen], **look)
    axes.plot([at[best.number]], [best.goal or 0.0], **_BEST)


def history(trials: Sequence[Trial], best: Trial) -> Figure:
    """NDCG@20 of each trial, and the best until then as a line."""
    drawn, axes = figure(2.3, bottom=34)
    so_far, top = [], 0.0
    for trial in trials:
        top = max(top, (trial.goal or 0.0) if trial.state == "complete" else 0.0)
        so_far.append(top)
    begun = [(trial.number, value) for trial, value in zip(trials, so_far, strict=True) if value > 0]
    axes.step([number for number, _ in begun], [value for _, value in begun], where="post", color=SECOND, linewidth=1.6)
    _points(axes, {trial.number: trial.number for trial in trials}, trials, best)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    axes.set_xlabel("trial")
    _grid(axes)
    return drawn


def curves(trials: Sequence[Trial], best: Trial) -> Figure:
    """NDCG@20 of each trial after each epoch."""
    drawn, axes = figure(2.3, bottom=34)
    floor = _floor(trials)
    for trial in trials:
        if not trial.curve or trial.state == "failed":
            continue
        kept = trial.number == best.number
        colour = SECOND if kept else (FIRST if trial.state == "complete" else MUTED)
        epochs = range(1, len(trial.curve) + 1)
        look: dict[str, Any] = {"linewidth": 2.2, "zorder": 3} if kept else {"linewidth": 0.8, "alpha": 0.7}
        axes.plot(epochs, [max(value, floor) for value in trial.curve], color=colour, marker="o", markersize=2, **look)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    axes.set_xlabel("epoch")
    _grid(axes)
    return drawn


def importances(found: Mapping[str, float]) -> Figure:
    """Shares of the differences, the largest on top."""
    names = sorted(found, key=lambda name: found[name])
    drawn, axes = figure(0.28 * len(names) + 0.5, left=room(names), right=18, top=4, bottom=24)
    bars(axes, range(len(names)), [found[name] for name in names], 0.6, horizontal=True, color=FIRST)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, 0))
    axes.xaxis.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.yaxis.set_tick_params(length=0)
    return drawn


def slice_of(name: str, dimension: Dimension, trials: Sequence[Trial], best: Trial) -> Figure:
    """NDCG@20 of each trial by the value of one setting."""
    drawn, axes = figure(2.0, bottom=34)
    if isinstance(dimension, Range):
        at = {trial.number: float(trial.settings[name]) for trial in trials}
    else:
        at = {trial.number: float(dimension.index(trial.settings[name])) for trial in trials}
    _points(axes, at, trials, best)
    _grid(axes)
    if isinstance(dimension, Range):
        if dimension.log:
            axes.set_xscale("log")
            axes.set_xlim(dimension.low / 1.1, dimension.high * 1.1)
            # Powers of ten would be written as formulas.
            axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=12))
            axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
        else:
            edge = (dimension.high - dimension.low) * 0.04
            axes.set_xlim(dimension.low - edge, dimension.high + edge)
            axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    else:
        axes.set_xlim(-0.5, len(dimension) - 0.5)
        axes.set_xticks(range(len(dimension)), [str(value) for value in dimension])
    axes.set_xlabel(name)
    return drawn
