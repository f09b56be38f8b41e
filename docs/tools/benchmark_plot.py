"""The README's benchmark picture, drawn from the table in docs/benchmarks.md.

python -m docs.tools.benchmark_plot    writes docs/images/benchmark.svg
"""

from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from docs.tools.pages import DOCS, save_picture

PAGE, PICTURE = DOCS / "benchmarks.md", DOCS / "images" / "benchmark.svg"
HEADER = "| cell | time, batch, input, hidden |"
STYLES = {"best JAX peer": ("o", "#8c8c8c"), "PyTorch": ("s", "#d1752a")}


class Row(NamedTuple):
    """Milliseconds of one forward and backward pass; None where a peer has no such cell."""

    cell: str
    size: str
    peers: dict[str, float | None]
    ours: float


def load_rows(page: Path = PAGE) -> list[Row]:
    """Parses the table: an empty first column repeats the cell above."""
    lines = page.read_text(encoding="utf-8").partition(HEADER)[2].splitlines()[2:]
    rows: list[Row] = []
    for line in lines[: lines.index("")]:
        cell, size, *times = (entry.strip() for entry in line.strip("|").split("|")[:5])
        jax_peer, torch, ours = (
            float(time.split("/")[1]) if "/" in time else None for time in times
        )
        assert ours is not None
        peers = {"best JAX peer": jax_peer, "PyTorch": torch}
        rows.append(Row(cell or rows[-1].cell, size, peers, ours))
    return rows


def plot(rows: list[Row], path: Path = PICTURE) -> None:
    """Draws the training time of each peer relative to jaxrnn's; right of the line jaxrnn leads."""
    figure = Figure(figsize=(8, 0.24 * len(rows) + 1), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))[::-1]
    for name, (marker, color) in STYLES.items():
        points = [(row.peers[name], row.ours, y) for row, y in zip(rows, places, strict=True)]
        ratios = [(peer / ours, y) for peer, ours, y in points if peer is not None]
        axes.plot(*zip(*ratios, strict=True), marker, color=color, label=name)
    axes.axvline(1, color="#1f5fa8", linewidth=2, label="jaxrnn")
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.5, 1, 2, 4, 8], ["½×", "1×", "2×", "4×", "8×"])
    axes.set_yticks(places, [f"{row.cell}  {row.size}" for row in rows], fontsize=8)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        "time of a training step relative to jaxrnn (right of the line: jaxrnn is faster)"
    )
    axes.legend(frameon=False, loc="lower right")
    save_picture(figure, path)


if __name__ == "__main__":
    plot(load_rows())
