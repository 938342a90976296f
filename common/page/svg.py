"""Figures as inline SVG that follows the page: its colours, its font, its width, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.cells import cell_len

# Matplotlib draws with these stand-ins; the page's style sheet says what they look like in light and in dark.
INK, MUTED, GRID = "#010203", "#010204", "#010205"
FIRST, SECOND, THIRD, WARNING = "#010206", "#010207", "#010208", "#010209"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    FIRST: "--first",
    SECOND: "--second",
    THIRD: "--third",
    WARNING: "--warning",
}
WINDOW_COLOURS = {"train": FIRST, "valid": SECOND, "test": THIRD}
# Narrow, so that on a phone, where the page scales it down to the screen, the text is still read without zooming.
WIDTH = 4.6
POINTS = 72
_FONT = 9.0
_SETTINGS: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": _FONT,
    "axes.titlecolor": INK,
    "font.size": _FONT,
    "legend.fontsize": _FONT,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    # Ids of items are not formulas.
    "text.parse_math": False,
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults and our few changes, whatever the user's settings; as they were afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser chooses the font, so what matplotlib's own lacks does not matter.
        warnings.filterwarnings("ignore", message="Glyph")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def figure(
    height: float, left: float = 44, right: float = 8, top: float = 8, bottom: float = 32
) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes.

    Parameters
    ----------
    height : float
        Inches.
    left, right, top, bottom : float
        Margins around the axes, points.
    """
    made = Figure(figsize=(WIDTH, height))
    across, up = WIDTH * POINTS, height * POINTS
    made.patch.set_visible(False)
    axes = made.add_axes((left / across, bottom / up, (across - left - right) / across, (up - top - bottom) / up))
    axes.patch.set_visible(False)
    return made, axes


def room(names: Sequence[str]) -> float:
    """Points that names need on the left of the axes."""
    return 12 + 5.6 * max(map(cell_len, names), default=0)


def bars(
    axes: Axes,
    at: Sequence[float],
    values: Sequence[float],
    width: float,
    base: Sequence[float] | float = 0.0,
    horizontal: bool = False,
    **look: Any,
) -> None:
    """Bars as one path: a hundred patches would take a hundred times as long.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    at : sequence of float [N]
        The middle of each bar, ascending.
    values, base : sequence of float [N]
        Where each bar ends and begins.
    width : float
        How wide the bars are.
    horizontal : bool
        Lay the bars on their side.
    look : Any
        Colour, label and the like.
    """
    middle, bases = np.asarray(at, dtype=np.float64), np.broadcast_to(np.asarray(base, dtype=np.float64), len(at))
    edges = np.column_stack([middle - width / 2, middle + width / 2]).ravel()
    # Between two bars lies one of no height.
    ends = np.column_stack([np.asarray(values, dtype=np.float64), bases]).ravel()[:-1]
    orientation: Literal["vertical", "horizontal"] = "horizontal" if horizontal else "vertical"
    axes.stairs(ends, edges, baseline=np.repeat(bases, 2)[:-1], fill=True, orientation=orientation, **look)


def to_svg(drawn: Figure, name: str, label: str) -> str:
    """Draw a figure as an ``<svg>`` element, the same bytes every time.

    Parameters
    ----------
    drawn : Figure
        What to draw, made inside `style`.
    name : str
        Letters; sets its ids apart from those of the page's other pictures.
    label : str
        What a screen reader says, already escaped for an attribute.
    """
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawn.savefig(stream, format="svg", metadata={"Date": None})
    body = stream.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r"<[^>]*>", lambda tag: _adapt(tag.group(), name), body)
    box = f"0 0 {WIDTH * POINTS:g} {drawn.get_figheight() * POINTS:g}"
    return re.sub(r"<svg[^>]*>", f'<svg viewBox="{box}" role="img" aria-label="{label}">', body, count=1).strip()


def _adapt(tag: str, name: str) -> str:
    tag = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r" ?font-family: [^;\"]*;?", "", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    return re.sub("#01020[3-9]", lambda found: f"var({_VARIABLES[found.group()]})", tag)
