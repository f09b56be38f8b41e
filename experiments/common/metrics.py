"""What a run reports: JSON lines while it goes, and a picture of its curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.common import checkpoint as _checkpoint
from experiments.common.plots import style_axes


@dataclass(frozen=True)
class Log:
    """A file with one JSON object a line, each with the `step` that it belongs to.

    Args:
        path: the file.
    """

    path: Path

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line."""
        line = json.dumps({"step": step, **values}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read(self) -> list[dict[str, float]]:
        """All whole lines; a process killed while it wrote leaves half a line, which is skipped."""
        if not self.path.exists():
            return []
        whole = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in whole]

    def rewind(self, step: int) -> None:
        """Drops what came after a step, since a resumed run will write it again."""
        kept = [json.dumps(line) + "\n" for line in self.read() if line["step"] <= step]
        _checkpoint.replace_file(self.path, "".join(kept).encode())


def draw_curves(path: Path, lines: list[dict[str, float]], title: str, unit: str) -> None:
    """Draws training and validation loss against steps as a PNG.

    Args:
        path: the picture.
        lines: what `Log.read` gives: `loss` is the training loss, `validation_loss` the other.
        title: what was trained.
        unit: of the loss, as in "nats a character".
    """
    training = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    validation = [
        (line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line
    ]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    if training:
        axes.plot(*zip(*training, strict=True), color="#9db8d2", linewidth=1, label="training")
    if validation:
        step, best = min(validation, key=lambda point: point[1])
        axes.axhline(best, color="#b3362d", linewidth=0.8, linestyle=":")
        name = f"validation, best {best:.3f} at step {step:,.0f}"
        points = zip(*validation, strict=True)
        axes.plot(*points, "o-", color="#b3362d", markersize=4, label=name)
    if training or validation:
        axes.legend(frameon=False)
    style_axes(axes, title=title, xlabel="step", ylabel=f"loss, {unit}")
    figure.savefig(path, dpi=120)


def mean_and_std(values: Sequence[float], mean: str, std: str) -> str:
    """Formats the mean over seeds, with the standard deviation of several; "-" if there is none.

    Example:
        >>> mean_and_std([1.0, 2.0], "{:.4g}", "{:.1g}")
        '1.5 ±0.7'
    """
    if not len(values):
        return "-"
    deviation = f" ±{std}".format(np.std(values, ddof=1)) if len(values) > 1 else ""
    return mean.format(np.mean(values)) + deviation
