"""The picture of `gradient_flow`: how far an error reaches back, and what a gate does to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.common.plots import COLORS, End, label_curves, style_axes
from experiments.long_memory.tasks import Adding

FLOOR, CEILING = 1e-12, 1e2
SOLVED = 0.01


def draw(path: Path, flows: Sequence[Any], by_bias: Mapping[str, np.ndarray]) -> None:
    """Draws the four panels as a PNG.

    Args:
        path: the picture.
        flows: values with ``name``, ``before`` and ``after`` (logarithms against the lag) and
            ``error``.
        by_bias: the logarithms of LSTMs at initialisation, by their forget bias (and "chrono").
    """
    colours = {flow.name: COLORS[i % len(COLORS)] for i, flow in enumerate(flows)}
    figure = Figure(figsize=(15, 10), layout="constrained")
    (first, trained), (biases, learnt) = figure.subplots(2, 2)
    for axes, when in ((first, "before"), (trained, "after")):
        for flow in flows:
            values = getattr(flow, when)
            axes.plot(_size(values), color=colours[flow.name], linewidth=1.9)
        title = "at initialisation" if when == "before" else "after training on the adding problem"
        _lags(axes, len(flows[0].before) - 1, title)
        label_curves(axes, [_end(f.name, getattr(f, when)[-1], colours[f.name]) for f in flows])
    _forget_biases(biases, by_bias)
    _learnt(learnt, flows, colours)
    figure.suptitle(
        "Why gates exist: how much of an error at the end of a sequence comes back to the state "
        "$k$ steps before\n",
        fontsize=15,
        weight="bold",
    )
    figure.supxlabel(
        "Size: root mean square of the factor by which $\\partial s_T / \\partial s_{T-k}$ "
        "stretches a random direction; median over sequences of the adding problem. "
        "1 (dotted): nothing lost, nothing amplified.",
        fontsize=9.5,
        color="#5b6673",
    )
    figure.savefig(path, dpi=130)


def _lags(axes: Any, longest: int, title: str) -> None:
    axes.axhline(1, color="#222222", linewidth=0.9, linestyle=":")
    style_axes(
        axes,
        yscale="log",
        xlim=(0, longest),
        ylim=(FLOOR, CEILING),
        xlabel="lag $k$, steps",
        ylabel="size of $\\partial s_T / \\partial s_{T-k}$",
    )
    axes.set_title(title, loc="left", fontsize=12)


def _forget_biases(axes: Any, by_bias: Mapping[str, np.ndarray]) -> None:
    numbers = [name for name in by_bias if name != "chrono"]
    shades = colormaps["viridis"](np.linspace(0.9, 0.1, max(1, len(numbers))))
    colours = dict(zip(numbers, shades, strict=False)) | {"chrono": "#c1272d"}
    ends, lag = [], np.arange(len(next(iter(by_bias.values()))))
    for name, values in by_bias.items():
        axes.plot(_size(values), color=colours[name], linewidth=2)
        if name == "chrono":
            ends.append(_end("chrono", values[-1], colours[name]))
            continue
        gate = 1 / (1 + np.exp(-float(name)))
        axes.plot(gate ** lag.astype(float), color=colours[name], linewidth=0.9, linestyle="--")
        ends.append(_end(f"bias {name}, σ = {gate:.2f}", values[-1], colours[name]))
    _lags(axes, lag[-1], "LSTM at initialisation: the forget bias $b$ decides (dashed: σ($b$)$^k$)")
    label_curves(axes, ends)


def _learnt(axes: Any, flows: Sequence[Any], colours: Mapping[str, str]) -> None:
    guess = Adding.guess
    axes.axhspan(1e-6, SOLVED, color="#009e73", alpha=0.07)
    axes.axhline(guess, color="#222222", linewidth=0.9, linestyle=":")
    sizes = np.exp([max(flow.after[-1], -230.0) for flow in flows])  # 1e-100 stands for less
    for flow, size in zip(flows, sizes, strict=True):
        axes.scatter(size, flow.error, s=70, color=colours[flow.name], zorder=3, edgecolor="white")
    left = min(FLOOR, *sizes) / 100
    style_axes(
        axes,
        xscale="log",
        yscale="log",
        xlim=(left, CEILING),
        ylim=(min(1e-4, *(flow.error / 2 for flow in flows)), 1),
        xlabel=f"size after training, lag {len(flows[0].before) - 1}",
        ylabel="mean squared error after training",
    )
    axes.set_title("who has learnt the task is whom the gradient reaches", loc="left", fontsize=12)
    axes.text(left * 10, guess * 1.08, "always answering 1", fontsize=9, color="#222222")
    axes.text(left * 10, SOLVED * 0.78, "solved", fontsize=9, color="#00734f")
    label_curves(axes, [End(flow.error, flow.name, colours[flow.name]) for flow in flows])


def _end(name: str, log: float, colour: Any) -> End:
    return End(float(_size(log)), name, colour)


def _size(logs: Any) -> np.ndarray:
    """Sizes out of their logarithms, kept just inside of what a logarithmic axis can show."""
    return np.exp(np.clip(logs, np.log(FLOOR) - 2, np.log(CEILING) + 2))
