"""Twelve cells under `Hoisted`, against the same cells hoisted by hand in plain JAX.

    python -m experiments.benchmark.cells_by_hand
    python -m experiments.benchmark.cells_by_hand --cells LEM BRC --time 512 --batch 8

The claim: whatever a cell is made of (one product in its loop, two products, none, or a
convolution), the schedule that `Hoisted` finds in the textbook step takes at most 1.1 times as long
as the one an engineer writes for that cell alone; `experiments/_by_hand` says how. Forward, and
forward with the gradient of a loss on every output with respect to inputs, initial state and all
weights. Both are compiled ahead and take turns in one process, and their results are compared
first; times are medians, ratios medians of the ratios within a round.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import jaxrnn as rnn
from experiments.benchmark.by_hand import Peer, peers
from experiments.benchmark.timing import compile_program, interleave, machine, paired_ratio

PASSES = ("forward", "gradient")


@dataclass(frozen=True)
class Config:
    """What to time, and for how long."""

    cells: tuple[str, ...] = ()
    """Cells by name. None: all twelve."""
    time: int = 128
    """Steps."""
    batch: int = 32
    """Sequences."""
    inputs: int = 128
    """Features of the input."""
    hidden: int = 256
    """Features of the state."""
    space_time: int = 32
    """Steps of the convolutional cells."""
    space_batch: int = 8
    """Sequences of the convolutional cells."""
    points: int = 16
    """Points of space along each of two axes; as many altogether on one axis, half in three."""
    features: int = 16
    """Features of the convolutional cells, of input and state at every point."""
    rounds: int = 20
    """Rounds in which both have a turn."""
    seconds: float = 5.0
    """After so many seconds for one pass of one cell no further round is begun."""

    def __post_init__(self):
        known = peers(self.hidden, self.points, self.features)
        unknown = [name for name in self.cells if name not in known]
        if unknown:
            raise ValueError(f"cells must be among {', '.join(known)}, got {', '.join(unknown)}")


class Line(NamedTuple):
    """What one pass of one cell took, in seconds."""

    kind: str
    name: str
    which: str
    by_hand: float
    hoisted: float
    ratio: float


def work(config: Config, peer: Peer) -> tuple:
    """Parameters, state and inputs, none of them zero.

    The noise is small: kernels far from how they start would make rounding errors grow.
    """
    spatial = getattr(peer.cell, "spatial_shape", ())
    time, batch = (
        (config.space_time, config.space_batch) if spatial else (config.time, config.batch)
    )
    features = config.features if spatial else config.inputs
    rng = np.random.default_rng(0)

    def noise(leaf):
        return leaf + jnp.asarray(0.01 * rng.standard_normal(leaf.shape), leaf.dtype)

    params = jax.tree.map(noise, peer.cell.init(jax.random.key(0), features))
    state = jax.tree.map(noise, peer.cell.init_state(params, (batch,)))
    xs = jnp.asarray(rng.standard_normal((time, batch, *spatial, features)), state[0].dtype)
    return params, state, xs


def functions(peer: Peer, which: str) -> dict:
    """What is timed: by hand and by the library, on the same arguments."""

    def hoisted(params, state, xs):
        return rnn.unroll(peer.cell, params, xs, state, engine=rnn.engines.Hoisted())

    def gradient(run):
        def loss(params, state, xs):
            final, ys = run(params, state, xs)
            last = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(final))
            return jnp.vdot(ys, ys) + last

        return jax.grad(loss, argnums=(0, 1, 2))

    both = {"by hand": peer.run, "Hoisted": hoisted}
    return both if which == "forward" else {name: gradient(run) for name, run in both.items()}


def difference(one: list, other: list) -> float:
    """The largest difference of two results, of the largest value of each array."""
    return max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
        for a, b in zip(one, other, strict=True)
    )


def measure(config: Config, name: str, peer: Peer, which: str) -> Line:
    """Compares and times one pass of one cell."""
    arguments = work(config, peer)
    programs = {
        title: compile_program(function, arguments, exact=True)
        for title, function in functions(peer, which).items()
    }
    apart = difference(programs["Hoisted"].values(), programs["by hand"].values())
    if not apart < 1e-4:
        raise RuntimeError(f"{name}, {which}: the results differ by {apart:.1e} of their size")
    times = interleave(
        {title: program.run for title, program in programs.items()},
        rounds=config.rounds,
        seconds=config.seconds,
    )
    return Line(
        peer.kind,
        name,
        which,
        float(np.median(times["by hand"])),
        float(np.median(times["Hoisted"])),
        paired_ratio(times["Hoisted"], times["by hand"]),
    )


def main(config: Config, console: Console | None = None) -> list[Line]:
    """Times all cells and prints the table."""
    console = console or Console()
    known = peers(config.hidden, config.points, config.features)
    lines = [
        measure(config, name, known[name], which)
        for name in config.cells or known
        for which in PASSES
    ]
    on = machine(("jax", "jaxlib", "numpy"))
    table = Table("kind", "cell", "pass", "by hand, ms", "Hoisted, ms", "Hoisted / by hand")
    for line in lines:
        times = (f"{1e3 * line.by_hand:.2f}", f"{1e3 * line.hoisted:.2f}", f"{line.ratio:.2f}")
        table.add_row(line.kind, line.name, line.which, *times)
    console.print(table)
    console.print(f"jax {on['versions'].get('jax')}, {on['processor']}, {on['threads']} threads")
    return lines


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
