"""Tables and plots of `parallel_in_time`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments.benchmark.peers import PASSES, Pass
from experiments.benchmark.report import digits, make_figure, make_markdown, make_table, megabytes
from jaxrnn.engines import Newton

METHODS = {
    "Newton": Newton(),
    "quasi-Newton": Newton(quasi=True),
    "damped by half": Newton(damping=0.5),
}
"""The methods whose iterations are counted."""

PEER = "jax.lax.associative_scan"

_COLORS = {
    "Sequential": "#8d99a6",
    "Hoisted": "#2d5f8b",
    "Associative": "#3a8f5c",
    "Newton": "#b3362d",
    PEER: "#e09f3e",
}


class Entry(NamedTuple):
    """One engine at one length.

    Attributes:
        title: the engine.
        milliseconds: the median.
        temporary_bytes: memory in addition to arguments and results.
        compile_seconds: time to trace and compile.
        error: the largest difference from the first engine, relative to the scale of each array.
    """

    title: str
    milliseconds: float
    temporary_bytes: int | None
    compile_seconds: float | None
    error: float


class Row(NamedTuple):
    """All engines on one problem, in one pass.

    Attributes:
        cell: its name.
        time: steps.
        size: time × batch × inputs × outputs.
        which: the pass.
        entries: the engines that ran.
        refused: the others, with their reasons.
        iterations: of Newton's method; None where it did not converge or was not run.
    """

    cell: str
    time: int
    size: str
    which: Pass
    entries: tuple[Entry, ...]
    refused: dict[str, str]
    iterations: int | None

    def sequential(self) -> Entry:
        """The fastest engine that is sequential in time."""
        return _fastest(e for e in self.entries if _is_sequential(e.title))

    def parallel(self) -> Entry | None:
        """The fastest engine that is parallel in time."""
        return _fastest(e for e in self.entries if not _is_sequential(e.title) and e.title != PEER)

    def entry(self, title: str) -> Entry | None:
        """The entry of an engine."""
        return next((e for e in self.entries if e.title == title), None)

    def is_fastest(self, entry: Entry) -> bool:
        """Whether no other entry took less time."""
        return entry.milliseconds == min(e.milliseconds for e in self.entries)


class Point(NamedTuple):
    """One cell at one scale of its recurrent kernel.

    Attributes:
        cell: its name.
        scale: factor on the recurrent kernel.
        exponent: the largest Lyapunov exponent.
        iterations: by method; None where it did not converge.
    """

    cell: str
    scale: float
    exponent: float
    iterations: dict[str, int | None]


def _is_sequential(title: str) -> bool:
    return title.startswith(("Sequential", "Hoisted"))


def _fastest(entries: Any) -> Any:
    return min(entries, key=lambda entry: entry.milliseconds, default=None)


def summary_line(row: Row) -> str:
    """The fastest sequential and parallel engines of a row."""
    loop, parallel = row.sequential(), row.parallel()
    text = f"{row.cell}, {row.size}, {row.which}: {loop.title} {digits(loop.milliseconds)} ms"
    if parallel is None:
        return text
    ratio = loop.milliseconds / parallel.milliseconds
    text += f"; {parallel.title} {digits(parallel.milliseconds)} ms"
    return f"{text}: {ratio:.2f} times as fast"


def sizes_table(rows: Sequence[Row]) -> str:
    """A Markdown table of all problems.

    Milliseconds forward / forward+backward, and megabytes of the latter; the shortest time of each
    pass is bold.
    """
    problems: dict[str, dict[Pass, Row]] = {}
    for row in rows:
        problems.setdefault(f"{row.cell}, {row.size}", {})[row.which] = row
    titles = list(dict.fromkeys(e.title for row in rows for e in row.entries))
    return make_markdown(
        ["work", *(f"`{title}`" for title in titles)],
        [
            [name, *(_both_passes([passes[which] for which in PASSES], title) for title in titles)]
            for name, passes in problems.items()
        ],
    )


def _both_passes(rows: Sequence[Row], title: str) -> str:
    times, memory = [], None
    for row in rows:
        entry = row.entry(title)
        if entry is None:
            return ""
        mark = "**" if row.is_fastest(entry) else ""
        times.append(f"{mark}{digits(entry.milliseconds, 2)}{mark}")
        memory = megabytes(entry.temporary_bytes)
    return f"{' / '.join(times)} ms, {digits(memory, 2)} MB"


def print_lengths(console: Console, rows: Sequence[Row], points: Sequence[Point]) -> None:
    """Prints a table for each cell, the reasons of the engines that refused, and the iterations."""
    for name in dict.fromkeys(row.cell for row in rows):
        own = [row for row in rows if row.cell == name]
        console.print(lengths_table(own))
        for title, reason in dict.fromkeys(item for row in own for item in row.refused.items()):
            console.print(f"  {title}: {reason}", style="dim", soft_wrap=True)
    if points:
        console.print(iterations_table(points))


def lengths_table(rows: Sequence[Row]) -> Table:
    """Milliseconds and temporary megabytes of one cell; the shortest time is bold."""
    titles = dict.fromkeys(e.title for row in rows for e in row.entries)
    passes = dict(zip(PASSES, ("fwd", "fwd+bwd"), strict=True))
    return make_table(
        ["engine", *(f"{row.time:,} {passes[row.which]}" for row in rows)],
        [[title, *(_length(row, row.entry(title)) for row in rows)] for title in titles],
        title=f"{rows[0].cell}: ms (temporary MB)",
    )


def _length(row: Row, entry: Entry | None) -> str:
    if entry is None:
        return "–"
    text = f"{digits(entry.milliseconds)} ({digits(megabytes(entry.temporary_bytes), 2)})"
    return f"[bold]{text}[/]" if row.is_fastest(entry) else text


def iterations_table(points: Sequence[Point]) -> Table:
    """Lyapunov exponents and iterations."""
    return make_table(
        ["cell", "scale", "exponent", *METHODS],
        [
            [
                point.cell,
                f"{point.scale:g}",
                f"{point.exponent:+.3f}",
                *("no convergence" if n is None else str(n) for n in point.iterations.values()),
            ]
            for point in points
        ],
        title="Iterations against the Lyapunov exponent",
    )


def plot_lengths(path: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """Plots the times of both passes and the memory of the second against the number of steps."""
    cells = list(dict.fromkeys(row.cell for row in rows))
    figure = make_figure(machine, 4.6 * len(cells) + 1, 10)
    panels = figure.subplots(3, len(cells), squeeze=False, sharex=True)
    quantities = [(which, which, "ms") for which in PASSES]
    quantities += [(PASSES[-1], f"memory, {PASSES[-1]}", "temporary MB")]
    for column, cell in enumerate(cells):
        for axes, (which, title, unit) in zip(panels[:, column], quantities, strict=True):
            own = [row for row in rows if row.cell == cell and row.which == which]
            for engine in dict.fromkeys(entry.title for row in own for entry in row.entries):
                _plot_engine(axes, own, engine, memory=unit != "ms")
            axes.set(xscale="log", yscale="log", title=f"{cell}: {title}")
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(unit)
        panels[-1, column].set_xlabel("steps")
    found = {}
    for axes in panels.ravel():
        found |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=2 * len(cells))
    figure.savefig(path, dpi=110)


def _plot_engine(axes: Any, rows: Sequence[Row], title: str, *, memory: bool) -> None:
    kind = title.split("(")[0]
    points = [(row.time, entry) for row in rows if (entry := row.entry(title))]
    axes.plot(
        [time for time, _ in points],
        [megabytes(e.temporary_bytes) if memory else e.milliseconds for _, e in points],
        color=_COLORS[kind],
        linestyle="-" if title == kind else "--" if "quasi" in title or "chunk" in title else ":",
        marker="o",
        markersize=3,
        label=title,
    )


def plot_iterations(path: Path, points: Sequence[Point], length: int) -> None:
    """Plots the iterations against the exponent, with open markers where they did not converge."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    top = max(engine.max_iterations for engine in METHODS.values())
    markers = dict(zip(dict.fromkeys(p.cell for p in points), "os^Dv", strict=False))
    colors = dict(zip(METHODS, ("#b3362d", "#e09f3e", "#2d5f8b"), strict=True))
    for cell, marker in markers.items():
        for method, color in colors.items():
            counts = [(p.exponent, p.iterations[method]) for p in points if p.cell == cell]
            done = [(x, n) for x, n in counts if n is not None]
            failed = [(x, top) for x, n in counts if n is None]
            if done:
                axes.plot(*zip(*done, strict=True), marker, color=color, label=f"{cell}, {method}")
            if failed:
                axes.plot(*zip(*failed, strict=True), marker, color=color, fillstyle="none")
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set(
        yscale="log",
        xlabel="largest Lyapunov exponent, nats per step",
        ylabel=f"iterations (open: no convergence after {top}; the loop ran)",
        title=f"{length:,} steps",
    )
    axes.grid(alpha=0.3)
    if markers:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
