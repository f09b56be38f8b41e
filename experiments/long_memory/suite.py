"""The suite: which cells solve which task, with three seeds each, as a table and a plot."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.common.plots import COLORS, End, label_curves, style_axes
from experiments.long_memory import train
from experiments.long_memory.train import Config, Result

SEEDS = 3


class Row(NamedTuple):
    """A configuration, and whether its cell is claimed to solve the task."""

    config: Config
    solves: bool

    @property
    def name(self) -> str:
        """The name of the row's folder."""
        return f"{self.config.task}-{self.config.cell}"


def make_row(
    task: Any,
    cell: str,
    solves: bool,
    length: int,
    hidden: int,
    steps: int,
    learning_rate: float,
    **changes: Any,
) -> Row:
    """Makes a row; cells have their usual initialization unless `paper_start` is True."""
    settings = dict(paper_start=False, engine="sequential", seeds=SEEDS) | changes
    training = Options(steps=steps, learning_rate=learning_rate)
    config = Config(task, cell, length=length, hidden=hidden, training=training, **settings)
    return Row(config, solves)


ROWS = (
    make_row("adding", "lru", True, 500, 64, 4000, 1e-2, paper_start=True),
    make_row("adding", "lem", True, 500, 64, 900, 1e-2, paper_start=True),
    make_row("adding", "lstm", True, 500, 64, 800, 1e-2, paper_start=True),
    make_row("adding", "elman", False, 500, 64, 900, 2e-3, paper_start=True),
    make_row("copy", "orthogonal-rnn", True, 200, 96, 800, 2e-3, engine="hoisted"),
    make_row("copy", "elman", False, 200, 96, 800, 1e-3),
    make_row("parity", "lstm", True, 40, 32, 1000, 1e-2),
    make_row("parity", "gru", True, 40, 32, 1000, 1e-2),
    make_row("parity", "min-gru", False, 40, 32, 1000, 5e-3),
    make_row("parity", "rglru", False, 40, 32, 1000, 5e-3),
    make_row("anbn", "lstm", True, 50, 16, 12000, 1e-2),
    make_row("anbn", "gru", False, 50, 16, 12000, 1e-2),
)


class Criterion(NamedTuple):
    """How a task is judged.

    Attributes:
        metric: the test metric.
        label: its name in the table and the plot.
        chance: its value without memory, None for the task's `chance`.
        solved: `(test metrics, length) -> whether the task is solved`.
    """

    metric: str
    label: str
    chance: str | None
    solved: Callable[[dict[str, float], int], bool]


CRITERIA = {
    "adding": Criterion("loss", "squared error", None, lambda test, _: test["loss"] < 0.01),
    "copy": Criterion(
        "loss", "nats a step", None, lambda test, _: test["loss"] < 0.9 * test["chance"]
    ),
    "parity": Criterion(
        "accuracy_longer", "accuracy, longer", "0.5", lambda test, _: test["accuracy_longer"] > 0.99
    ),
    "anbn": Criterion(
        "counts_to", "counts to", "0", lambda test, length: test["counts_to"] >= 1.5 * length
    ),
}


class Run(NamedTuple):
    """A trained row, with the test metrics of each seed."""

    row: Row
    metrics: Sequence[dict[str, float]]
    folder: Path
    seconds: float


def main(config: Config) -> Result:
    """Trains all rows, each in its own folder so that a stopped suite resumes, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    base = config.training.out or Path("runs/long_memory/suite")
    runs, outcome = [], None
    for row in ROWS:
        steps, rate = row.config.training.steps, row.config.training.learning_rate
        steps = min(steps, config.suite_steps or steps)
        training = replace(config.training, steps=steps, learning_rate=rate, out=base / row.name)
        outcome, metrics = train.main(replace(row.config, training=training))
        if outcome.signal is not None:
            return Result(outcome, metrics)
        runs.append(Run(row, metrics, base / row.name, outcome.seconds))
    assert outcome is not None
    table = format_table(runs)
    console.print(table)
    (base / "table.md").write_text(table + "\n", encoding="utf-8")
    plot_suite(base / "long_memory.png", runs)
    return Result(outcome, tuple(metrics for run in runs for metrics in run.metrics))


def format_table(runs: Sequence[Run]) -> str:
    """Formats the results as a Markdown table."""
    lines = [
        "| task | cell | metric | each seed | chance | solved | claimed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (config, solves), metrics, _, seconds in runs:
        criterion = CRITERIA[config.task]
        seeds = ", ".join(f"{values[criterion.metric]:.4g}" for values in metrics)
        solved = sum(criterion.solved(values, config.length or 0) for values in metrics)
        chance = criterion.chance or f"{metrics[0]['chance']:.4f}"
        lines.append(
            f"| {config.task}, {config.length} | {config.cell} | {criterion.label} | {seeds} | "
            f"{chance} | {solved} of {len(metrics)} | {'yes' if solves else 'no'} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def plot_suite(path: Path, runs: Sequence[Run]) -> None:
    """Plots learning curves of adding and copy, and test metrics of parity and aⁿbⁿ."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    panels = zip(("adding", "copy", "parity", "anbn"), figure.subplots(2, 2).flat, strict=True)
    for task, axes in panels:
        chosen = [run for run in runs if run.row.config.task == task]
        if not chosen:
            axes.set_visible(False)
        elif task in ("adding", "copy"):
            _plot_curves(axes, task, chosen)
        else:
            _plot_metrics(axes, task, chosen)
    figure.suptitle("Long memory by cell and task", fontsize=15, weight="bold")
    figure.savefig(path, dpi=130)


def _plot_curves(axes: Any, task: str, runs: Sequence[Run]) -> None:
    ends = []
    for color, run in zip(COLORS, runs, strict=False):
        lines = [x for x in Log(run.folder / "metrics.jsonl").read() if "validation_loss" in x]
        names = ("step", "validation_loss", "validation_loss_std")
        steps, means, stds = (np.array([line[name] for line in lines]) for name in names)
        axes.plot(steps, means, color=color, linewidth=1.9)
        low = np.maximum(means - stds, means / 10)
        axes.fill_between(steps, low, means + stds, color=color, alpha=0.15, linewidth=0)
        ends.append(End(means[-1], run.row.config.cell, color))
    _annotate(axes, runs[0].metrics[0]["chance"], "chance")
    if task == "adding":
        axes.axhline(0.01, color="#009e73", linewidth=0.9, linestyle="--")
        solved = dict(xycoords=("axes fraction", "data"), va="top", color="#00734f", fontsize=9)
        axes.annotate("solved", (0.01, 0.01), **solved)
    limit = max(run.row.config.training.steps for run in runs)
    label = CRITERIA[task].label
    style_axes(axes, yscale="log", xlim=(0, limit), xlabel="step", ylabel=label)
    length = runs[0].row.config.length
    title = f"{task}, {length} steps: validation, mean and standard deviation of {SEEDS} seeds"
    axes.set_title(title, loc="left")
    label_curves(axes, ends)


def _plot_metrics(axes: Any, task: str, runs: Sequence[Run]) -> None:
    length = runs[0].row.config.length or 0
    for place, (color, run) in enumerate(zip(COLORS, runs, strict=False)):
        across = place + 0.14 * (np.arange(len(run.metrics)) - (len(run.metrics) - 1) / 2)
        dots = dict(s=80, zorder=3, clip_on=False)
        if task == "parity":
            inside = [values["accuracy"] for values in run.metrics]
            axes.scatter(across, inside, facecolor="none", edgecolor=color, **dots)
        values = [values[CRITERIA[task].metric] for values in run.metrics]
        axes.scatter(across, values, color=color, **dots)
    axes.set_xticks(range(len(runs)), [run.row.config.cell for run in runs])
    axes.set_xlim(-0.6, len(runs) - 0.4)
    if task == "parity":
        style_axes(axes, ylim=(0.4, 1.02), ylabel="accuracy")
        _annotate(axes, 0.5, "chance")
        title = f"parity: ring, bits 1 to {length} as in training; dot, from there to {5 * length}"
    else:
        style_axes(axes, ylim=(0, 4 * length), ylabel="largest n up to which all are correct")
        _annotate(axes, length, "longest n in training")
        title = f"aⁿbⁿ, tested up to n = {4 * length}"
    axes.set_title(title, loc="left")


def _annotate(axes: Any, y: float, text: str) -> None:
    axes.axhline(y, color="#222222", linewidth=0.9, linestyle=":")
    where = dict(xycoords=("axes fraction", "data"), fontsize=9, color="#222222", va="bottom")
    axes.annotate(text, (0.01, y), **where)
