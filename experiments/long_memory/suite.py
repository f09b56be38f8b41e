"""The one table of long memory: which cells solve which task, with three seeds a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.common.metrics import Log
from experiments.common.plots import COLORS, End, label_curves, style_axes

SEEDS = 3


@dataclass(frozen=True)
class Row:
    """One task and one cell, with the settings that they are trained with.

    Args:
        task: the task's name.
        cell: the cell's name.
        solves: what is claimed: whether the cell solves the task.
        length: that of the task.
        hidden: the cell's size.
        steps: of training.
        learning_rate: of training.
        paper_start: whether the cell is started for so long a memory as its paper says.
        rows: sequences of a batch.
        engine: what runs the cell.
    """

    task: str
    cell: str
    solves: bool
    length: int
    hidden: int
    steps: int
    learning_rate: float
    paper_start: bool = False
    rows: int = 32
    engine: str = "sequential"

    @property
    def name(self) -> str:
        """For folders and tables."""
        return f"{self.task}-{self.cell}"

    @property
    def options(self) -> dict[str, Any]:
        """As the fields of the experiment's configuration."""
        names = ("task", "cell", "length", "hidden", "paper_start", "rows", "engine")
        return {name: getattr(self, name) for name in names}


class Measure(NamedTuple):
    """What decides whether a task is solved."""

    score: str  # which of the scores on fresh data
    text: str  # what it is called
    solved: Callable[[dict[str, float], Row], bool]


MEASURES = {
    "adding": Measure("loss", "squared error", lambda test, row: test["loss"] < 0.01),
    "copy": Measure("loss", "nats a step", lambda test, row: test["loss"] < 0.9 * test["guess"]),
    "parity": Measure("beyond", "right beyond", lambda test, row: test["beyond"] > 0.99),
    "anbn": Measure(
        "counts_to", "counts to", lambda test, row: test["counts_to"] >= 1.5 * row.length
    ),
}

ROWS = (
    Row("adding", "lru", True, 500, 64, 4000, 1e-2, True),
    Row("adding", "lem", True, 500, 64, 900, 1e-2, True),
    Row("adding", "lstm", True, 500, 64, 800, 1e-2, True),
    Row("adding", "elman", False, 500, 64, 900, 2e-3, True),
    Row("copy", "orthogonal-rnn", True, 200, 96, 800, 2e-3, engine="hoisted"),
    Row("copy", "elman", False, 200, 96, 800, 1e-3),
    Row("parity", "lstm", True, 40, 32, 1000, 1e-2),
    Row("parity", "gru", True, 40, 32, 1000, 1e-2),
    Row("parity", "min-gru", False, 40, 32, 1000, 5e-3),
    Row("parity", "rglru", False, 40, 32, 1000, 5e-3),
    Row("anbn", "lstm", True, 50, 16, 12000, 1e-2),
    Row("anbn", "gru", False, 50, 16, 12000, 1e-2),
)


class Run(NamedTuple):
    """One trained row."""

    row: Row
    test: Sequence[dict[str, float]]  # of each seed
    folder: Path
    seconds: float


def report(runs: Sequence[Run], folder: Path, console: Console) -> None:
    """Prints the table, and keeps it as Markdown with its picture beside it."""
    lines = [
        "| task | cell | what | each seed | guessing | solved | claimed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, test, _, seconds in runs:
        measure = MEASURES[row.task]
        shown = ", ".join(f"{values[measure.score]:.4g}" for values in test)
        solved = sum(measure.solved(values, row) for values in test)
        guess = {"beyond": "0.5", "counts_to": "0"}.get(measure.score)
        lines.append(
            f"| {row.task}, {row.length} | {row.cell} | {measure.text} | {shown} | "
            f"{guess or format(test[0]['guess'], '.4f')} | {solved} of {len(test)} | "
            f"{'yes' if row.solves else 'no'} | {seconds:.0f} |"
        )
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print("\n".join(lines))
    draw(folder / "long_memory.png", runs)


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Draws the four tasks as a PNG: two by their learning curves, two by what was learnt."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    panels = zip(("adding", "copy", "parity", "anbn"), figure.subplots(2, 2).flat, strict=True)
    for task, axes in panels:
        its = [run for run in runs if run.row.task == task]
        if not its:
            axes.set_visible(False)
        elif task in ("adding", "copy"):
            _curves(axes, task, its)
        else:
            _dots(axes, task, its)
    figure.suptitle("Long memory: who remembers what", fontsize=15, weight="bold")
    figure.savefig(path, dpi=130)


def _curves(axes: Any, task: str, its: Sequence[Run]) -> None:
    ends = []
    for colour, run in zip(COLORS, its, strict=False):
        lines = [x for x in Log(run.folder / "metrics.jsonl").read() if "validation_loss" in x]
        steps, means = ([x[name] for x in lines] for name in ("step", "validation_loss"))
        spread = np.array([x["validation_loss_std"] for x in lines])
        axes.plot(steps, means, color=colour, linewidth=1.9)
        low = np.maximum(means - spread, np.array(means) / 10)
        axes.fill_between(steps, low, means + spread, color=colour, alpha=0.15, linewidth=0)
        ends.append(End(means[-1], run.row.cell, colour))
    row, guess = its[0].row, its[0].test[0]["guess"]
    axes.axhline(guess, color="#222222", linewidth=0.9, linestyle=":")
    left = dict(xycoords=("axes fraction", "data"), fontsize=9)
    axes.annotate("guessing", (0.01, guess), va="bottom", color="#222222", **left)
    if task == "adding":
        axes.axhline(0.01, color="#009e73", linewidth=0.9, linestyle="--")
        axes.annotate("solved", (0.01, 0.01), va="top", color="#00734f", **left)
    limit = max(run.row.steps for run in its)
    style_axes(axes, yscale="log", xlim=(0, limit), xlabel="step", ylabel=MEASURES[task].text)
    title = f"{task}, {row.length} steps: validation, mean and deviation of {SEEDS} seeds"
    axes.set_title(title, loc="left")
    label_curves(axes, ends)


def _dots(axes: Any, task: str, its: Sequence[Run]) -> None:
    row, score = its[0].row, MEASURES[task].score
    for place, (colour, run) in enumerate(zip(COLORS, its, strict=False)):
        across = place + 0.14 * (np.arange(len(run.test)) - (len(run.test) - 1) / 2)
        dots = dict(s=80, zorder=3, clip_on=False)
        if task == "parity":
            inside = [values["accuracy"] for values in run.test]
            axes.scatter(across, inside, facecolor="none", edgecolor=colour, **dots)
        axes.scatter(across, [values[score] for values in run.test], color=colour, **dots)
    axes.set_xticks(range(len(its)), [run.row.cell for run in its])
    axes.set_xlim(-0.6, len(its) - 0.4)
    where = dict(xycoords=("axes fraction", "data"), fontsize=9, color="#222222", va="bottom")
    if task == "parity":
        style_axes(axes, ylim=(0.4, 1.02), ylabel="share of right answers")
        axes.axhline(0.5, color="#222222", linewidth=0.9, linestyle=":")
        axes.annotate("guessing", (0.01, 0.5), **where)
        title = f"parity: ring, bits 1 to {row.length} as trained; dot, from there to"
        axes.set_title(f"{title} {5 * row.length}", loc="left")
    else:
        style_axes(axes, ylim=(0, 4 * row.length), ylabel="every n up to this is right")
        axes.axhline(row.length, color="#222222", linewidth=0.9, linestyle=":")
        axes.annotate("longest n of training", (0.01, row.length), **where)
        axes.set_title(f"aⁿbⁿ, tested up to n = {4 * row.length}", loc="left")
