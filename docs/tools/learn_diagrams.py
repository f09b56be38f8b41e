"""The diagrams of docs/learn/: networks unrolled in time, and the sequence autoencoder.

python -m docs.tools.learn_diagrams    writes docs/images/learn/*.svg
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from docs.tools.pages import DOCS, save_picture

PICTURES = DOCS / "images" / "learn"
INK, STATE, INPUT, GATE, BACK = "#30363d", "#0072b2", "#4d4d4d", "#b5651d", "#c1272d"
Point = tuple[float, float]


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG that is the same for the same drawing, with text as paths."""
    save_picture(figure, path, "path", facecolor="white")


def save_all(diagrams: "Mapping[str, Callable[[], Sheet]]") -> None:
    """Writes each diagram by its name."""
    for name, draw in diagrams.items():
        save(draw().figure, PICTURES / f"{name}.svg")


class Sheet:
    """A sheet of paper in inches, with boxes, circles, labels and arrows."""

    def __init__(self, width: float, height: float):
        self.figure = Figure(figsize=(width, height))
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def box(self, at: Point, text: str, color: str = INK, size: Point = (0.9, 0.55), **text_style):
        """A rounded box with a text in it."""
        left, bottom = at[0] - size[0] / 2, at[1] - size[1] / 2
        style = "round,pad=0,rounding_size=0.09"
        self.axes.add_patch(
            FancyBboxPatch(
                (left, bottom), *size, boxstyle=style, fc=color + "18", ec=color, lw=1.3, zorder=2
            )
        )
        self.text(at, text, color, **text_style)

    def node(self, at: Point, text: str, color: str = INK, radius: float = 0.16):
        """A circle with an operation in it."""
        self.axes.add_patch(Circle(at, radius, fc="white", ec=color, lw=1.3, zorder=3))
        self.text(at, text, color, fontsize=12)

    def text(self, at: Point, text: str, color: str = INK, **style: Any):
        """A label."""
        style = dict(ha="center", va="center", fontsize=11, zorder=4) | style
        self.axes.text(*at, text, color=color, **style)

    def arrow(self, start: Point, end: Point, color: str = INK, bend: float = 0, **style: Any):
        """An arrow between two points."""
        style = dict(arrowstyle="-|>", mutation_scale=11, lw=1.4, shrinkA=0, shrinkB=0) | style
        curve = f"arc3,rad={bend}"
        self.axes.add_patch(
            FancyArrowPatch(start, end, color=color, connectionstyle=curve, zorder=1, **style)
        )

    def path(self, *points: Point, color: str = INK):
        """A line through points, with a head at the last one."""
        *line, before, last = points
        xs, ys = zip(*line, before, strict=True)
        self.axes.plot(xs, ys, color=color, lw=1.4, zorder=1, solid_joinstyle="round")
        self.arrow(before, last, color)


def _steps(sheet: Sheet, first: float, names: tuple[str, ...], y: float) -> list[float]:
    """Cells in a row, joined by their states; returns where they are."""
    places = [first + 1.75 * i for i in range(len(names))]
    for x, name in zip(places, names, strict=True):
        sheet.box((x, y), "step", STATE)
        sheet.text((x, y - 1.1), f"$x_{{{name}}}$", INPUT, fontsize=13)
        sheet.text((x, y + 1.1), f"$y_{{{name}}}$", INPUT, fontsize=13)
        sheet.arrow((x, y - 0.9), (x, y - 0.28), INPUT)
        sheet.arrow((x, y + 0.28), (x, y + 0.9), INPUT)
    return places


def draw_unrolled() -> Sheet:
    """The loop on the left, the same network unrolled in time on the right."""
    sheet, y = Sheet(9.6, 3.2), 1.7
    _steps(sheet, 1.0, ("t",), y)
    sheet.path(
        (1.45, y), (1.85, y), (1.85, y + 0.62), (0.2, y + 0.62), (0.2, y), (0.55, y), color=STATE
    )
    sheet.text((2.07, y + 0.3), "$s$", STATE, fontsize=13)
    sheet.text((2.65, y), "=", fontsize=18)
    places = _steps(sheet, 4.35, ("1", "2", "3"), y)
    sheet.text((3.3, y), "$s_0$", STATE, fontsize=13)
    sheet.arrow((3.5, y), (3.9, y), STATE)
    for i, x in enumerate(places):
        sheet.arrow((x + 0.45, y), (x + 1.3, y), STATE)
        sheet.text((x + 0.87, y + 0.22), f"$s_{i + 1}$", STATE, fontsize=13)
    sheet.text((9.3, y), "…", STATE, fontsize=16)
    note = "every step has the same parameters"
    sheet.text(((places[0] + places[-1]) / 2, 0.17), note, INPUT, fontsize=9.5, style="italic")
    return sheet


def draw_backward() -> Sheet:
    """Back-propagation through time: the adjoint of the state runs from right to left."""
    sheet, y = Sheet(8.6, 3.7), 2.1
    places = _steps(sheet, 1.7, ("t-1", "t", "t+1"), y)
    for x in (places[0] - 1.3, *(x + 0.45 for x in places)):
        sheet.arrow((x, y + 0.1), (x + 0.85, y + 0.1), STATE)
        sheet.arrow((x + 0.85, y - 0.1), (x, y - 0.1), BACK)
    for x, name in zip(places, ("t-1", "t"), strict=False):
        sheet.text((x + 0.87, y + 0.3), f"$h_{{{name}}}$", STATE)
        sheet.text((x + 0.87, y - 0.32), f"$\\partial L/\\partial h_{{{name}}}$", BACK, fontsize=10)
    for x in places:
        sheet.arrow((x + 0.12, y + 0.9), (x + 0.12, y + 0.28), BACK)
        sheet.path((x + 0.34, y - 0.28), (x + 0.34, 0.42), color=BACK)
    sheet.text(
        (places[1] + 0.34, 0.2),
        "$\\partial L/\\partial W$, $\\partial L/\\partial U$, "
        "$\\partial L/\\partial b$: the sum over all steps",
        BACK,
        fontsize=10.5,
    )
    sheet.text((places[2] + 1.32, y + 0.42), "forward", STATE, fontsize=9.5, ha="left")
    sheet.text((places[2] + 1.32, y - 0.42), "backward", BACK, fontsize=9.5, ha="left")
    return sheet


def draw_autoencoder() -> Sheet:
    """The sequence autoencoder: an encoder, a code, a decoder."""
    sheet, y = Sheet(9.6, 3.0), 1.5
    for first, color, over, under in ((0.8, STATE, "", "x"), (6.2, GATE, "\\hat{x}", "")):
        for i in range(3):
            x = first + 1.3 * i
            sheet.box((x, y), "step", color, (0.8, 0.5))
            if i < 2:
                sheet.arrow((x + 0.4, y), (x + 0.9, y), color)
            if under:
                sheet.text((x, y - 0.95), f"${under}_{i + 1}$", INPUT, fontsize=13)
                sheet.arrow((x, y - 0.75), (x, y - 0.25), INPUT)
            if over:
                sheet.text((x, y + 0.95), f"${over}_{i + 1}$", INPUT, fontsize=13)
                sheet.arrow((x, y + 0.25), (x, y + 0.75), INPUT)
    sheet.box((4.8, y), "code", BACK, (0.85, 0.9))
    sheet.arrow((3.8, y), (4.37, y), STATE)
    for i in range(3):
        x = 6.2 + 1.3 * i
        sheet.path((4.8, y - 0.45), (4.8, y - 0.75), (x, y - 0.75), (x, y - 0.25), color=BACK)
    sheet.text((2.1, 2.75), "encoder", STATE)
    sheet.text((7.5, 2.75), "decoder", GATE)
    note = "the code is much shorter than the sequence"
    sheet.text((4.8, 0.2), note, INPUT, fontsize=9.5, style="italic")
    return sheet


DIAGRAMS: dict[str, Callable[[], Sheet]] = {
    "unrolled": draw_unrolled,
    "backward": draw_backward,
    "autoencoder": draw_autoencoder,
}

if __name__ == "__main__":
    save_all(DIAGRAMS)
