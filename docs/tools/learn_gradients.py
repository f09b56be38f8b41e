"""The figures of docs/learn/vanishing_gradients.md and gates.md, and the data they are drawn from.

    python -m docs.tools.learn_gradients --measure    trains (minutes) and writes docs/data/
    python -m docs.tools.learn_gradients              draws docs/images/learn/ from these data

The measurement is `experiments.gradient_flow`: eight cells on the adding problem.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from docs.tools.learn_diagrams import PICTURES, save
from docs.tools.pages import DOCS
from experiments.common.plots import COLORS, End, label_curves, style_axes

DATA = DOCS / "data" / "learn_gradient_flow.json"


def measure(path: Path = DATA) -> None:
    """Runs the experiment and writes the logarithms (base 10) of the sizes by lag."""
    from experiments.long_memory import gradient_flow

    config = gradient_flow.Config()
    result = gradient_flow.main(config)
    if not result.by_bias:
        raise SystemExit("interrupted; the same command resumes")

    def powers(logs: np.ndarray) -> list[float]:
        return [round(float(value), 2) for value in np.maximum(logs / np.log(10), -99)]

    cells = {
        flow.name: {
            "initial": powers(flow.before),
            "trained": powers(flow.after),
            "error": round(flow.error, 5),
        }
        for flow in result.flows
    }
    biases = {name: powers(logs) for name, logs in result.by_bias.items()}
    content = {
        "command": "python -m docs.tools.learn_gradients --measure",
        "length": config.length,
        "hidden": config.hidden,
        "steps": config.training.steps,
        "cells": cells,
        "forget_biases": biases,
    }
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def plot_cells(data: dict[str, Any], path: Path) -> None:
    """Size against lag for every cell, at initialization and trained; the labels have the error."""
    figure = Figure(figsize=(9.6, 4.6))
    axes = figure.subplots(1, 2, sharey=True, gridspec_kw=dict(wspace=0.55))
    figure.subplots_adjust(left=0.075, right=0.84, top=0.9, bottom=0.13)
    titles = {"initial": "at initialization", "trained": "after training on the adding problem"}
    for ax, (when, title) in zip(axes, titles.items(), strict=True):
        style_axes(ax, xlim=(0, data["length"]), ylim=(-12, 2), xlabel="lag k, steps")
        ax.axhline(0, color="#222222", linewidth=0.9, linestyle=":")
        ax.set_title(title, loc="left", fontsize=10.5)
        ends = []
        for (name, cell), color in zip(data["cells"].items(), COLORS, strict=False):
            ax.plot(cell[when], color=color, linewidth=1.7)
            label = name if when == "initial" else f"{_short(name)}: {cell['error']:.4f}"
            ends.append(End(max(cell[when][-1], -11.3), label, color))
        ax.set_xticks(range(0, data["length"], 50))  # the last label would meet those of the curves
        label_curves(ax, ends, fontsize=8)
        _powers_of_ten(ax, range(-12, 3, 2))
    axes[0].set_ylabel("size of the gradient at lag k")
    axes[1].text(1.045, 1.035, "error", transform=axes[1].transAxes, fontsize=8, color="#30363d")
    save(figure, path)


def _short(name: str) -> str:
    return name.replace("forget bias", "bias").replace("OrthogonalRNN", "Orthogonal")


def plot_forget_biases(data: dict[str, Any], path: Path) -> None:
    """A small panel for each forget bias of an LSTM: measured, and the forget gate's power."""
    biases = data["forget_biases"]
    figure = Figure(figsize=(9.6, 4.3), layout="constrained")
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    lags = np.arange(data["length"] + 1)
    for ax, (name, values) in zip(panels.flat, biases.items(), strict=True):
        style_axes(ax, xlim=(0, data["length"]), ylim=(-12, 2))
        ax.axhline(0, color="#222222", linewidth=0.9, linestyle=":")
        chrono = name == "chrono"
        ax.plot(values, color=COLORS[0] if chrono else COLORS[1], linewidth=1.8)
        title = f"chrono, up to {data['length']}"
        if not chrono:
            gate = 1 / (1 + np.exp(-float(name)))
            ax.plot(lags * np.log10(gate), color="#8c8c8c", linewidth=1.2, linestyle="--")
            title = f"bias {name}: f = {gate:.3f}"
        ax.set_title(title, loc="left", fontsize=10)
        _powers_of_ten(ax, range(-12, 3, 4))
    figure.supxlabel("lag k, steps", fontsize=10)
    figure.supylabel("size of the gradient", fontsize=10)
    save(figure, path)


def _powers_of_ten(ax: Any, powers: range) -> None:
    ax.set_yticks(powers, [f"$10^{{{power}}}$" for power in powers])


def plot(path: Path = DATA) -> None:
    """Draws both figures from the data."""
    data = json.loads(path.read_text(encoding="utf-8"))
    plot_cells(data, PICTURES / "gradient_flow.svg")
    plot_forget_biases(data, PICTURES / "forget_bias.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="train and measure first")
    if parser.parse_args().measure:
        measure()
    plot()
