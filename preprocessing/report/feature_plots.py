"""Pictures of the features, a colour and a dash a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.display import plain
from common.page.svg import GRID, MUTED, WINDOW_COLOURS, bars, figure, room
from preprocessing.report import facts

MOST = 20
_DASHES = {"train": "-", "valid": "--", "test": ":"}
# A bin counts as used where it holds this share of a feature's values.
_USED = 0.001
# Normalised values are at home within two deviations.
_SPAN = 2.0


def _legend(drawn: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="upper left", ncols=4, borderpad=0.1, bbox_to_anchor=(0, 1), handlelength=1.8)


def histograms(features: Mapping[str, Any]) -> Figure | None:
    """Continuous features one under the other over the same values, a line a window; None when there is none."""
    seen = features["continuous"]
    windows = facts.among(list(seen))
    names = list(dict.fromkeys(name for window in windows for name in seen[window]))[:MOST]
    if not names:
        return None
    bins = features["bins"]
    edges = np.linspace(bins["low"], bins["high"], bins["count"] + 1)
    # Window, feature, bin: the share of the values.
    empty = [0] * bins["count"]
    shares = np.array([[seen[window].get(name, {}).get("histogram", empty) for name in names] for window in windows])
    shares = shares / np.maximum(1, shares.sum(axis=2, keepdims=True))
    heights = 0.82 * shares / np.maximum(1e-9, shares.max(axis=(0, 2), keepdims=True))
    labels = [plain(name, 20) for name in names]
    drawn, axes = figure(0.42 * len(names) + 0.85, left=room(labels), right=14, top=22, bottom=30)
    base = np.arange(len(names), 0, -1.0)[:, None]
    # A step goes along each bin and back to the base line; what is no number separates the features.
    across = np.tile([*np.repeat(edges, 2), np.nan], len(names))
    for window, height in zip(windows, heights, strict=True):
        stepped = np.pad(np.repeat(base + height, 2, axis=1), ((0, 0), (1, 1)), constant_values=np.nan)
        stepped[:, [0, -1]] = base
        line = np.pad(stepped, ((0, 0), (0, 1)), constant_values=np.nan).ravel()
        colour = WINDOW_COLOURS.get(window, MUTED)
        if window == "train":
            axes.fill_between(
                across, line, np.repeat(base, len(across) // len(names)), color=colour, alpha=0.25, linewidth=0
            )
        axes.plot(across, line, color=colour, linestyle=_DASHES.get(window, "-"), linewidth=1.3, label=window)
    used = np.flatnonzero((shares > _USED).any(axis=(0, 1)))
    low, high = (edges[max(used[0] - 1, 0)], edges[min(used[-1] + 2, bins["count"])]) if len(used) else (0, 0)
    axes.set_xlim(min(low, -_SPAN), max(high, _SPAN))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.set(ylim=(0.9, len(names) + 0.95), xlabel="value, as the model sees it")
    axes.set_yticks(base.ravel() + 0.3, labels)
    axes.xaxis.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    _legend(drawn, axes)
    return drawn


def gaps(features: Mapping[str, Any]) -> Figure | None:
    """Shares of null and of unknown values by feature and window; None where there are none at all."""
    windows = facts.among(list(features["categorical"]))
    shares: dict[str, dict[str, tuple[float, float]]] = {}
    for window in windows:
        for name, seen in features["categorical"][window].items():
            events = max(1, seen["events"])
            shares.setdefault(name, {})[window] = (seen["nulls"] / events, seen["unknown"] / events)
    largest = {name: max(max(pair) for pair in by.values()) for name, by in shares.items()}
    worst = sorted((name for name in largest if largest[name]), key=lambda name: -largest[name])[:MOST]
    if not worst:
        return None
    labels = [plain(name, 18) for name in worst]
    drawn, left = figure(0.46 * len(worst) + 0.85, left=room(labels), right=14, top=40, bottom=20)
    place = left.get_position()
    left.set_position((place.x0, place.y0, place.width * 0.46, place.height))
    right = drawn.add_axes((place.x0 + place.width * 0.54, place.y0, place.width * 0.46, place.height))
    right.patch.set_visible(False)
    for side, (axes, title) in enumerate(((left, "null"), (right, "unknown"))):
        for order, window in enumerate(windows):
            rows = [row + 0.26 * (order - (len(windows) - 1) / 2) for row in range(len(worst))]
            values = [shares[name].get(window, (0.0, 0.0))[side] for name in worst]
            bars(axes, rows, values, 0.24, horizontal=True, color=WINDOW_COLOURS.get(window, MUTED), label=window)
        axes.set(xlim=(0, max(largest.values()) * 1.05), ylim=(len(worst) - 0.5, -0.5))
        axes.set_title(title, loc="left", pad=3)
        axes.set_yticks(range(len(worst)), [""] * len(worst) if side else labels)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(2))
        axes.xaxis.set_major_formatter(ticker.PercentFormatter(1))
        axes.xaxis.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
    _legend(drawn, left)
    return drawn
