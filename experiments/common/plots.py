"""What the pictures of several curves share: plain axes, and names beside the ends of curves."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

# Distinct under the common forms of colour blindness, and in print.
COLOURS = (
    "#c1272d",
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#7b3294",
    "#56b4e9",
    "#8c510a",
    "#d45087",
    "#4d4d4d",
)


class End(NamedTuple):
    """The right end of a curve."""

    y: float
    text: str
    colour: Any


def plain(axes: Any, **settings: Any) -> None:
    """Takes away what is no data, and sets title, labels and limits."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set(**settings)


def name_dates(axes: Any) -> None:
    """Names the dates on the axis of time, each part of them once."""
    locator = AutoDateLocator(maxticks=8)
    axes.xaxis.set(major_locator=locator, major_formatter=ConciseDateFormatter(locator))


def label_ends(axes: Any, ends: Sequence[End], *, fontsize: float = 9, gap: float = 1.25) -> None:
    """Writes names to the right of curves, moved apart where they would overlap.

    Args:
        axes: with its limits and scale set, and the curves drawn.
        ends: the curves' ends; one below the axes' limits is named at the bottom.
        fontsize: in points.
        gap: least distance of two names, in lines of text.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    low = axes.get_ylim()[0]
    right = axes.get_xlim()[1]
    wanted = [to_axes.transform((right, max(end.y, low)))[1] for end in ends]
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    placed = apart(np.clip(wanted, 0, 1), gap * fontsize / height)
    for end, y, at in zip(ends, wanted, placed, strict=True):
        axes.annotate(
            end.text,
            (1, min(max(y, 0), 1)),
            (1.045, at),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=fontsize,
            color=end.colour,
            annotation_clip=False,
            arrowprops=dict(arrowstyle="-", color=end.colour, linewidth=0.7, shrinkA=1, shrinkB=0),
        )


def apart(wanted: Any, gap: float) -> np.ndarray:
    """Positions in the same order that are at least a gap apart, and moved as little as may be.

    Example:
        >>> print(apart([0.5, 0.5, 0.9], 0.2))
        [0.4 0.6 0.9]
    """
    order = np.argsort(wanted, kind="stable")
    # Each group holds positions that push each other, spread evenly around their mean.
    groups: list[list[float]] = []
    for value in np.asarray(wanted, float)[order]:
        groups.append([value])
        while len(groups) > 1 and _low(groups[-1], gap) < _high(groups[-2], gap) + gap - 1e-12:
            last = groups.pop()
            groups[-1] += last
    spread = [_low(group, gap) + gap * i for group in groups for i in range(len(group))]
    placed = np.empty(len(spread))
    placed[order] = spread
    return placed


def _low(group: list[float], gap: float) -> float:
    return float(np.mean(group)) - gap * (len(group) - 1) / 2


def _high(group: list[float], gap: float) -> float:
    return float(np.mean(group)) + gap * (len(group) - 1) / 2
