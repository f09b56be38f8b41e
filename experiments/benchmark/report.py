"""What the benchmark shows: tables in the terminal, a Markdown table, JSON, a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from experiments.benchmark.peers import PASSES, Pass
from experiments.benchmark.results import PEERS, Entry, Line, Row, Timing

_MARKERS = {"jaxrnn": "o", "jax": "x", "torch": "^", "by hand": "s"}


def row_table(row: Row) -> Table:
    """One work: a line a contender, quickest gradient first."""
    rates = ", ".join(f"{rate / 1e9:,.0f}" for rate in row.matrix_rate.values())
    table = Table(
        title=f"{row.work.name}   (matrix rate {rates} GFLOP/s)",
        title_justify="left",
        caption="; ".join(f"{name}: {reason}" for name, reason in row.refused.items()) or None,
        caption_justify="left",
    )
    table.add_column("")
    for which in PASSES:
        short = "fwd" if which == "forward" else "f+b"
        for heading in (f"{short} ms", "× peers", "rate", "compile s", "MB (temp.)"):
            table.add_column(heading, justify="right")
    for entry in sorted(row.entries, key=lambda entry: entry.timings[PASSES[-1]].median):
        cells = [cell for which in PASSES for cell in _cells(row, entry, which)]
        table.add_row(entry.title, *cells, style="bold" if entry.kind == "jaxrnn" else None)
    return table


def _cells(row: Row, entry: Entry, which: Pass) -> list[str]:
    timing = entry.timings[which]
    ratio = row.ratio(entry, which, PEERS)
    compile_seconds = "" if timing.compile_seconds is None else f"{timing.compile_seconds:.2f}"
    memory = "" if timing.total_bytes is None else f"{timing.total_bytes / 1e6:,.1f}"
    if timing.temporary_bytes is not None:
        memory += f" ({timing.temporary_bytes / 1e6:,.1f})"
    return [
        milliseconds(timing),
        "" if ratio is None else f"{ratio:.2f}",
        f"{timing.share:.1%}",
        compile_seconds,
        memory,
    ]


def milliseconds(timing: Timing) -> str:
    """The median in milliseconds, with three digits or more."""
    value = 1e3 * timing.median
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def summary_table(lines: Sequence[Line]) -> Table:
    """The lines of the summary."""
    table = Table(title="Summary (ratios above 1: this library is faster)", title_justify="left")
    for heading in ("engine", "pass", "", "mean", "least", "where", "rows"):
        table.add_column(
            heading, justify="right" if heading in ("mean", "least", "rows") else "left"
        )
    for line in lines:
        least = "" if line.least is None else f"{line.least:.2f}"
        table.add_row(
            line.engine,
            line.which,
            line.what,
            f"{line.value:.2f}",
            least,
            line.where,
            f"{line.rows}",
        )
    return table


def markdown(rows: Sequence[Row]) -> str:
    """A table for a page: milliseconds, forward / forward+backward, and one ratio an engine."""
    titles = list(dict.fromkeys(entry.title for row in rows for entry in row.engines()))
    headings = ["work", "best JAX peer", "PyTorch", "by hand", *titles]
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        cells = [row.work.name, _best(row, "jax"), _best(row, "torch"), _best(row, "by hand")]
        engines = {entry.title: entry for entry in row.engines()}
        cells += [_engine(row, engines[title]) if title in engines else "–" for title in titles]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _best(row: Row, kind: str) -> str:
    found = [row.best(which, (kind,)) for which in PASSES]
    if None in found:
        return "–"
    times = [
        milliseconds(entry.timings[which])
        for entry, which in zip(found, PASSES, strict=True)
        if entry
    ]
    names = dict.fromkeys(entry.title for entry in found if entry)
    return " / ".join(times) + (f" ({', '.join(names)})" if kind == "jax" else "")


def _engine(row: Row, entry: Entry) -> str:
    times = " / ".join(milliseconds(entry.timings[which]) for which in PASSES)
    ratios = [row.ratio(entry, which, PEERS) for which in PASSES]
    shown = " / ".join(f"{ratio:.2f}" for ratio in ratios if ratio is not None)
    return f"{times} (×{shown})" if shown else times


def write_json(
    path: Path, machine: dict[str, Any], rows: Sequence[Row], lines: Sequence[Line]
) -> None:
    """All that was measured, with what it was measured on."""
    content = {
        "machine": machine,
        "rows": [row.as_json() for row in rows],
        "summary": [line._asdict() for line in lines],
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def draw(path: Path, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    """Draws every time against that of the best peer of its row: left of 1 is faster.

    Args:
        path: the picture.
        rows: what was measured.
        machine: for the title.
    """
    figure = Figure(figsize=(14, 2.2 + 0.34 * len(rows)), layout="constrained")
    figure.suptitle(f"{machine['device']}, {machine['threads']} threads: {machine['processor']}")
    panels = figure.subplots(1, len(PASSES), sharey=True)
    kinds = {entry.title: entry.kind for row in rows for entry in row.entries}
    for axes, which in zip(panels, PASSES, strict=True):
        for title, kind in kinds.items():
            places = [
                (entry.timings[which].median / _yardstick(row, which), height)
                for height, row in enumerate(rows)
                for entry in row.entries
                if entry.title == title
            ]
            axes.plot(*zip(*places, strict=True), _MARKERS[kind], alpha=0.85, label=title)
        axes.axvline(1, color="#999999", linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        axes.set(title=which, xlabel="time / time of the best peer")
    panels[0].set_yticks(range(len(rows)), [row.work.name for row in rows], fontsize=8)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    figure.savefig(path, dpi=120)


def _yardstick(row: Row, which: Pass) -> float:
    best = row.best(which, PEERS) or row.best(which, ("by hand", "jaxrnn"))
    return best.timings[which].median if best else 1.0
