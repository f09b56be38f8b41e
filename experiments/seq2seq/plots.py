"""A picture of where a decoder looks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

Panel = tuple[Sequence[str], Sequence[str], np.ndarray]
"""What was written, what was read, and the weights `[written, read]`."""


def draw_attention(path: Path, panels: Sequence[Panel], title: str) -> None:
    """Draws weights of attention, dark where they are large.

    What was read goes from left to right, what was written from top to bottom.

    Args:
        path: the picture.
        panels: one for each pair of sequences.
        title: of the picture.
    """
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    longest = max(max(len(written), len(read)) for written, read, _ in panels)
    size = max(4.0, 0.36 * longest)
    figure = Figure(figsize=(size * columns, size * lines + 0.4), layout="constrained")
    figure.suptitle(title)
    for number, (written, read, weights) in enumerate(panels, 1):
        axes = figure.add_subplot(lines, columns, number)
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        turned = {"rotation": 60, "ha": "left"} if max(map(len, read)) > 3 else {}
        axes.set_xticks(range(len(read)), list(read), **turned)
        axes.set_yticks(range(len(written)), list(written))
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
    figure.savefig(path, dpi=120)
