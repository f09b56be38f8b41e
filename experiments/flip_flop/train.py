"""Three-bit flip-flop: a GRU learns to store three bits, and its fixed points show how.

Each of three channels receives rare pulses of ±1, and its output is the sign of the last one (D.
Sussillo and O. Barak, "Opening the black box", Neural Computation 25, 2013). Expected: without
input the trained network has eight stable fixed points, one near each corner of the cube of
outputs, and saddles between them.

    python -m experiments.flip_flop
    python -m experiments.flip_flop --seeds 1 --steps 600
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import jaxrnn as rnn
from experiments.common import options
from experiments.common.run import Run
from experiments.common.seeds import fit_seeds, one_seed
from experiments.common.training import Outcome, Task
from experiments.flip_flop.task import Batch, covered_corners, make_batch


@dataclass(frozen=True)
class Config:
    """Task, model, training and analysis."""

    bits: int = 3
    """Channels, each of which stores one bit."""
    time: int = 100
    """Steps of a training sequence."""
    rate: float = 0.05
    """Probability of a pulse, for each channel and step."""
    cell: options.CellName = "gru"
    """Recurrent cell."""
    hidden: int = 24
    """Hidden size."""
    rows: int = 32
    """Sequences in a batch."""
    engine: options.EngineName = "auto"
    """Engine that runs the cell over time."""
    seeds: int = 3
    """Seeds to train side by side."""
    candidates: int = 512
    """States from which the search for fixed points begins."""
    noise: float = 0.5
    """Standard deviation of the noise added to them."""
    training: options.Options = options.Options(
        steps=1500, learning_rate=1e-2, validate_every=250, checkpoint_every=500
    )

    def __post_init__(self):
        options.check_at_least(1, self, "bits", "time", "hidden", "rows", "seeds", "candidates")
        options.check_not_negative(self, "noise")
        options.check_rate(self, "rate")


class Params(NamedTuple):
    """Parameters of `Model`."""

    cell: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """A cell and a linear output layer."""

    cell: Any
    bits: int
    engine: Any = None

    def init(self, key: jax.Array) -> Params:
        """Initializes the parameters."""
        first, second = jax.random.split(key)
        readout = self._readout.init(second, jnp.zeros(self.cell.output_size))
        return Params(self.cell.init(first, self.bits), readout)

    def apply(self, params: Params, xs: jax.Array) -> jax.Array:
        """The outputs `[time, rows, bits]`."""
        _, ys = rnn.unroll(self.cell, params.cell, xs, engine=self.engine)
        return self.read(params, ys)

    def read(self, params: Params, ys: jax.Array) -> Any:
        """The outputs of the output layer."""
        return self._readout.apply(params.readout, ys)

    @property
    def _readout(self) -> nn.Module:
        return nn.Dense(self.bits)


def make_model(config: Config) -> Model:
    """Builds the model."""
    cell = options.make_cell(config.cell, config.hidden)
    return Model(cell, config.bits, options.make_engine(config.engine))


def draw(config: Config, *seed: int, rows: int | None = None) -> Batch:
    """The batch of a seed."""
    random = np.random.default_rng(seed)
    return make_batch(random, config.time, rows or config.rows, config.bits, config.rate)


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, model: Model) -> Task:
    """Defines the training of one seed."""
    seed = config.training.seed
    held_out = draw(config, seed, 1, rows=256)

    def loss(params, carry, batch, key):
        return optax.losses.squared_error(
            model.apply(params, batch.inputs), batch.targets
        ).mean(), carry

    return Task(
        name=f"flip-flop, {config.cell}",
        loss=loss,
        batch=lambda step: draw(config, seed, 0, step),
        validate=lambda params: evaluate(model, params, held_out),
        units=config.rows,
        unit="sequences",
        loss_unit="squared error",
    )


def evaluate(model: Model, params: Params, batch: Batch) -> dict[str, float]:
    """The loss, and the share of stored bits whose sign is right."""
    outputs = np.asarray(_apply(model, params, batch.inputs))
    stored = batch.targets != 0
    correct = np.sign(outputs[stored]) == batch.targets[stored]
    return {
        "loss": float(np.square(outputs - batch.targets).mean()),
        "accuracy": float(correct.mean()),
    }


@partial(jax.jit, static_argnums=0)
def _apply(model: Model, params: Params, inputs: jax.Array) -> jax.Array:
    return model.apply(params, jnp.asarray(inputs))


# Analysis -----------------------------------------------------------------------------------------


class Analysis(NamedTuple):
    """The fixed points of one trained network.

    Attributes:
        points: the fixed points without input.
        outputs: the outputs of the network at them `[points, bits]`.
        trajectories: states along which the search began, leaves `[time, rows, ...]`.
        dimensions: the participation ratio of these states.
    """

    points: rnn.analysis.FixedPoints
    outputs: np.ndarray
    trajectories: Any
    dimensions: float

    def summarize(self, bits: int) -> dict[str, float]:
        """The number of stable points and saddles, and of corners with one stable point."""
        stable = self.points.stable
        return {
            "stable": int(stable.sum()),
            "corners": covered_corners(self.outputs[stable], bits),
            "saddles": int((~stable).sum()),
            "dimensions": self.dimensions,
        }


def analyze(config: Config, model: Model, params: Params) -> Analysis:
    """Finds the fixed points without input, in float64."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        inputs = jnp.asarray(draw(config, config.training.seed, 2, rows=64).inputs, jnp.float64)
        emit = rnn.wrappers.EmitState(model.cell)
        _, states = rnn.unroll(emit, params.cell, inputs, engine=model.engine)
        points = rnn.analysis.fixed_points(
            model.cell,
            params.cell,
            jnp.zeros(config.bits),
            states,
            count=config.candidates,
            noise=config.noise,
            key=jax.random.key(config.training.seed),
        )
        zeros = jnp.zeros((len(points.speed), config.bits))
        _, ys = model.cell.step(params.cell, jax.tree.map(jnp.asarray, points.state), zeros)
        outputs = np.asarray(model.read(params, ys))
        dimensions = float(rnn.analysis.participation_ratio(states))
        return Analysis(points, outputs, jax.tree.map(np.asarray, states), dimensions)


# Report -------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """The outcome of the training, the test metrics of each seed, and its fixed points."""

    outcome: Outcome
    metrics: tuple[dict[str, float], ...]
    analyses: tuple[Analysis, ...]


def main(config: Config) -> Result:
    """Trains, finds the fixed points of each seed, and reports."""
    model = make_model(config)
    run = Run("flip_flop", config, reporting=("candidates", "noise"))
    run.console.print(f"{config.bits}-bit flip-flop with {model.cell}; output folder {run.folder}")
    task = make_task(config, model)
    outcome = fit_seeds(task, model.init, seeds=run.seeds, **run.settings)
    if not outcome.reports:
        return Result(outcome, (), ())
    metrics, analyses = [], []
    test = draw(config, config.training.seed, 3, rows=1024)
    for index, seed in enumerate(run.seeds):
        params = one_seed(outcome.params, index)
        analysis = analyze(config, model, params)
        metrics.append(evaluate(model, params, test) | analysis.summarize(config.bits))
        analyses.append(analysis)
        figure = rnn.analysis.plot_fixed_points(
            analysis.points, jax.tree.map(lambda leaf: leaf[:, :24], analysis.trajectories)
        )
        figure.savefig(run.folder / f"fixed_points_{seed}.png", dpi=120)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics[-1].items())
        run.console.print(f"seed {seed}: {shown}")
    figures = {name: [values[name] for values in metrics] for name in metrics[0]}
    run.write_results(figures, outcome.seconds)
    return Result(outcome, tuple(metrics), tuple(analyses))
