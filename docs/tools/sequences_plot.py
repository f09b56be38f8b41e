"""Draws the contract of sequences: the states of a counter under a mask and starts.

    python -m docs.tools.sequences_plot

The numbers in docs/images/sequences.svg are outputs of `jaxrnn.unroll`, of a cell that counts the
steps since its state was last replaced.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import jaxrnn as rnn
from docs.tools.pages import DOCS, save_picture

PICTURE = DOCS / "images" / "sequences.svg"
ROWS = {
    "lengths = [8, 5]": {"lengths": jnp.array([8, 5])},
    "mask": {"mask": jnp.ones((8, 2), bool).at[2:4, 0].set(False).at[5:7, 1].set(False)},
    "starts": {"starts": jnp.zeros((8, 2), bool).at[3, 0].set(True).at[6, 1].set(True)},
    "both": {
        "mask": jnp.ones((8, 2), bool).at[7:, 0].set(False).at[3:5, 1].set(False),
        "starts": jnp.zeros((8, 2), bool).at[4, 0].set(True).at[4, 1].set(True),
    },
}


def count(params, state, x):
    """Adds one at each step."""
    return state + 1, state + 1


counter = rnn.from_step(count, init_state=lambda params, batch: jnp.zeros(batch, jnp.int32))


def counts(arguments: dict) -> np.ndarray:
    """The outputs of the counter for two rows of eight steps, zero where a step is skipped."""
    xs = jnp.zeros((8, 2, 1))
    return np.asarray(rnn.unroll(counter, (), xs, **arguments)[1])


def draw(path: Path = PICTURE) -> None:
    """Writes the picture."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots(2, 2)
    for axis, (title, arguments) in zip(axes.flat, ROWS.items(), strict=True):
        starts = np.asarray(arguments.get("starts", np.zeros((8, 2), bool)))
        for (t, row), value in np.ndenumerate(counts(arguments)):
            color = "#9fa8da" if value else "#eeeeee"
            axis.add_patch(Rectangle((t, -row), 0.94, 0.86, facecolor=color))
            axis.text(t + 0.47, 0.43 - row, value, ha="center", va="center", color="#222222")
            if starts[t, row]:
                axis.plot([t - 0.03] * 2, [-row - 0.04, 0.9 - row], color="#d81b60", lw=3)
        axis.set(xlim=(-0.1, 8), ylim=(-1.1, 1), title=title)
        axis.set_axis_off()
    figure.suptitle(
        "Outputs of a cell that counts its steps: gray steps are skipped, red lines are starts",
        fontsize=10,
    )
    save_picture(figure, path, facecolor="white")


if __name__ == "__main__":
    draw()
