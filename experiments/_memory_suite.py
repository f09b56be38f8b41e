"""The one table of long memory: which cells solve which task, with three seeds a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments._metrics import Log
from experiments._pictures import COLOURS, plain

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
        "counts_to", "counts to", lambda test, row: test["counts_to"] >= 2 * row.length
    ),
}

ROWS = (
    Row("adding", "elman", False, 500, 64, 1200, 2e-3, True),
    Row("adding", "lstm", True, 500, 64, 1200, 5e-3, True),
    Row("adding", "lem", True, 500, 64, 1200, 5e-3, True),
    Row("adding", "lru", True, 500, 64, 800, 3e-3, True, engine="auto"),
    Row("copy", "elman", False, 200, 96, 1000, 1e-3),
    Row("copy", "orthogonal-rnn", True, 200, 96, 1000, 2e-3),
    Row("parity", "lstm", True, 40, 32, 1000, 1e-2),
    Row("parity", "gru", True, 40, 32, 1000, 1e-2),
    Row("parity", "min-gru", False, 40, 32, 1000, 5e-3),
    Row("parity", "rglru", False, 40, 32, 1000, 5e-3),
    Row("anbn", "lstm", True, 50, 16, 1000, 1e-2),
    Row("anbn", "gru", False, 50, 16, 1000, 1e-2),
)


class Run(NamedTuple):
    """One trained row and seed."""

    row: Row
    seed: int
    test: dict[str, float]
    folder: Path
    seconds: float


def report(runs: Sequence[Run], folder: Path, console: Console) -> None:
    """Prints the table, and keeps it as Markdown with its picture beside it."""
    lines = [
        "| task | cell | what | three seeds | guessing | solved | claimed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, its in _by_row(runs):
        measure = MEASURES[row.task]
        values = [run.test[measure.score] for run in its]
        solved = sum(measure.solved(run.test, row) for run in its)
        shown = ", ".join(f"{value:.4g}" for value in values)
        guess = {"beyond": "0.5", "counts_to": "0"}.get(measure.score)
        lines.append(
            f"| {row.task}, {row.length} | {row.cell} | {measure.text} | {shown} | "
            f"{guess or format(its[0].test['guess'], '.4f')} | {solved} of {len(its)} | "
            f"{'yes' if row.solves else 'no'} | {np.mean([run.seconds for run in its]):.0f} |"
        )
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print("\n".join(lines))
    draw(folder / "long_memory.png", runs)


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Draws the four tasks as a PNG: two by their learning curves, two by what was learnt."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    panels = dict(
        zip(("adding", "copy", "parity", "anbn"), figure.subplots(2, 2).flat, strict=True)
    )
    for task, axes in panels.items():
        its = [(row, found) for row, found in _by_row(runs) if row.task == task]
        if not its:
            axes.set_visible(False)
        elif task in ("adding", "copy"):
            _curves(axes, task, its)
        else:
            _dots(axes, task, its)
    figure.suptitle("Long memory: who remembers what (one mark or line for each of three seeds)")
    figure.savefig(path, dpi=130)


def _by_row(runs: Sequence[Run]) -> list[tuple[Row, list[Run]]]:
    rows = dict.fromkeys(run.row for run in runs)
    return [(row, [run for run in runs if run.row == row]) for row in rows]


def _curves(axes: Any, task: str, its: list[tuple[Row, list[Run]]]) -> None:
    for colour, (row, found) in zip(COLOURS, its, strict=False):
        for number, run in enumerate(found):
            lines = Log(run.folder / "metrics.jsonl").read()
            points = [(x["step"], x["validation_loss"]) for x in lines if "validation_loss" in x]
            label = row.cell if number == 0 else None
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, label=label)
    guess = its[0][1][0].test["guess"]
    axes.axhline(guess, color="#222222", linewidth=0.9, linestyle=":")
    axes.annotate("guessing", (1, guess), xycoords=("axes fraction", "data"), ha="right",
                  va="bottom", fontsize=9)  # fmt: skip
    if task == "adding":
        axes.axhline(0.01, color="#009e73", linewidth=0.9, linestyle="--")
        axes.annotate("solved", (1, 0.01), xycoords=("axes fraction", "data"), ha="right",
                      va="top", fontsize=9, color="#00734f")  # fmt: skip
    plain(axes, yscale="log", xlabel="step", ylabel=f"validation: {MEASURES[task].text}")
    axes.set_title(f"{task}, {its[0][0].length} steps", loc="left")
    axes.legend(frameon=False, fontsize=9, loc="lower left")


def _dots(axes: Any, task: str, its: list[tuple[Row, list[Run]]]) -> None:
    row, score = its[0][0], MEASURES[task].score
    for place, (colour, (_, found)) in enumerate(zip(COLOURS, its, strict=False)):
        spread = place + 0.12 * (np.arange(len(found)) - (len(found) - 1) / 2)
        axes.scatter(spread, [run.test[score] for run in found], s=60, color=colour, zorder=3)
        if task == "parity":
            inside = [run.test["accuracy"] for run in found]
            axes.scatter(spread, inside, s=60, facecolor="none", edgecolor=colour, zorder=3)
    axes.set_xticks(range(len(its)), [row.cell for row, _ in its])
    if task == "parity":
        plain(axes, ylim=(0.4, 1.03), ylabel="share of right answers")
        axes.axhline(0.5, color="#222222", linewidth=0.9, linestyle=":")
        title = f"parity: up to {row.length} bits as trained (ring), from there to {5 * row.length}"
        axes.set_title(f"{title} (filled)", loc="left")
    else:
        plain(axes, ylim=(0, 4.2 * row.length), ylabel="every n up to this is right")
        axes.axhline(row.length, color="#222222", linewidth=0.9, linestyle=":")
        axes.set_title(
            f"aⁿbⁿ: trained up to n = {row.length}, tested to {4 * row.length}", loc="left"
        )
