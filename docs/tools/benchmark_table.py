"""The tables of docs/benchmarks.md and the README's picture, from the measurements in docs/data.

python -m experiments.benchmark          measures, and writes runs/benchmark/cpu/results.json
python -m docs.tools.benchmark_table     writes the tables and docs/images/benchmark.svg

docs/data/benchmark_cpu.json is a whole grid; docs/data/benchmark_lstm_cpu.json is that of
``--cells lstm`` on a machine with two cores.
"""

import json
import math
import statistics
import textwrap
from typing import Any

from matplotlib.figure import Figure

from docs.tools.pages import DOCS, save_picture, table, write_section

PAGE, PICTURE = DOCS / "benchmarks.md", DOCS / "images" / "benchmark.svg"
GRID, LSTM = (DOCS / "data" / f"benchmark_{name}.json" for name in ("cpu", "lstm_cpu"))
CELLS = {
    "lstm": "LSTM",
    "gru": "GRU",
    "reset-before-gru": "ResetBeforeGRU",
    "elman": "Elman",
    "two-speed": "two-speed cell",
}
FORWARD, TRAINING = "forward", "forward+backward"
PEERS = {"jax": "best JAX peer", "torch": "PyTorch"}
STYLES = {"jax": ("o", "#8c8c8c"), "torch": ("s", "#d1752a")}


class Times:
    """The times of a row of the grid; those of a kind are of its fastest contender."""

    def __init__(self, row: dict[str, Any]):
        self._entries, work = row["entries"], row["work"]
        self.cell = CELLS[work["cell"]]
        deeper = f", {work['layers']} layers" if work["layers"] > 1 else ""
        both = ", both directions" if work["bidirectional"] else ""
        numbers = (str(work[name]) for name in ("time", "batch", "inputs", "hidden"))
        self.size = ", ".join(numbers) + deeper + both

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The contenders of a kind, or the one of a title."""
        return [entry for entry in self._entries if kind in (entry["kind"], entry["title"])]

    def best(self, kind: str, which: str) -> dict[str, Any]:
        """The times of the contender with the smallest median."""
        return min((entry[which] for entry in self.of(kind)), key=lambda t: t["median_seconds"])

    def text(self, kind: str) -> str:
        """Forward / forward+backward."""
        if not self.of(kind):
            return "–"
        medians = (self.best(kind, which)["median_seconds"] for which in (FORWARD, TRAINING))
        return " / ".join(digits(1e3 * median) for median in medians)

    def ratio(self, kind: str, ours: str = "Auto", which: str = TRAINING) -> float:
        """The time of a contender over ours: the median of the ratios within a round."""
        pair = (self.best(name, which)["samples_microseconds"] for name in (kind, ours))
        return statistics.median(theirs / mine for theirs, mine in zip(*pair, strict=True))


def digits(milliseconds: float) -> str:
    """Three significant digits."""
    places = max(0, 2 - math.floor(math.log10(milliseconds)))
    return f"{milliseconds:,.{places}f}"


def geometric_mean(values: list[float]) -> float:
    """The mean of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))


def frameworks_table(found: dict[str, Any]) -> str:
    """Every cell on one device of all cores, beside the frameworks."""
    rows = [
        "cell | time, batch, input, hidden | best JAX peer | PyTorch | jaxrnn (`Auto`) | "
        "× JAX peer, × PyTorch (f+b)".split(" | ")
    ]
    measured = [Times(row) for row in found["rows"]]
    for before, times in zip([None, *measured], measured, strict=False):
        cell = "" if before and before.cell == times.cell else times.cell
        ratios = ", ".join(f"{times.ratio(kind):.2f}" for kind in PEERS if times.of(kind))
        columns = map(times.text, (*PEERS, "Auto"))
        rows.append([cell, times.size, *columns, ratios])
    both = [times for times in measured if times.cell in ("LSTM", "GRU")]
    training, forward = (
        f"{geometric_mean([times.ratio('jax', which=which) for times in both]):.2f}"
        for which in (TRAINING, FORWARD)
    )
    torch = [
        f"{geometric_mean([t.ratio('torch') for t in measured if t.cell == cell]):.2f} for {cell}"
        for cell in CELLS.values()
        if any(t.cell == cell and t.of("torch") for t in measured)
    ]
    spread = [
        t.ratio("torch", "jaxrnn spread")
        for t in measured
        if t.cell == "LSTM" and t.of("jaxrnn spread")
    ]
    return table(rows) + paragraph(
        f"{source(found)} In the geometric mean over LSTM and GRU, `Auto` is {training} times as "
        f"fast as the fastest JAX peer with gradients, and {forward} times forward only. With "
        f"gradients its speed relative to PyTorch's is {', '.join(torch)}; for LSTM with its batch "
        f"spread over a device a core, {geometric_mean(spread):.2f} ({min(spread):.2f} to "
        f"{max(spread):.2f})."
    )


def spread_table(found: dict[str, Any]) -> str:
    """LSTM with the batch sharded over a device a core."""
    kinds = ("jax", "jax spread", "torch", "Auto", "jaxrnn spread")
    rows = [
        "time, batch, input, hidden | best JAX peer | the same, spread | PyTorch | `Auto` | "
        "`Auto`, spread | × PyTorch".split(" | ")
    ]
    ratios: dict[str, list[float]] = {"jax": [], "jax spread": [], "torch": []}
    for times in map(Times, found["rows"]):
        if times.cell != "LSTM":
            continue
        spread = bool(times.of("jaxrnn spread"))
        best = "jaxrnn spread" if spread else "Auto"
        rows.append([times.size, *map(times.text, kinds), f"{times.ratio('torch', best):.2f}"])
        for kind, values in ratios.items():
            values.extend([times.ratio(kind, best)] if spread else [])
    jax, jax_spread, torch = (f"{geometric_mean(values):.2f}" for values in ratios.values())
    return table(rows) + paragraph(
        f"{source(found)} With gradients, `Auto` spread is {jax} times as fast as the best JAX "
        f"peer as it comes, {jax_spread} times as the best one spread, and {torch} times as "
        f"PyTorch, in the geometric mean over the sizes that can be spread."
    )


def paragraph(text: str) -> str:
    """Lines as long as those of the pages."""
    return "\n" + textwrap.fill(text, 128, break_on_hyphens=False) + "\n"


def source(found: dict[str, Any]) -> str:
    """Machine, versions, date and command."""
    machine = found["machine"]
    rates = [
        row["matrix_rate"][which] / 1e9 for row in found["rows"] for which in row["matrix_rate"]
    ]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("jax", "torch"))
    return (
        f"`{machine['command']}` on {machine['date']}: {machine['threads']} threads of an "
        f"{machine['processor']} (large matrix products run at {min(rates):.0f} to "
        f"{max(rates):.0f} GFLOP/s), {versions}, float32."
    )


def plot(found: dict[str, Any]) -> Figure:
    """The training time of each peer relative to jaxrnn's; right of the line jaxrnn leads."""
    rows = [Times(row) for row in found["rows"]]
    figure = Figure(figsize=(8, 0.24 * len(rows) + 1), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))[::-1]
    for kind, (marker, color) in STYLES.items():
        points = [(t.ratio(kind), y) for t, y in zip(rows, places, strict=True) if t.of(kind)]
        axes.plot(*zip(*points, strict=True), marker, color=color, label=PEERS[kind])
    axes.axvline(1, color="#1f5fa8", linewidth=2, label="jaxrnn")
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.5, 1, 2, 4, 8], ["½×", "1×", "2×", "4×", "8×"])
    axes.set_yticks(places, [f"{times.cell}  {times.size}" for times in rows], fontsize=8)
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        "time of a training step relative to jaxrnn (right of the line: jaxrnn is faster)"
    )
    axes.legend(frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    grid, lstm = (json.loads(path.read_text(encoding="utf-8")) for path in (GRID, LSTM))
    write_section(PAGE, "frameworks", frameworks_table(grid))
    write_section(PAGE, "spread", spread_table(lstm))
    save_picture(plot(grid), PICTURE)
