"""The suite: which cells solve which task, with three seeds each, as a table and a plot."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.common.plots import COLORS, End, label_curves, style_axes
from experiments.common.processes import make_console
from experiments.common.results import write_results
from experiments.long_memory import train
from experiments.long_memory.train import Config, Result

SEEDS = 3


class Row(NamedTuple):
    """One task and one cell, its settings, and whether the cell is claimed to solve the task."""

    task: Any
    cell: str
    solves: bool
    length: int
    hidden: int
    steps: int
    learning_rate: float
    paper_start: bool = False
    engine: str = "sequential"

    @property
    def name(self) -> str:
        """The name of the row's folder."""
        return f"{self.task}-{self.cell}"

    def config(self, folder: Path, options: Options) -> Config:
        """The configuration of the row, in its own folder."""
        changes = dict(steps=self.steps, learning_rate=self.learning_rate, out=folder / self.name)
        names = ("task", "cell", "length", "hidden", "paper_start", "engine")
        settings = {name: getattr(self, name) for name in names}
        return Config(**settings, seeds=SEEDS, training=replace(options, **changes))


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


class Criterion(NamedTuple):
    """The test metric that judges a task, its label, and `(test metrics, length) -> solved`."""

    metric: str
    label: str
    solved: Callable[[dict[str, float], int], bool]


CRITERIA = {
    "adding": Criterion("loss", "squared error", lambda m, _: m["loss"] < 0.01),
    "copy": Criterion("loss", "nats a step", lambda m, _: m["loss"] < 0.9 * m["chance"]),
    "parity": Criterion("accuracy_longer", "accuracy", lambda m, _: m["accuracy_longer"] > 0.99),
    "anbn": Criterion("counts_to", "counts to", lambda m, n: m["counts_to"] >= 1.5 * n),
}


class TrainedRow(NamedTuple):
    """A row with the test metrics of each seed."""

    row: Row
    metrics: Sequence[dict[str, float]]
    folder: Path
    seconds: float


def main(config: Config) -> Result:
    """Trains all rows, of which a stopped suite resumes the next one, and reports."""
    console = make_console()
    folder = config.training.out or Path("runs/long_memory/suite")
    trained, outcome = [], None
    for row in ROWS:
        row = row._replace(steps=min(row.steps, config.suite_steps or row.steps))
        outcome, metrics = train.main(row.config(folder, config.training))
        if outcome.signal is not None:
            return Result(outcome, metrics)
        trained.append(TrainedRow(row, metrics, folder / row.name, outcome.seconds))
    assert outcome is not None
    if not outcome.reports:
        return Result(outcome, ())
    figures = {
        f"{row.task}, {row.cell}": [values[CRITERIA[row.task].metric] for values in metrics]
        for row, metrics, *_ in trained
    }
    seconds = sum(each.seconds for each in trained)
    write_results(folder, "long_memory", replace(config, seeds=SEEDS), figures, seconds)
    table = format_table(trained)
    console.print(table)
    (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    plot_suite(folder / "long_memory.png", trained)
    return Result(outcome, tuple(metrics for each in trained for metrics in each.metrics))


def format_table(rows: Sequence[TrainedRow]) -> str:
    """Formats the results as a Markdown table; the accuracy of parity is on longer sequences."""
    lines = [
        "| task | cell | metric | each seed | chance | solved | claimed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, metrics, _, seconds in rows:
        metric, label, is_solved = CRITERIA[row.task]
        seeds = ", ".join(f"{values[metric]:.4g}" for values in metrics)
        solved = sum(is_solved(values, row.length) for values in metrics)
        chance = {"accuracy_longer": "0.5", "counts_to": "0"}.get(metric)
        lines.append(
            f"| {row.task}, {row.length} | {row.cell} | {label} | {seeds} | "
            f"{chance or format(metrics[0]['chance'], '.4f')} | {solved} of {len(metrics)} | "
            f"{'yes' if row.solves else 'no'} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def plot_suite(path: Path, rows: Sequence[TrainedRow]) -> None:
    """Plots learning curves of adding and copy, and test metrics of parity and aⁿbⁿ."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    panels = zip(("adding", "copy", "parity", "anbn"), figure.subplots(2, 2).flat, strict=True)
    for task, axes in panels:
        chosen = [each for each in rows if each.row.task == task]
        if not chosen:
            axes.set_visible(False)
        elif task in ("adding", "copy"):
            _plot_curves(axes, task, chosen)
        else:
            _plot_metrics(axes, task, chosen)
    figure.suptitle("Long memory by cell and task", fontsize=15, weight="bold")
    figure.savefig(path, dpi=130)


def _plot_curves(axes: Any, task: str, rows: Sequence[TrainedRow]) -> None:
    ends, length = [], rows[0].row.length
    for color, each in zip(COLORS, rows, strict=False):
        lines = [x for x in Log(each.folder / "metrics.jsonl").read() if "validation_loss" in x]
        names = ("step", "validation_loss", "validation_loss_std")
        steps, means, stds = (np.array([line[name] for line in lines]) for name in names)
        axes.plot(steps, means, color=color, linewidth=1.9)
        low = np.maximum(means - stds, means / 10)
        axes.fill_between(steps, low, means + stds, color=color, alpha=0.15, linewidth=0)
        ends.append(End(means[-1], each.row.cell, color))
    _mark(axes, rows[0].metrics[0]["chance"], "chance")
    if task == "adding":
        _mark(axes, 0.01, "solved", color="#00734f", linestyle="--")
    limit = max(each.row.steps for each in rows)
    label = CRITERIA[task].label
    style_axes(axes, yscale="log", xlim=(0, limit), xlabel="step", ylabel=label)
    title = f"{task}, {length} steps: validation, mean and standard deviation of {SEEDS} seeds"
    axes.set_title(title, loc="left")
    label_curves(axes, ends)


def _plot_metrics(axes: Any, task: str, rows: Sequence[TrainedRow]) -> None:
    length, dots = rows[0].row.length, dict(s=80, zorder=3, clip_on=False)
    for place, (color, each) in enumerate(zip(COLORS, rows, strict=False)):
        across = place + 0.14 * (np.arange(len(each.metrics)) - (len(each.metrics) - 1) / 2)
        values = [metrics[CRITERIA[task].metric] for metrics in each.metrics]
        axes.scatter(across, values, color=color, **dots)
        if task == "parity":
            trained = [metrics["accuracy"] for metrics in each.metrics]
            axes.scatter(across, trained, facecolor="none", edgecolor=color, **dots)
    axes.set_xticks(range(len(rows)), [each.row.cell for each in rows])
    axes.set_xlim(-0.6, len(rows) - 0.4)
    if task == "parity":
        style_axes(axes, ylim=(0.4, 1.02), ylabel="accuracy")
        _mark(axes, 0.5, "chance")
        title = f"parity: ring, bits 1 to {length} as in training; dot, from there to {5 * length}"
    else:
        style_axes(axes, ylim=(0, 4 * length), ylabel="largest n up to which all are correct")
        _mark(axes, length, "longest n in training")
        title = f"aⁿbⁿ, tested up to n = {4 * length}"
    axes.set_title(title, loc="left")


def _mark(axes: Any, y: float, text: str, color: str = "#222222", linestyle: str = ":") -> None:
    axes.axhline(y, color=color, linewidth=0.9, linestyle=linestyle)
    where = dict(xycoords=("axes fraction", "data"), fontsize=9, color=color, va="bottom")
    axes.annotate(text, (0.01, y), **where)
