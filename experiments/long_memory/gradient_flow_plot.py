"""The plot of `gradient_flow`: gradient size by lag, and what a gate changes."""

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


def plot_flows(path: Path, flows: Sequence[Any], by_bias: Mapping[str, np.ndarray]) -> None:
    """Plots the four panels as a PNG.

    Args:
        path: the file.
        flows: the results, as `gradient_flow.Flow`.
        by_bias: the logarithms of LSTMs at initialization, by their forget bias (and "chrono").
    """
    colors = {flow.name: COLORS[i % len(COLORS)] for i, flow in enumerate(flows)}
    figure = Figure(figsize=(15, 10), layout="constrained")
    (first, trained), (biases, learned) = figure.subplots(2, 2)
    for axes, when in ((first, "before"), (trained, "after")):
        for flow in flows:
            axes.plot(_size(getattr(flow, when)), color=colors[flow.name], linewidth=1.9)
        title = "at initialization" if when == "before" else "after training on the adding problem"
        _style_lags(axes, len(flows[0].before) - 1, title)
        label_curves(axes, [_end(f.name, getattr(f, when)[-1], colors[f.name]) for f in flows])
    _plot_forget_biases(biases, by_bias)
    _plot_errors(learned, flows, colors)
    figure.suptitle(
        "Gradient flow: the size of the gradient of the last state with respect to the state "
        "$k$ steps before\n",
        fontsize=15,
        weight="bold",
    )
    figure.supxlabel(
        "Size: root mean square of the factor by which $\\partial s_T / \\partial s_{T-k}$ "
        "scales a random direction; median over sequences of the adding problem. "
        "1 (dotted): neither vanishes nor explodes.",
        fontsize=9.5,
        color="#5b6673",
    )
    figure.savefig(path, dpi=130)


def _style_lags(axes: Any, longest: int, title: str) -> None:
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


def _plot_forget_biases(axes: Any, by_bias: Mapping[str, np.ndarray]) -> None:
    numbers = [name for name in by_bias if name != "chrono"]
    shades = colormaps["viridis"](np.linspace(0.9, 0.1, max(1, len(numbers))))
    colors = dict(zip(numbers, shades, strict=True)) | {"chrono": "#c1272d"}
    ends, lag = [], np.arange(len(next(iter(by_bias.values()))))
    for name, values in by_bias.items():
        axes.plot(_size(values), color=colors[name], linewidth=2)
        label = name
        if name != "chrono":
            gate = 1 / (1 + np.exp(-float(name)))
            axes.plot(gate ** lag.astype(float), color=colors[name], linewidth=0.9, linestyle="--")
            label = f"bias {name}, σ = {gate:.2f}"
        ends.append(_end(label, values[-1], colors[name]))
    _style_lags(axes, lag[-1], "LSTM at initialization, by forget bias $b$ (dashed: σ($b$)$^k$)")
    label_curves(axes, ends)


def _plot_errors(axes: Any, flows: Sequence[Any], colors: Mapping[str, str]) -> None:
    chance = Adding.chance
    axes.axhspan(1e-6, SOLVED, color="#009e73", alpha=0.07)
    axes.axhline(chance, color="#222222", linewidth=0.9, linestyle=":")
    sizes = np.exp([max(flow.after[-1], -230.0) for flow in flows])  # at least 1e-100
    for flow, size in zip(flows, sizes, strict=True):
        axes.scatter(size, flow.error, s=70, color=colors[flow.name], zorder=3, edgecolor="white")
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
    axes.set_title("error after training, by the size of the gradient", loc="left", fontsize=12)
    axes.text(left * 10, chance * 1.08, "constant prediction 1", fontsize=9, color="#222222")
    axes.text(left * 10, SOLVED * 0.78, "solved", fontsize=9, color="#00734f")
    label_curves(axes, [End(flow.error, flow.name, colors[flow.name]) for flow in flows])


def _end(name: str, log: float, color: Any) -> End:
    return End(float(_size(log)), name, color)


def _size(logs: Any) -> np.ndarray:
    """Sizes from their logarithms, clipped just outside the axis, whose scale is logarithmic."""
    return np.exp(np.clip(logs, np.log(FLOOR) - 2, np.log(CEILING) + 2))
