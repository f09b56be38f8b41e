"""The figure of docs/learn/practice.md, from the results in docs/data/experiments.

python -m docs.tools.learn_practice    writes docs/images/learn/practice.svg
"""

from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from docs.tools.experiments_data import load
from docs.tools.learn_diagrams import PICTURES, save
from experiments.common.plots import style_axes

OURS, OTHERS = "#1f5fa8", "#b9bfc7"


class Bar(NamedTuple):
    """A result: a figure of a row, or of a baseline if its name has a slash."""

    label: str
    row: str
    figure: str


class Panel(NamedTuple):
    """The results of a task, and the precision of their labels."""

    title: str
    precision: str
    bars: tuple[Bar, ...]
    scale: float = 1


MAPE = "mape, 48 ahead"
PANELS = (
    Panel(
        "language: nats per character",
        ".4g",
        (
            Bar("LSTM", "char_lm", "loss"),
            Bar("LSTM, stronger", "char_lm_strong", "loss"),
            Bar("Transformer, 3 min on a CPU", "char_lm", "small Transformer/loss"),
            Bar("Transformer, 10.7 M", "char_lm_strong", "large Transformer/loss"),
        ),
    ),
    Panel(
        "speech: CER in %, by training speech",
        ".1f",
        (
            Bar("4.5 minutes", "speech_amounts", "fused, 25%"),
            Bar("9.1 minutes", "speech_amounts", "fused, 50%"),
            Bar("18.1 minutes", "speech_amounts", "fused"),
        ),
        100,
    ),
    Panel(
        "translation: BLEU",
        ".1f",
        (
            Bar("default", "translation", "beam_bleu"),
            Bar("strong", "translation_strong", "beam_bleu"),
            Bar("word-by-word baseline", "translation", "IBM Model 1/bleu"),
        ),
    ),
    Panel(
        "demand a day ahead: MAPE in %",
        ".2f",
        (
            Bar("GRU", "forecast", MAPE),
            Bar("linear autoregression", "forecast", f"linear autoregression/{MAPE}"),
            Bar("same time yesterday", "forecast", f"48 steps before/{MAPE}"),
            Bar("GRU, weather known", "forecast_future", MAPE),
            Bar("linear, weather known", "forecast_future", f"linear autoregression/{MAPE}"),
        ),
    ),
)


def plot(path: Path = PICTURES / "practice.svg") -> None:
    """Draws a panel for each task; dark bars are this library's, with ± a standard deviation."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    for ax, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        found = [load(bar.row)[bar.figure] for bar in panel.bars]
        means = [panel.scale * each.mean for each in found]
        options: dict[str, Any] = {"error_kw": {"ecolor": "#30363d", "elinewidth": 1.2}}
        options["xerr"] = [panel.scale * (each.std or 0) for each in found]
        options["color"] = [OTHERS if "/" in bar.figure else OURS for bar in panel.bars]
        drawn = ax.barh([bar.label for bar in panel.bars], means, height=0.62, **options)
        texts = [format(mean, panel.precision) for mean in means]
        ax.bar_label(drawn, texts, fontsize=8.5, padding=3)
        ax.invert_yaxis()
        style_axes(ax, xlim=(0, 1.15 * max(means)))
        ax.grid(False)
        ax.spines["bottom"].set_visible(False)
        ax.set_xticks([])
        ax.tick_params(axis="y", length=0, labelsize=8.5)
        ax.set_title(panel.title, loc="left", fontsize=10)
    save(figure, path)


if __name__ == "__main__":
    plot()
