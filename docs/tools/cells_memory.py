"""What each cell of the catalogue remembers: measured, drawn, and shown in the catalogue.

    python -m docs.tools.cells_memory --measure          trains the cells and writes docs/data/
    python -m docs.tools.cells_memory --measure GRU S5   these cells only, also again
    python -m docs.tools.cells_memory                    draws docs/images/learn/every_cell.svg

Measured are the tasks of `docs.tools.memory_tasks`, and the size of the gradient at a lag of 100
steps before and after training on the first one. Without names, the cells are measured whose record
is missing, or is that of other arguments.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import jaxrnn as rnn
from docs.tools.cells_table import all_cells
from docs.tools.families import FAMILIES, MEMORY, adds
from docs.tools.learn_diagrams import PICTURES, save
from docs.tools.memory_tasks import (
    ADDING,
    HIDDEN,
    PARITY,
    TIME,
    Network,
    accuracy,
    draw_sums,
    error,
    train,
)
from experiments.common.plots import style_axes
from experiments.common.results import machine
from jaxrnn import initializers

SMALLEST, LARGEST = -12.0, 3.0
"""The powers of ten that the figure shows."""

SIZES: dict[str, dict[str, Any]] = {
    "ProjectedLSTM": {"projection_size": HIDDEN // 2},
    "ConvLSTM": {"kernel_shape": (3,), "spatial_shape": (4,)},  # 8 features at 4 points
    "RecurrentHighway": {"depth": 2},
    "LMU": {"order": 4, "theta": float(TIME)},
    "SelectiveSSM": {"state_size": 4},
} | dict.fromkeys(
    ("GatedLinearAttention", "MLSTM", "DeltaNet", "GatedDeltaNet"), {"num_heads": 2, "key_size": 8}
)
"""Arguments besides the hidden size."""

_CHRONO = {"bias_init": initializers.Chrono(TIME)}
_ONE_GATE = {"bias_init": initializers.Chrono(TIME, input_gate=None)}
_FIRST_GATE = {"bias_init": initializers.Chrono(TIME, forget_gate=0, input_gate=None)}
LONG_LAGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "LSTM", "PeepholeLSTM", "ProjectedLSTM", "MultiplicativeLSTM", "LayerNormLSTM",
            "ConvLSTM",
        ),
        _CHRONO,
    ),
    **dict.fromkeys(("GRU", "ResetBeforeGRU"), _ONE_GATE),
    **dict.fromkeys(("CoupledLSTM", "UpdateGateRNN", "JANET"), _FIRST_GATE),
    "IndRNN": {"recurrent_init": initializers.Uniform(0.99, 1.0)},
    "ClockworkRNN": {"periods": (1, 4, 16, 64)},
    "UnICORNN": {"time_step": 0.05, "alpha": 1.0},
    "LRU": {"eigenvalue_init": initializers.UnitRing(0.97, 0.999, max_phase=0.1)},
    "HGRN": {"lower_bound_init": initializers.Constant(0.9)},
}  # fmt: skip
"""Further arguments for a memory of a hundred steps, where a cell has one for it."""


def default_cells() -> dict[str, Any]:
    """Every cell with 32 units, initialized as its class is."""
    return _cells({})


def memory_cells() -> dict[str, Any]:
    """Every cell with 32 units, initialized for a memory of a hundred steps."""
    return _cells(LONG_LAGS)


def _cells(options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name, kind in all_cells().items():
        hidden = HIDDEN // 4 if name == "ConvLSTM" else HIDDEN
        found[name] = kind(hidden, **SIZES.get(name, {}), **options.get(name, {}))
    return found


def steps_of(name: str) -> int:
    """Training steps on the adding problem.

    What is written in two steps of a hundred is small among the coefficients of an LMU's window.
    """
    return 2000 if name == "LMU" else ADDING.steps


# Measurements -------------------------------------------------------------------------------------


def gradient_size(cell: Any, params: dict[str, Any]) -> float:
    """The size of the gradient at the longest lag as a power of ten, the median of 16 sequences."""
    with jax.enable_x64(False):
        xs = Network(cell).encode(params, draw_sums(jax.random.key(7), 16)[0])
        flow = rnn.analysis.gradient_flow(
            cell, params["cell"], xs, probes=32, key=jax.random.key(0)
        )
        power = np.median(np.asarray(flow.log_rms[-1])) / np.log(10)
        return round(float(np.clip(power, -99, 99)), 2)


def measure_cell(name: str) -> dict[str, Any]:
    """Everything that is measured of one cell."""
    cell, plain = memory_cells()[name], default_cells()[name]
    before, after = train(cell, ADDING, steps_of(name))
    return {
        "cell": repr(cell),
        "steps": steps_of(name),
        "adding": round(error(cell, after), 5),
        "initial": gradient_size(cell, before),
        "trained": gradient_size(cell, after),
        "parity": round(accuracy(plain, train(plain, PARITY)[1]), 4),
    }


def measure(names: Sequence[str] = (), path: Path = MEMORY) -> None:
    """Measures cells, and writes each record at once."""
    records = load(path)["cells"] if path.is_file() else {}
    for name in names or missing(records):
        records[name] = measure_cell(name)
        print(name, *(f"{key} {value}" for key, value in records[name].items()), sep="  ")
        content = {"machine": machine(), "cells": records}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def missing(records: dict[str, Any]) -> list[str]:
    """The cells without a record of their present arguments."""
    cells = memory_cells().items()
    return [name for name, cell in cells if records.get(name, {}).get("cell") != repr(cell)]


def load(path: Path = MEMORY) -> dict[str, Any]:
    """The data that were measured."""
    return json.loads(path.read_text(encoding="utf-8"))


# The figure ---------------------------------------------------------------------------------------


def plot(path: Path = PICTURES / "every_cell.svg") -> None:
    """A row for each cell: the gradient before and after training, and the error."""
    records = load()["cells"]
    figure = Figure(figsize=(9.6, 7.2))
    columns = (("simple", "lstm", "gru"), ("dynamics", "linear", "matrix"))
    panels = figure.subplots(1, 2, gridspec_kw=dict(wspace=0.74))
    figure.subplots_adjust(left=0.14, right=0.935, top=0.93, bottom=0.065)
    rows = max(sum(len(FAMILIES[name].cells) + 1 for name in names) for names in columns)
    for ax, names in zip(panels, columns, strict=True):
        style_axes(ax, xlim=(SMALLEST - 0.6, LARGEST + 0.4), ylim=(rows - 0.3, -0.6))
        ax.axvline(0, color="#222222", linewidth=0.9, linestyle=":")
        ax.grid(axis="x", color="#e5e8ec", linewidth=0.8)
        ax.grid(False, axis="y")
        ticks, row = {}, 0
        for family in names:
            ax.text(0.02, row, FAMILIES[family].title, weight="bold", **_beside(ax, "left"))
            for name in FAMILIES[family].cells:
                row += 1
                ticks[row] = name
                if name in records:
                    _row(ax, row, records[name])
            row += 1
        ax.set_yticks(list(ticks), list(ticks.values()), fontsize=8.5)
        ax.tick_params(axis="y", length=0)
        powers = range(int(SMALLEST), int(LARGEST) + 1, 3)
        ax.set_xticks(powers, [f"$10^{{{power}}}$" for power in powers], fontsize=8.5)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(f"size of the gradient at lag {TIME}", fontsize=9)
        ax.text(1.03, -0.6, "error", **_beside(ax, "left"))
    hollow, solid = (dict(marker="o", linestyle="", color="#0072b2", markersize=5),) * 2
    first = panels[0].plot([], [], **hollow, markerfacecolor="white", label="at initialization")
    second = panels[0].plot([], [], **solid, label="trained on the adding problem")
    figure.legend(handles=first + second, loc="upper center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def _beside(ax: Any, side: str) -> dict[str, Any]:
    transform = ax.get_yaxis_transform()
    return dict(transform=transform, ha=side, va="center", fontsize=8.5, color="#30363d")


def _row(ax: Any, row: int, record: dict[str, Any]) -> None:
    powers = np.clip([record["initial"], record["trained"]], SMALLEST, LARGEST)
    ax.plot(powers, [row, row], color="#9dc3e0", linewidth=1.4, zorder=1)
    style = dict(edgecolors="#0072b2", s=26, clip_on=False, linewidths=1.2)
    for power, color, order in zip(powers, ("white", "#0072b2"), (2, 3), strict=True):
        # A triangle at an edge: as far as that, or farther.
        marker = {SMALLEST: "<", LARGEST: ">"}.get(float(power), "o")
        ax.scatter([power], [row], c=color, marker=marker, zorder=order, **style)
    weight = "bold" if adds(record) else "normal"
    ax.text(1.03, row, f"{record['adding']:.4f}", **_beside(ax, "left"), fontweight=weight)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", nargs="*", metavar="CELL", help="train and measure first")
    chosen = parser.parse_args().measure
    if chosen is not None:
        measure(chosen)
    plot()
