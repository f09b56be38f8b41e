"""Shared plotting helpers: axes without clutter, dates, and labels at the ends of curves."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from scipy.optimize import isotonic_regression

# Distinct under the common forms of color blindness, and in print.
COLORS = "#c1272d #0072b2 #e69f00 #009e73 #7b3294 #56b4e9 #8c510a #d45087 #4d4d4d".split()


class End(NamedTuple):
    """The label at the right end of a curve."""

    y: float
    text: str
    color: Any


def style_axes(axes: Any, **settings: Any) -> None:
    """Removes the upper and right spines, adds a light grid, and applies `axes.set(**settings)`."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set(**settings)


def format_dates(axes: Any) -> None:
    """Formats the dates of the x axis concisely."""
    locator = AutoDateLocator(maxticks=8)
    axes.xaxis.set(major_locator=locator, major_formatter=ConciseDateFormatter(locator))


def label_curves(axes: Any, ends: Sequence[End], *, fontsize: float = 9, gap: float = 1.25) -> None:
    """Labels curves at the right of the axes, without overlap.

    Args:
        axes: the axes, with final limits and scales.
        ends: the labels; one below the axes' limits is placed at the bottom.
        fontsize: in points.
        gap: least distance between two labels, in lines of text.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    low, right = axes.get_ylim()[0], axes.get_xlim()[1]
    wanted = [to_axes.transform((right, max(end.y, low)))[1] for end in ends]
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    placed = separate(np.clip(wanted, 0, 1), gap * fontsize / height)
    style = dict(xycoords="axes fraction", textcoords="axes fraction", annotation_clip=False)
    style |= dict(va="center", fontsize=fontsize)
    for end, y, at in zip(ends, np.clip(wanted, 0, 1), placed, strict=True):
        line = dict(arrowstyle="-", color=end.color, linewidth=0.7, shrinkA=1, shrinkB=0)
        axes.annotate(end.text, (1, y), (1.045, at), color=end.color, arrowprops=line, **style)


def separate(positions: Any, gap: float) -> np.ndarray:
    """Moves positions at least a gap apart, in the same order, by the least sum of squares.

    Example:
        >>> print(separate([0.5, 0.5, 0.9], 0.2))
        [0.4 0.6 0.9]
    """
    order = np.argsort(positions, kind="stable")
    offsets = gap * np.arange(len(order))
    wanted = np.asarray(positions, float)[order]
    separated = np.empty(len(order))
    separated[order] = isotonic_regression(wanted - offsets).x + offsets
    return separated
