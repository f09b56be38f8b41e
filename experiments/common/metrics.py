"""The metrics of a run: JSON lines, and a plot of the loss curves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from experiments.common.checkpoint import replace_file


@dataclass(frozen=True)
class Log:
    """A file of JSON lines, each an object with its `step`.

    Args:
        path: the file.
        writes: whether this process writes it; of several, one does.
    """

    path: Path
    writes: bool = True

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a line."""
        if not self.writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, float]]:
        """Reads all complete lines; a killed process may leave an incomplete last line."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text("utf-8").split("\n")[:-1]]

    def truncate(self, step: int) -> None:
        """Removes the lines after a step, which a resumed run writes again."""
        if not self.writes:
            return
        kept = [json.dumps(line) + "\n" for line in self.read() if line["step"] <= step]
        replace_file(self.path, "".join(kept).encode())


def plot_curves(path: Path, lines: list[dict[str, float]], title: str, unit: str) -> None:
    """Plots the training and validation losses of `Log.read` as a PNG."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="step", ylabel=f"loss, {unit}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8ec", linewidth=0.8)
    if training := [(line["step"], line["loss"]) for line in lines if "loss" in line]:
        axes.plot(*zip(*training, strict=True), color="#9db8d2", linewidth=1, label="training")
    name = "validation_loss"
    if validation := [(line["step"], line[name]) for line in lines if name in line]:
        step, best = min(validation, key=lambda point: point[1])
        axes.axhline(best, color="#b3362d", linewidth=0.8, linestyle=":")
        label = f"validation, best {best:.3f} at step {step:,.0f}"
        points = zip(*validation, strict=True)
        axes.plot(*points, "o-", color="#b3362d", markersize=4, label=label)
    if training or validation:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
