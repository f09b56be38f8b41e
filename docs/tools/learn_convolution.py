"""The picture of docs/learn/relatives.md: how far a pixel reaches in a ConvLSTM.

python -m docs.tools.learn_convolution    writes docs/images/learn/conv_lstm.svg

The colors are measured: the largest change of the outputs at each point, in powers of ten, when the
pixel in the middle of the first image changes.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import jaxrnn as rnn
from docs.tools.learn_diagrams import PICTURES, save

SIZE, STEPS = 13, 5
POWERS = range(-5, 0)


def changes() -> np.ndarray:
    """The change of the outputs at each step and point, ``[steps, size, size]``."""
    cell = rnn.ConvLSTM(features=4, kernel_shape=(3, 3), spatial_shape=(SIZE, SIZE))
    with jax.enable_x64(False):
        params = cell.init(jax.random.key(0), 1)
        images = jax.random.normal(jax.random.key(1), (STEPS, SIZE, SIZE, 1))
        pixel = jnp.zeros_like(images).at[0, SIZE // 2, SIZE // 2].set(1.0)
        _, ys = rnn.unroll(cell, params, images)
        _, others = rnn.unroll(cell, params, images + pixel)
        return np.abs(np.asarray(others - ys)).max(-1)


def plot(path: Path = PICTURES / "conv_lstm.svg") -> None:
    """A panel for each step."""
    figure = Figure(figsize=(9.6, 2.5), layout="constrained")
    colors: Any = None
    for t, (ax, change) in enumerate(zip(figure.subplots(1, STEPS), changes(), strict=True), 1):
        with np.errstate(divide="ignore"):
            power = np.floor(np.log10(change))
        shown = np.ma.masked_less(np.where(change > 0, power, -99), POWERS[0])
        levels = dict(vmin=POWERS[0] - 0.5, vmax=POWERS[-1] + 0.5)
        ax.set_facecolor("#f1f3f5")
        colors = ax.pcolormesh(
            shown, cmap=_blues(), edgecolor="white", linewidth=0.4, antialiased=False, **levels
        )
        ax.set(aspect="equal", xticks=[], yticks=[], xlim=(0, SIZE), ylim=(SIZE, 0))
        ax.spines[:].set_visible(False)
        ax.set_title(f"step {t}", fontsize=10)
    bar = figure.colorbar(colors, ax=figure.axes, ticks=list(POWERS), shrink=0.85)
    bar.ax.set_yticklabels([f"$10^{{{power}}}$" for power in POWERS], fontsize=8.5)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    bar.set_label("change of the output", fontsize=9)
    save(figure, path)


def _blues() -> ListedColormap:
    return ListedColormap(colormaps["Blues"](np.linspace(0.2, 1, len(POWERS))))


if __name__ == "__main__":
    plot()
