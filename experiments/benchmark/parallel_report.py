"""Tables and plots of `parallel_in_time`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.table import Table

from experiments.benchmark.peers import PASSES, Pass
from experiments.benchmark.report import digits, make_figure, make_markdown, make_table, megabytes
from jaxrnn.engines import Newton

PEER = "jax.lax.associative_scan"

# The methods whose iterations are counted.
METHODS = {
    "Newton": Newton(),
    "quasi-Newton": Newton(quasi=True),
    "damped by half": Newton(damping=0.5),
}

_COLORS = {
    "Sequential": "#8d99a6",
    "Hoisted": "#2d5f8b",
    "Associative": "#3a8f5c",
    "Newton": "#b3362d",
    PEER: "#e09f3e",
}


class Entry(NamedTuple):
    """One engine on one problem, in one pass."""

    title: str
    milliseconds: float  # median
    temporary_bytes: int | None  # in addition to arguments and results
    compile_seconds: float | None
    error: float  # largest difference from the first engine, relative to the scale of each array


class Row(NamedTuple):
    """All engines on one problem, in one pass."""

    cell: str
    time: int
    size: str  # time × batch × inputs × outputs
    which: Pass
    entries: tuple[Entry, ...]
    refused: dict[str, str]  # reasons by title
    iterations: int | None  # of Newton's method; None where it did not converge or was not run

    def sequential(self) -> Entry | None:
        """The fastest engine that is sequential in time."""
        return _fastest(e for e in self.entries if _is_sequential(e))

    def parallel(self) -> Entry | None:
        """The fastest engine that is parallel in time."""
        return _fastest(e for e in self.entries if not _is_sequential(e) and e.title != PEER)

    def entry(self, title: str) -> Entry | None:
        """The entry of an engine."""
        return next((e for e in self.entries if e.title == title), None)


class Point(NamedTuple):
    """One cell at one scale of its recurrent kernel."""

    cell: str
    scale: float
    exponent: float  # the largest Lyapunov exponent
    iterations: dict[str, int | None]  # by method; None where it did not converge


def _is_sequential(entry: Entry) -> bool:
    return entry.title.startswith(("Sequential", "Hoisted"))


def _fastest(entries: Iterable[Entry]) -> Entry | None:
    return min(entries, key=lambda entry: entry.milliseconds, default=None)


def _titles(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(entry.title for row in rows for entry in row.entries))


def problem_table(rows: Sequence[Row]) -> Table:
    """One problem in both passes: one line per engine, and the speed of the parallel ones."""
    notes = [f"{title}: {reason}" for row in rows for title, reason in row.refused.items()]
    for row in rows:
        loop, parallel = row.sequential(), row.parallel()
        if loop and parallel:
            ratio = loop.milliseconds / parallel.milliseconds
            notes.append(
                f"{row.which}: {parallel.title} is {ratio:.2f} times as fast as {loop.title}"
            )
    return make_table(
        ["engine", *(f"{which} ms (MB)" for which in PASSES), "compile s", "error"],
        [[title, *_cells([row.entry(title) for row in rows])] for title in _titles(rows)],
        title=f"{rows[0].cell}, {rows[0].size}",
        caption="\n".join(dict.fromkeys(notes)),
    )


def _cells(entries: Sequence[Entry | None]) -> list[str]:
    found = [entry for entry in entries if entry]
    return [
        *(
            f"{digits(e.milliseconds)} ({digits(megabytes(e.temporary_bytes), 2)})" if e else "–"
            for e in entries
        ),
        " / ".join(digits(entry.compile_seconds, 2) for entry in found),
        f"{max(entry.error for entry in found):.0e}",
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Milliseconds forward / forward+backward and megabytes of the latter, one row per problem.

    The shortest time of each pass is bold.
    """
    problems: dict[str, list[Row]] = {}
    for row in rows:
        problems.setdefault(f"{row.cell}, {row.size}", []).append(row)
    titles = _titles(rows)
    return make_markdown(
        ["work", *(f"`{title}`" for title in titles)],
        [
            [name, *(_both_passes(passes, title) for title in titles)]
            for name, passes in problems.items()
        ],
    )


def _both_passes(rows: Sequence[Row], title: str) -> str:
    times, memory = [], None
    for row in rows:
        entry = row.entry(title)
        if entry is None:
            return ""
        mark = "**" if entry == _fastest(row.entries) else ""
        times.append(f"{mark}{digits(entry.milliseconds, 2)}{mark}")
        memory = megabytes(entry.temporary_bytes)
    return f"{' / '.join(times)} ms, {digits(memory, 2)} MB"


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
    quantities = [(which, "ms") for which in PASSES] + [(PASSES[-1], "temporary MB")]
    lines = {}
    for column, cell in enumerate(cells):
        for axes, (which, unit) in zip(panels[:, column], quantities, strict=True):
            own = [row for row in rows if row.cell == cell and row.which == which]
            for title in _titles(own):
                found = [(row.time, entry) for row in own if (entry := row.entry(title))]
                values = [
                    entry.milliseconds if unit == "ms" else megabytes(entry.temporary_bytes)
                    for _, entry in found
                ]
                kind = title.split("(")[0]
                special = "quasi" in title or "chunk" in title
                (lines[title],) = axes.plot(
                    [time for time, _ in found],
                    values,
                    color=_COLORS[kind],
                    linestyle="-" if title == kind else "--" if special else ":",
                    marker="o",
                    markersize=3,
                )
            axes.set(xscale="log", yscale="log", title=f"{cell}: {which}")
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(unit)
        panels[-1, column].set_xlabel("steps")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2 * len(cells))
    figure.savefig(path, dpi=110)


def plot_iterations(path: Path, points: Sequence[Point], length: int) -> None:
    """Plots the iterations against the exponent, with open markers where they did not converge."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    top = max(engine.max_iterations for engine in METHODS.values())
    markers = dict(zip(dict.fromkeys(p.cell for p in points), "os^Dv", strict=False))
    colors = dict(zip(METHODS, ("#b3362d", "#e09f3e", "#2d5f8b"), strict=True))
    for point in points:
        for method, count in point.iterations.items():
            axes.plot(
                point.exponent,
                top if count is None else count,
                markers[point.cell],
                color=colors[method],
                fillstyle="none" if count is None else "full",
                label=None if count is None else f"{point.cell}, {method}",
            )
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set(
        yscale="log",
        xlabel="largest Lyapunov exponent, nats per step",
        ylabel=f"iterations (open: no convergence after {top}; the loop ran)",
        title=f"{length:,} steps",
    )
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    axes.legend(legend.values(), legend.keys(), fontsize=8)
    figure.savefig(path, dpi=110)
