"""What `parallel_in_time` reports: tables, JSON, and two pictures."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxrnn.engines import Newton

Pass = Literal["forward", "forward+backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward+backward")

METHODS = {
    "Newton": Newton(),
    "quasi-Newton": Newton(quasi=True),
    "damped by half": Newton(damping=0.5),
}
"""Whose iterations are counted."""

PEER = "jax.lax.associative_scan"

_COLOURS = {
    "Sequential": "#8d99a6",
    "Hoisted": "#2d5f8b",
    "Associative": "#3a8f5c",
    "Newton": "#b3362d",
    PEER: "#e09f3e",
}


class Entry(NamedTuple):
    """One engine at one length."""

    title: str
    milliseconds: float
    temporary_bytes: int | None
    compile_seconds: float | None
    error: float
    """The largest difference to the first engine, relative to the scale of each array."""


class Row(NamedTuple):
    """All engines on one work, in one pass."""

    cell: str
    time: int
    size: str
    """Time × batch × inputs × outputs."""
    which: Pass
    entries: tuple[Entry, ...]
    refused: dict[str, str]
    iterations: int | None
    """Iterations of Newton's method; None where it did not converge or was not tried."""

    def walking(self) -> Entry:
        """The fastest engine that goes step by step."""
        return min((e for e in self.entries if _walks(e.title)), key=lambda e: e.milliseconds)

    def parallel(self) -> Entry | None:
        """The fastest engine that is parallel in time."""
        others = [e for e in self.entries if not _walks(e.title) and e.title != PEER]
        return min(others, key=lambda e: e.milliseconds) if others else None


class Point(NamedTuple):
    """One cell with one scale of its recurrent kernel."""

    cell: str
    scale: float
    exponent: float
    iterations: dict[str, int | None]
    """By method; None where it did not converge."""


def _walks(title: str) -> bool:
    return title.startswith(("Sequential", "Hoisted"))


def line(row: Row) -> str:
    """The outcome of one work in a line."""
    walking, parallel = row.walking(), row.parallel()
    head = f"{row.cell}, {row.size}, {row.which}: {_shown(walking)}"
    if parallel is None:
        return head
    ratio = walking.milliseconds / parallel.milliseconds
    return f"{head}; {_shown(parallel)}: {ratio:.2f} times as fast"


def _shown(entry: Entry) -> str:
    return f"{entry.title} {entry.milliseconds:.3g} ms"


def sizes_table(rows: Sequence[Row]) -> str:
    """Milliseconds forward / forward+backward, and megabytes of the latter, of each work.

    A table in Markdown; the least time of each pass is bold.
    """
    pairs: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        pairs.setdefault((row.size, row.cell), {})[row.which] = row
    titles = list(dict.fromkeys(e.title for row in rows for e in row.entries))
    lines = [["work", *(f"`{title}`" for title in titles)], ["---"] * (1 + len(titles))]
    for (size, cell), passes in pairs.items():
        lines.append([f"{cell}, {size}", *(_both_passes(passes, title) for title in titles)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _both_passes(passes: dict[str, Row], title: str) -> str:
    times, memory = [], ""
    for which in PASSES:
        entries = passes[which].entries
        found = next((e for e in entries if e.title == title), None)
        if found is None:
            return ""
        best = found.milliseconds == min(e.milliseconds for e in entries)
        mark = "**" if best else ""
        times.append(f"{mark}{_two_digits(found.milliseconds)}{mark}")
        memory = _two_digits((found.temporary_bytes or 0) / 1e6)
    return f"{' / '.join(times)} ms, {memory} MB"


def _two_digits(number: float) -> str:
    """At least two digits that count, and no power of ten beside them."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def print_lengths(console: Console, rows: Sequence[Row], points: Sequence[Point]) -> None:
    """Tables of all cells, who was refused and why, and the iterations."""
    for name in dict.fromkeys(row.cell for row in rows):
        own = [row for row in rows if row.cell == name]
        console.print(table(own))
        reasons = [item for row in own for item in row.refused.items()]
        for title, reason in dict.fromkeys(reasons):
            console.print(f"  {title}: {reason}", style="dim", soft_wrap=True)
    if points:
        console.print(iterations_table(points))


def table(rows: Sequence[Row]) -> Table:
    """Milliseconds (and megabytes beside arguments and results) of one cell."""
    titles = dict.fromkeys(e.title for row in rows for e in row.entries)
    table = Table(title=f"{rows[0].cell}: ms (temporary MB)", title_justify="left")
    for heading in ("engine", *(f"{row.time:,} {_short(row.which)}" for row in rows)):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for title in titles:
        table.add_row(title, *(_cell(row, title) for row in rows))
    return table


def _cell(row: Row, title: str) -> str:
    found = next((e for e in row.entries if e.title == title), None)
    if found is None:
        return "–"
    best = found.milliseconds == min(e.milliseconds for e in row.entries)
    return f"{'[bold]' if best else ''}{found.milliseconds:.3g} ({_megabytes(found)})"


def _short(which: Pass) -> str:
    return "fwd" if which == "forward" else "fwd+bwd"


def _megabytes(entry: Entry) -> str:
    return "–" if entry.temporary_bytes is None else f"{entry.temporary_bytes / 1e6:.2g}"


def iterations_table(points: Sequence[Point]) -> Table:
    """Exponents and iterations."""
    table = Table(title="Iterations against the Lyapunov exponent", title_justify="left")
    for heading in ("cell", "scale", "exponent", *METHODS):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for point in points:
        counts = ["loop" if n is None else str(n) for n in point.iterations.values()]
        table.add_row(point.cell, f"{point.scale:g}", f"{point.exponent:+.3f}", *counts)
    return table


def write_json(
    path: Path, machine: dict[str, Any], config: Any, rows: Sequence[Row], points: Sequence[Point]
) -> None:
    """All that was measured, with what it was measured on."""
    content = {
        "machine": machine,
        "config": dataclasses.asdict(config),
        "rows": [
            row._asdict() | {"entries": [entry._asdict() for entry in row.entries]} for row in rows
        ],
        "points": [point._asdict() for point in points],
    }
    text = json.dumps(content, indent=1, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")


def draw_times(path: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """Time of both passes and memory of the second, against length; a column a cell."""
    cells = list(dict.fromkeys(row.cell for row in rows))
    figure = Figure(figsize=(4.6 * len(cells) + 1, 10), layout="constrained")
    figure.suptitle(f"{machine['device']}, {machine['threads']} threads: {machine['processor']}")
    panels = figure.subplots(3, len(cells), squeeze=False, sharex=True)
    for column, cell in enumerate(cells):
        for axes, which in zip(panels[:, column], (*PASSES, "memory"), strict=True):
            chosen = PASSES[-1] if which == "memory" else which
            own = [row for row in rows if row.cell == cell and row.which == chosen]
            for title in dict.fromkeys(entry.title for row in own for entry in row.entries):
                _curve(axes, own, title, memory=which == "memory")
            axes.set(xscale="log", yscale="log")
            axes.grid(alpha=0.3)
            axes.set_title(f"{cell}: {which}" + (f", {chosen}" if which == "memory" else ""))
            if column == 0:
                axes.set_ylabel("temporary MB" if which == "memory" else "ms")
        panels[-1, column].set_xlabel("steps")
    found = {}
    for axes in panels.ravel():
        found |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=2 * len(cells))
    figure.savefig(path, dpi=110)


def _curve(axes: Any, rows: Sequence[Row], title: str, *, memory: bool) -> None:
    kind = title.split("(")[0]
    points = [(row.time, e) for row in rows for e in row.entries if e.title == title]
    heights = [(e.temporary_bytes or 0) / 1e6 if memory else e.milliseconds for _, e in points]
    axes.plot(
        [time for time, _ in points],
        heights,
        color=_COLOURS[kind],
        linestyle="-" if title == kind else "--" if "quasi" in title or "chunk" in title else ":",
        marker="o",
        markersize=3,
        label=title,
    )


def draw_iterations(path: Path, points: Sequence[Point], length: int) -> None:
    """Iterations against the exponent; open marks at the top where the loop had to take over."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    top = max([engine.max_iterations for engine in METHODS.values()])
    marks = dict(zip(dict.fromkeys(p.cell for p in points), "os^Dv", strict=False))
    colours = dict(zip(METHODS, ("#b3362d", "#e09f3e", "#2d5f8b"), strict=True))
    for cell, mark in marks.items():
        own = [point for point in points if point.cell == cell]
        for method, colour in colours.items():
            counts = [(p.exponent, p.iterations[method]) for p in own]
            done = [(x, n) for x, n in counts if n is not None]
            failed = [(x, top) for x, n in counts if n is None]
            if done:
                axes.plot(*zip(*done, strict=True), mark, color=colour, label=f"{cell}, {method}")
            if failed:
                axes.plot(*zip(*failed, strict=True), mark, color=colour, fillstyle="none")
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set(
        yscale="log",
        xlabel="largest Lyapunov exponent, nats a step",
        ylabel=f"iterations (open: the loop took over after {top})",
        title=f"{length:,} steps",
    )
    axes.grid(alpha=0.3)
    if marks:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
