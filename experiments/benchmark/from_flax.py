"""A Flax model with its import changed: the same training, sooner.

    python -m experiments.benchmark.from_flax                          # train, then time the layers
    python -m experiments.benchmark.from_flax --steps 0                # time the layers only
    python -m experiments.benchmark.from_flax --points --steps 500     # train only

The model learns to add, in the manner of Flax' own example for sequences: an encoder reads
"12+345", a decoder is told each right character and predicts the next one of "357". It is written
once, and trained twice in turns from the same weights on the same sums, with ``flax.linen.RNN`` and
with ``jaxrnn.linen.RNN`` around the same linen cells; the losses must agree.

The layers alone, linen's and nnx', are timed forward and backward, with the gradients of all
weights, of the inputs and of the initial carry, in turns; times are medians, ratios are medians of
the ratios within a round. Above 1, the changed import is the quicker one.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen as nn
from flax import nnx

import jaxrnn.linen
import jaxrnn.nnx
from experiments.benchmark.timing import compile_program, interleave, paired_ratio

# Configuration ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """How long to train, and which layers to time."""

    steps: int = 200
    """Steps of training; 0 trains nothing."""
    batch_size: int = 128
    hidden_size: int = 256
    digits: int = 3
    """Digits of the longest summand."""
    learning_rate: float = 3e-3
    points: tuple[str, ...] = ("128,32,128,256", "100,1,64,128", "512,8,64,128")
    """Sizes to time: time,batch,inputs,hidden."""
    rounds: int = 30
    """Turns of each contender."""
    seconds: float = 5.0
    """No turn is begun after so long, for one pair of layers."""
    seed: int = 0


class Ratio(NamedTuple):
    """How one pair compares; above 1, the changed import is quicker."""

    what: str
    flax_ms: float
    ours_ms: float
    ratio: float


class Result(NamedTuple):
    """Losses by step, of both trainings, and all times."""

    losses: dict[str, list[float]]
    ratios: list[Ratio]


# Data ---------------------------------------------------------------------------------------------

END, PADDING = "$", " "
SYMBOLS = PADDING + END + "+=0123456789"


def sums(rng: np.random.Generator, count: int, digits: int) -> dict[str, np.ndarray]:
    """Questions and answers as one-hot rows, with the lengths of the questions."""
    pairs = rng.integers(0, 10**digits, size=(count, 2))
    questions = [f"{a}+{b}" for a, b in pairs]
    answers = [f"={a + b}{END}" for a, b in pairs]
    return {
        "questions": one_hot(questions, 2 * digits + 1),
        "lengths": np.array([len(question) for question in questions], np.int32),
        "answers": one_hot(answers, digits + 3),
    }


def one_hot(rows: Sequence[str], width: int) -> np.ndarray:
    """Rows of characters ``[rows, width, symbols]``, padded at their ends."""
    index = np.array([[SYMBOLS.index(c) for c in row.ljust(width, PADDING)] for row in rows])
    return np.eye(len(SYMBOLS), dtype=np.float32)[index]


# Model --------------------------------------------------------------------------------------------


class Speller(nn.RNNCellBase):
    """One step of the decoder: a character in, the scores of the next one out."""

    features: int

    @nn.compact
    def __call__(self, carry, x):
        """One step."""
        carry, y = nn.OptimizedLSTMCell(self.features, name="lstm")(carry, x)
        return carry, nn.Dense(len(SYMBOLS), name="head")(y)

    @property
    def num_feature_axes(self) -> int:
        """One axis of features."""
        return 1


class Adder(nn.Module):
    """An encoder, whose last carry is the first one of a decoder."""

    RNN: Any  # flax.linen.RNN or jaxrnn.linen.RNN: the import that is changed
    features: int

    @nn.compact
    def __call__(self, questions, lengths, answers):
        """The scores ``[batch, time, symbols]`` of every character after the first."""
        encoder = self.RNN(nn.OptimizedLSTMCell(self.features), return_carry=True, name="encoder")
        carry, _ = encoder(questions, seq_lengths=lengths)
        decoder = self.RNN(Speller(self.features), name="decoder")
        return decoder(answers[:, :-1], initial_carry=carry)


# Training -----------------------------------------------------------------------------------------


def make_step(model: Adder, optimiser: optax.GradientTransformation) -> Callable[..., Any]:
    """A compiled step of training."""

    def loss(params, batch):
        scores: Any = model.apply({"params": params}, **batch)
        targets = batch["answers"][:, 1:]
        real = 1 - targets[..., SYMBOLS.index(PADDING)]
        losses = optax.softmax_cross_entropy(scores, targets)
        return (losses * real).sum() / real.sum()

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def train(config: Config) -> tuple[dict[str, list[float]], Ratio]:
    """Both trainings, step by step in turns."""
    rng = np.random.default_rng(config.seed)
    optimiser = optax.adam(config.learning_rate)
    models = {
        name: Adder(RNN, config.hidden_size)
        for name, RNN in (("flax", nn.RNN), ("ours", jaxrnn.linen.RNN))
    }
    example: dict[str, Any] = sums(rng, config.batch_size, config.digits)
    params = {
        n: m.init(jax.random.key(config.seed), **example)["params"] for n, m in models.items()
    }
    states = {name: optimiser.init(params[name]) for name in models}
    steps = {name: make_step(model, optimiser) for name, model in models.items()}
    losses: dict[str, list[float]] = {name: [] for name in models}
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(config.steps):
        batch = sums(rng, config.batch_size, config.digits)
        for name in list(models)[:: 1 if number % 2 else -1]:
            begin = time.perf_counter()
            params[name], states[name], value = jax.block_until_ready(
                steps[name](params[name], states[name], batch)
            )
            if number:  # the first one compiles
                times[name].append(time.perf_counter() - begin)
            losses[name].append(float(value))
    return losses, _ratio("training step", times)


def _ratio(what: str, times: dict[str, list[float]]) -> Ratio:
    flax_ms, ours_ms = (1e3 * statistics.median(times[name]) for name in ("flax", "ours"))
    return Ratio(what, flax_ms, ours_ms, paired_ratio(times["flax"], times["ours"]))


# Layers -------------------------------------------------------------------------------------------


def linen_layer(RNN: Any, kind: str, inputs: int, hidden: int, xs: jax.Array):
    """The pure function of a linen layer, its weights and its first carry."""
    cell = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[kind](hidden)
    layer = RNN(cell, return_carry=True)
    weights = layer.init(jax.random.key(0), xs)
    carry = cell.initialize_carry(jax.random.key(0), (xs.shape[0], inputs))
    return layer.apply, weights, carry


def nnx_layer(RNN: Any, kind: str, inputs: int, hidden: int, xs: jax.Array):
    """The pure function of an nnx layer, its weights and its first carry."""
    cell = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}[kind](
        inputs, hidden, rngs=nnx.Rngs(0)
    )
    graph, weights, rest = nnx.split(RNN(cell, return_carry=True), nnx.Param, ...)

    def apply(weights, xs, **options):
        return nnx.merge(graph, weights, rest, copy=True)(xs, **options)

    return apply, weights, cell.initialize_carry((xs.shape[0], inputs), nnx.Rngs(0))


LAYERS = {
    "linen": (linen_layer, nn.RNN, jaxrnn.linen.RNN),
    "nnx": (nnx_layer, nnx.RNN, jaxrnn.nnx.RNN),
}


def compare(config: Config, flavour: str, kind: str, point: str) -> Ratio:
    """Times one layer of Flax and the one with the import changed."""
    steps, batch, inputs, hidden = map(int, point.split(","))
    xs, cotangent = (
        jnp.asarray(np.random.default_rng(n).normal(size=(batch, steps, size)), "float32")
        for n, size in ((1, inputs), (2, hidden))
    )
    make, *kinds = LAYERS[flavour]
    programs = {}
    for name, RNN in zip(("flax", "ours"), kinds, strict=True):
        apply, weights, carry = make(RNN, kind, inputs, hidden, xs)

        def loss(weights, carry, xs, apply=apply):
            final, ys = apply(weights, xs, initial_carry=carry)
            return (ys * cotangent).sum() + sum(leaf.sum() for leaf in jax.tree.leaves(final))

        step = jax.value_and_grad(loss, argnums=(0, 1, 2))
        programs[name] = compile_program(step, (weights, carry, xs), exact=True)
    for ours, theirs in zip(programs["ours"].values(), programs["flax"].values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4 * np.abs(theirs).max())
    runs = {name: program.run for name, program in programs.items()}
    times = interleave(runs, rounds=config.rounds, seconds=config.seconds)
    return _ratio(f"{flavour} {kind} {point}", times)


# Run ----------------------------------------------------------------------------------------------


def main(config: Config) -> Result:
    """Trains, times, and prints what came out."""
    losses: dict[str, list[float]] = {}
    ratios = []
    if config.steps > 1:
        losses, ratio = train(config)
        ratios.append(ratio)
        first, last = losses["ours"][0], losses["ours"][-1]
        apart = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
        print(f"loss {first:.3f} to {last:.3f}; the two trainings differ by at most {apart:.1e}")
    print(f"{'milliseconds':34}{'Flax':>10}{'changed':>10}{'ratio':>8}")
    for flavour in LAYERS:
        for kind in ("lstm", "gru"):
            ratios += [compare(config, flavour, kind, point) for point in config.points]
    for what, flax_ms, ours_ms, ratio in ratios:
        print(f"{what:34}{flax_ms:10.2f}{ours_ms:10.2f}{ratio:8.2f}")
    return Result(losses, ratios)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
