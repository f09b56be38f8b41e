"""Compares twelve cells under `Hoisted` with the same cells hoisted by hand in plain JAX.

    python -m experiments.benchmark.cells_by_hand
    python -m experiments.benchmark.cells_by_hand --cells LEM BRC --time 512 --batch 8

Expected: whether a cell has one product in its loop, two, none or a convolution, the schedule that
`Hoisted` finds in the textbook step takes at most 1.1 times as long as the handwritten one of
`experiments/benchmark/by_hand`. Forward, and the gradient of a loss on every output with respect to
inputs, initial state and all weights. Both are compiled ahead of time, their results are compared,
and they are interleaved in one process; times are medians, ratios are medians of the ratios within
a round.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import by_hand, report
from experiments.benchmark.timing import Comparison, compare, compile_program
from experiments.common.results import machine

PASSES = ("forward", "gradient")


@dataclass(frozen=True)
class Config:
    """Compares cells under `Hoisted` with the same cells hoisted by hand."""

    cells: tuple[str, ...] = ()
    """Cells by name. Default: all twelve."""
    time: int = 128
    """Steps."""
    batch: int = 32
    """Sequences per batch."""
    inputs: int = 128
    """Features of the input."""
    hidden: int = 256
    """Features of the state."""
    space_time: int = 32
    """Steps of the convolutional cells."""
    space_batch: int = 8
    """Sequences per batch of the convolutional cells."""
    points: int = 16
    """Points of space along each of two axes; their square on one axis, half in three."""
    features: int = 16
    """Features of the convolutional cells, of input and state at every point."""
    rounds: int = 20
    """Rounds; both versions have one turn in each."""
    seconds: float = 5.0
    """Time limit for one pass of one cell, after which no round starts."""

    def __post_init__(self):
        known = by_hand.cells(self.hidden, self.points, self.features)
        unknown = [name for name in self.cells if name not in known]
        if unknown:
            raise ValueError(f"cells must be among {', '.join(known)}, got {', '.join(unknown)}")


class Line(NamedTuple):
    """One pass of one cell: `Hoisted` first, the handwritten version second."""

    kind: str
    name: str
    which: str
    times: Comparison


def draw(config: Config, cell: rnn.Cell) -> tuple:
    """Parameters, state and inputs, none of them zero.

    The noise is small because kernels far from their initialization amplify rounding errors.
    """
    spatial = getattr(cell, "spatial_shape", ())
    time, batch = config.time, config.batch
    features = config.inputs
    if spatial:
        time, batch, features = config.space_time, config.space_batch, config.features
    rng = np.random.default_rng(0)

    def noise(leaf):
        return leaf + jnp.asarray(0.01 * rng.standard_normal(leaf.shape), leaf.dtype)

    params = jax.tree.map(noise, cell.init(jax.random.key(0), features))
    state = jax.tree.map(noise, cell.init_state(params, (batch,)))
    xs = jnp.asarray(rng.standard_normal((time, batch, *spatial, features)), state[0].dtype)
    return params, state, xs


def functions(entry: by_hand.ByHand, which: str) -> dict:
    """Both versions of a cell, as functions of the same arguments."""

    def hoisted(params, state, xs):
        return rnn.unroll(entry.cell, params, xs, state, engine=rnn.engines.Hoisted())

    def gradient(run):
        def loss(params, state, xs):
            final, ys = run(params, state, xs)
            return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves((final, ys)))

        return jax.grad(loss, argnums=(0, 1, 2))

    both = {"Hoisted": hoisted, "by hand": entry.run}
    return both if which == "forward" else {name: gradient(run) for name, run in both.items()}


def measure(config: Config, name: str, entry: by_hand.ByHand, which: str) -> Line:
    """Compares and times one pass of one cell."""
    arguments = draw(config, entry.cell)
    programs = (
        compile_program(function, arguments, exact=True)
        for function in functions(entry, which).values()
    )
    times = compare(*programs, tolerance=1e-4, rounds=config.rounds, seconds=config.seconds)
    return Line(entry.kind, name, which, times)


def main(config: Config, console: Console | None = None) -> list[Line]:
    """Times all cells and prints the table."""
    console = console or Console()
    known = by_hand.cells(config.hidden, config.points, config.features)
    lines = [
        measure(config, name, known[name], which)
        for name in config.cells or known
        for which in PASSES
    ]
    on = machine()
    table = report.make_table(
        ["kind", "cell", "pass", "by hand, ms", "Hoisted, ms", "Hoisted / by hand"],
        [
            [
                *line[:3],
                *(f"{1e3 * seconds:.2f}" for seconds in (line.times.second, line.times.first)),
                f"{line.times.ratio:.2f}",
            ]
            for line in lines
        ],
        text=3,
        caption=f"jax {on['versions'].get('jax')}, {on['processor']}, {on['threads']} threads",
    )
    console.print(table)
    return lines


if __name__ == "__main__":
    main(tyro.cli(Config))
