"""The figure of docs/learn/practice.md, from the tables of experiments/README.md.

python -m docs.tools.learn_practice    writes docs/images/learn/practice.svg
"""

import re
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from docs.tools.learn_diagrams import PICTURES, save
from experiments.common.plots import style_axes

RESULTS = Path(__file__).parents[2] / "experiments" / "README.md"
OURS, OTHERS = "#1f5fa8", "#b9bfc7"


class Bar(NamedTuple):
    """A result; `row` begins a row of the first table, `value` finds the number in it."""

    label: str
    row: str
    value: str
    ours: bool = True


LANGUAGE, SPEECH = "character language model", "the same, from less"
FORECAST, WEATHER = "forecast, a day ahead", "the same, with the weather"
PANELS: dict[str, list[Bar]] = {
    "language: nats per character": [
        Bar("LSTM", LANGUAGE, r"([\d.]+) nats ±"),
        Bar("LSTM, stronger", "the same, stronger", r"([\d.]+) nats ±"),
        Bar("Transformer, 3 min on a CPU", LANGUAGE, r"README: ([\d.]+)", False),
        Bar("Transformer, 10.7 M", "the same, stronger", r"([\d.]+) for the Transformer", False),
    ],
    "speech: CER in %, by training speech": [
        Bar("4.5 minutes", SPEECH, r"CER ([\d.]+) % from 4.5"),
        Bar("9.1 minutes", SPEECH, r"([\d.]+) % from 9.1"),
        Bar("18.1 minutes", SPEECH, r"([\d.]+) % from 18.1"),
    ],
    "translation: BLEU": [
        Bar("default", "translation", r"BLEU ([\d.]+) ±"),
        Bar("strong", "`python -m experiments.translation strong`", r"BLEU ([\d.]+) ±"),
        Bar("word-by-word baseline", "translation", r"Model 1\): BLEU ([\d.]+)", False),
    ],
    "demand a day ahead: MAPE in %": [
        Bar("GRU", FORECAST, r"MAPE ([\d.]+) %"),
        Bar("linear autoregression", FORECAST, r"autoregression ([\d.]+) %", False),
        Bar("same time yesterday", FORECAST, r"yesterday ([\d.]+) %", False),
        Bar("GRU, weather known", WEATHER, r"MAPE ([\d.]+) %"),
        Bar("linear, weather known", WEATHER, r"autoregression ([\d.]+) %", False),
    ],
}


def load(bar: Bar, text: str | None = None) -> str:
    """The number of a bar, from the first row of the table that begins with, or holds, its name."""
    text = text or RESULTS.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and bar.row in line]
    rows.sort(key=lambda line: not line.startswith(f"| {bar.row} |"))
    match = re.search(bar.value, rows[0]) if rows else None
    if match is None:
        raise ValueError(f"{RESULTS.name} has no {bar.value!r} in a row {bar.row!r}")
    return match[1]


def plot(path: Path = PICTURES / "practice.svg") -> None:
    """Draws a panel for each task; dark bars are this library's."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    for ax, (title, bars) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        values = [load(bar) for bar in bars]
        colors = [OURS if bar.ours else OTHERS for bar in bars]
        lengths = [float(value) for value in values]
        drawn = ax.barh([bar.label for bar in bars], lengths, color=colors, height=0.62)
        ax.bar_label(drawn, values, fontsize=8.5, padding=3)
        ax.invert_yaxis()
        style_axes(ax, xlim=(0, 1.15 * max(lengths)))
        ax.grid(False)
        ax.spines["bottom"].set_visible(False)
        ax.set_xticks([])
        ax.tick_params(axis="y", length=0, labelsize=8.5)
        ax.set_title(title, loc="left", fontsize=10)
    save(figure, path)


if __name__ == "__main__":
    plot()
