"""Tables, JSON and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from experiments.benchmark.peers import PASSES, Pass
from experiments.benchmark.results import OWN_KINDS, PEER_KINDS, Entry, Line, Row

_MARKERS = {
    **{"jaxrnn": "o", "jaxrnn spread": "D", "jax": "x", "jax spread": "+"},
    **{"torch": "^", "by hand": "s"},
}

# Shared by the commands of this folder ------------------------------------------------------------


def make_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1, **options: Any
) -> Table:
    """A table for the terminal, with `text` columns of text before those of numbers."""
    table = Table(title_justify="left", caption_justify="left", **options)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def make_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def digits(number: float | None, count: int = 3) -> str:
    """At least `count` significant digits, with no power of ten for large numbers."""
    if number is None:
        return "–"
    return f"{number:,.0f}" if number >= 10 ** (count - 1) else f"{number:.{count}g}"


def megabytes(count: int | None) -> float | None:
    """Bytes in units of a million."""
    return None if count is None else count / 1e6


def make_figure(machine: dict[str, Any], width: float, height: float) -> Figure:
    """An empty figure whose title describes the machine."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(f"{machine['device']}, {machine['threads']} threads: {machine['processor']}")
    return figure


# The benchmark ------------------------------------------------------------------------------------


def row_table(row: Row) -> Table:
    """One workload: one line per contender, the fastest gradient first."""
    rates = ", ".join(f"{rate / 1e9:,.0f}" for rate in row.matrix_rate.values())
    return make_table(
        [
            "contender",
            *("fwd ms", "× peers", "rate", "compile s", "MB (temp.)"),
            *("f+b ms", "× peers", "rate", "compile s", "MB (temp.)"),
        ],
        [
            [
                f"[bold]{entry.title}[/]" if entry.kind in OWN_KINDS else entry.title,
                *(cell for which in PASSES for cell in _cells(row, entry, which)),
            ]
            for entry in sorted(row.entries, key=lambda entry: entry.timings[PASSES[-1]].median)
        ],
        title=f"{row.workload.name}   (matrix rate {rates} GFLOP/s)",
        caption="; ".join(f"{name}: {reason}" for name, reason in row.refused.items()) or None,
    )


def _cells(row: Row, entry: Entry, which: Pass) -> list[str]:
    timing = entry.timings[which]
    total, temporary = megabytes(timing.total_bytes), megabytes(timing.temporary_bytes)
    return [
        digits(1e3 * timing.median),
        digits(row.ratio(entry, which, PEER_KINDS)),
        f"{timing.share:.1%}",
        digits(timing.compile_seconds),
        f"{digits(total, 2)} ({digits(temporary, 2)})",
    ]


def summary_table(lines: Sequence[Line]) -> Table:
    """The lines of the summary."""
    return make_table(
        ["engine", "pass", "quantity", "minimum at", "mean", "minimum", "rows"],
        [
            [*line[:4], f"{line.value:.2f}", f"{line.least or line.value:.2f}", str(line.rows)]
            for line in lines
        ],
        text=4,
        title="Summary (ratios above 1: this library is faster)",
    )


def markdown(rows: Sequence[Row]) -> str:
    """Milliseconds, forward / forward+backward, with the ratio of each engine to its peers."""
    titles = list(dict.fromkeys(title for row in rows for title in row.engines()))
    return make_markdown(
        ["work", "best JAX peer", "the same, a device a core", "PyTorch", "by hand", *titles],
        [
            [
                row.workload.name,
                *(_best(row, kind) for kind in ("jax", "jax spread", "torch", "by hand")),
                *(_engine(row, row.engines().get(title)) for title in titles),
            ]
            for row in rows
        ],
    )


def _best(row: Row, kind: str) -> str:
    found = [entry for which in PASSES if (entry := row.best(which, (kind,)))]
    pairs = zip(found, PASSES, strict=False)  # all passes or none
    times = " / ".join(digits(1e3 * entry.timings[which].median) for entry, which in pairs)
    names = ", ".join(dict.fromkeys(entry.title for entry in found))
    return (f"{times} ({names})" if kind.startswith("jax") else times) if found else "–"


def _engine(row: Row, entry: Entry | None) -> str:
    if entry is None:
        return "–"
    times = " / ".join(digits(1e3 * entry.timings[which].median) for which in PASSES)
    ratios = [row.ratio(entry, which, PEER_KINDS) for which in PASSES]
    shown = " / ".join(f"{ratio:.2f}" for ratio in ratios if ratio is not None)
    return f"{times} (×{shown})" if shown else times


def plot_times(path: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """Plots every time relative to that of the best peer of its row: left of 1 is faster."""
    figure = make_figure(machine, 14, 2.2 + 0.34 * len(rows))
    panels = figure.subplots(1, len(PASSES), sharey=True)
    kinds = {entry.title: entry.kind for row in rows for entry in row.entries}
    for axes, which in zip(panels, PASSES, strict=True):
        for title, kind in kinds.items():
            places = [
                (entry.timings[which].median / _reference(row, which), height)
                for height, row in enumerate(rows)
                for entry in row.entries
                if entry.title == title
            ]
            axes.plot(*zip(*places, strict=True), _MARKERS[kind], alpha=0.85, label=title)
        axes.axvline(1, color="#999999", linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        axes.set(title=which, xlabel="time / time of the best peer")
    panels[0].set_yticks(range(len(rows)), [row.workload.name for row in rows], fontsize=8)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    figure.savefig(path, dpi=120)


def _reference(row: Row, which: Pass) -> float:
    best = row.best(which, PEER_KINDS) or row.best(which, ("by hand", "jaxrnn"))
    return best.timings[which].median if best else 1.0
