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
    """Plots the results of all cells, and the logarithms of LSTMs by forget bias (and "chrono")."""
    colors = {flow.name: COLORS[i % len(COLORS)] for i, flow in enumerate(flows)}
    figure = Figure(figsize=(15, 10), layout="constrained")
    (first, trained), (biases, learned) = figure.subplots(2, 2)
    before = {flow.name: flow.before for flow in flows}
    after = {flow.name: flow.after for flow in flows}
    _plot_sizes(first, before, colors, "at initialization")
    _plot_sizes(trained, after, colors, "after training on the adding problem")
    _plot_forget_biases(biases, by_bias)
    _plot_errors(learned, flows, colors)
    title = "Gradient flow: the size of the gradient with respect to the state $k$ steps before\n"
    figure.suptitle(title, fontsize=15, weight="bold")
    figure.supxlabel(
        "Size: root mean square of the factor by which $\\partial s_T / \\partial s_{T-k}$ "
        "scales a random direction; median over sequences of the adding problem. "
        "1 (dotted): neither vanishes nor explodes.",
        fontsize=9.5,
        color="#5b6673",
    )
    figure.savefig(path, dpi=130)


def _plot_sizes(axes: Any, logs: Mapping[str, np.ndarray], colors: Any, title: str) -> None:
    """A curve for each cell, of its logarithms by lag."""
    # Clipped just outside the axis, whose scale is logarithmic.
    low, high = np.log(FLOOR) - 2, np.log(CEILING) + 2
    sizes = {name: np.exp(np.clip(values, low, high)) for name, values in logs.items()}
    for name, values in sizes.items():
        axes.plot(values, color=colors[name], linewidth=1.9)
    axes.axhline(1, color="#222222", linewidth=0.9, linestyle=":")
    longest = len(next(iter(sizes.values()))) - 1
    style_axes(axes, yscale="log", xlim=(0, longest), ylim=(FLOOR, CEILING))
    axes.set(xlabel="lag $k$, steps", ylabel="size of $\\partial s_T / \\partial s_{T-k}$")
    axes.set_title(title, loc="left", fontsize=12)
    label_curves(axes, [End(values[-1], name, colors[name]) for name, values in sizes.items()])


def _plot_forget_biases(axes: Any, by_bias: Mapping[str, np.ndarray]) -> None:
    shades = iter(colormaps["viridis"](np.linspace(0.9, 0.1, len(by_bias))))
    curves, colors = {}, {}
    for name, logs in by_bias.items():
        label, color = name, "#c1272d"
        if name != "chrono":
            gate, color = 1 / (1 + np.exp(-float(name))), next(shades)
            label = f"bias {name}, σ = {gate:.2f}"
            powers = gate ** np.arange(len(logs), dtype=float)
            axes.plot(powers, color=color, linewidth=0.9, linestyle="--")
        curves[label], colors[label] = logs, color
    title = "LSTM at initialization, by forget bias $b$ (dashed: σ($b$)$^k$)"
    _plot_sizes(axes, curves, colors, title)


def _plot_errors(axes: Any, flows: Sequence[Any], colors: Mapping[str, str]) -> None:
    chance = Adding.chance
    axes.axhspan(1e-6, SOLVED, color="#009e73", alpha=0.07)
    axes.axhline(chance, color="#222222", linewidth=0.9, linestyle=":")
    sizes = np.exp([max(flow.after[-1], -230.0) for flow in flows])  # at least 1e-100
    for flow, size in zip(flows, sizes, strict=True):
        axes.scatter(size, flow.error, s=70, color=colors[flow.name], zorder=3, edgecolor="white")
    left = min(FLOOR, *sizes) / 100
    low = min(1e-4, *(flow.error / 2 for flow in flows))
    style_axes(axes, xscale="log", yscale="log", xlim=(left, CEILING), ylim=(low, 1))
    axes.set(xlabel=f"size after training, lag {len(flows[0].before) - 1}")
    axes.set(ylabel="mean squared error after training")
    axes.set_title("error after training, by the size of the gradient", loc="left", fontsize=12)
    axes.text(left * 10, chance * 1.08, "constant prediction 1", fontsize=9, color="#222222")
    axes.text(left * 10, SOLVED * 0.78, "solved", fontsize=9, color="#00734f")
    label_curves(axes, [End(flow.error, flow.name, colors[flow.name]) for flow in flows])
