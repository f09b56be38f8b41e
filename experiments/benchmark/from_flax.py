"""Compares a Flax model with the same model under jaxrnn's layers: only the import changes.

    python -m experiments.benchmark.from_flax                          # train, then time the layers
    python -m experiments.benchmark.from_flax --steps 0                # time the layers only
    python -m experiments.benchmark.from_flax --points --steps 500     # train only

The model learns to add, like Flax's seq2seq example: an encoder reads "12+345", and a decoder with
teacher forcing predicts the characters of "357". It is written once and trained twice, alternating
step by step, from the same weights on the same data, with ``flax.linen.RNN`` and with
``jaxrnn.linen.RNN`` around the same linen cells; the losses must agree.

The layers of linen and nnx are timed forward and backward, with the gradients of all weights, the
inputs and the initial carry, interleaved; times are medians, ratios are medians of the ratios
within a round. A ratio above 1 means that jaxrnn is faster.
"""

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
from rich.console import Console

import jaxrnn.linen
import jaxrnn.nnx
from experiments.benchmark import report
from experiments.benchmark.timing import Comparison, compare, compare_samples, compile_program


@dataclass(frozen=True)
class Config:
    """Compares a Flax model and Flax layers with those of jaxrnn; only the import changes."""

    steps: int = 200
    """Steps of training; 0 or 1 for none."""
    batch_size: int = 128
    hidden_size: int = 256
    digits: int = 3
    """Digits of the longest summand."""
    learning_rate: float = 3e-3
    points: tuple[str, ...] = ("128,32,128,256", "100,1,64,128", "512,8,64,128")
    """Sizes of the layers to time: time,batch,inputs,hidden."""
    rounds: int = 30
    """Rounds; both layers have one turn in each."""
    seconds: float = 5.0
    """Time limit for one pair of layers, after which no round starts."""
    seed: int = 0


class Result(NamedTuple):
    """Losses by step of both trainings, and all times, Flax's first."""

    losses: dict[str, list[float]]
    times: dict[str, Comparison]


# Data ---------------------------------------------------------------------------------------------

END, PADDING = "$", " "
SYMBOLS = PADDING + END + "+=0123456789"


def sums(rng: np.random.Generator, count: int, digits: int) -> dict[str, np.ndarray]:
    """One-hot questions and answers, with the lengths of the questions."""
    pairs = rng.integers(0, 10**digits, size=(count, 2))
    questions = [f"{a}+{b}" for a, b in pairs]
    answers = [f"={a + b}{END}" for a, b in pairs]
    return {
        "questions": one_hot(questions, 2 * digits + 1),
        "lengths": np.array([len(question) for question in questions], np.int32),
        "answers": one_hot(answers, digits + 3),
    }


def one_hot(rows: Sequence[str], width: int) -> np.ndarray:
    """Encodes characters, padded at the end, as ``[rows, width, symbols]``."""
    index = np.array([[SYMBOLS.index(c) for c in row.ljust(width, PADDING)] for row in rows])
    return np.eye(len(SYMBOLS), dtype=np.float32)[index]


# Model --------------------------------------------------------------------------------------------


class Speller(nn.RNNCellBase):
    """One step of the decoder, from a character to the logits of the next one."""

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
    """An encoder whose final carry is the initial carry of a decoder."""

    RNN: Any  # flax.linen.RNN or jaxrnn.linen.RNN: the import that changes
    features: int

    @nn.compact
    def __call__(self, questions, lengths, answers):
        """The logits ``[batch, time, symbols]`` of every character after the first."""
        encoder = self.RNN(nn.OptimizedLSTMCell(self.features), return_carry=True, name="encoder")
        carry, _ = encoder(questions, seq_lengths=lengths)
        decoder = self.RNN(Speller(self.features), name="decoder")
        return decoder(answers[:, :-1], initial_carry=carry)


# Training -----------------------------------------------------------------------------------------


def make_step(model: Adder, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """A compiled step of training."""

    def loss(params, batch):
        logits: Any = model.apply({"params": params}, **batch)
        targets = batch["answers"][:, 1:]
        real = 1 - targets[..., SYMBOLS.index(PADDING)]
        return optax.softmax_cross_entropy(logits, targets).mean(where=real > 0)

    @jax.jit
    def step(params, state, batch):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    return step


def train(config: Config) -> tuple[dict[str, list[float]], Comparison]:
    """Both trainings, alternating step by step."""
    rng = np.random.default_rng(config.seed)
    optimizer = optax.adam(config.learning_rate)
    example: dict[str, Any] = sums(rng, config.batch_size, config.digits)
    models = {"flax": Adder(nn.RNN, config.hidden_size)}
    params = jax.jit(models["flax"].init)(jax.random.key(config.seed), **example)["params"]
    models["ours"] = Adder(jaxrnn.linen.RNN, config.hidden_size)
    steps = {name: make_step(model, optimizer) for name, model in models.items()}
    states = dict.fromkeys(steps, (params, optimizer.init(params)))
    losses: dict[str, list[float]] = {name: [] for name in steps}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(config.steps):
        batch = sums(rng, config.batch_size, config.digits)
        for name in list(steps)[:: 1 if number % 2 else -1]:
            begin = time.perf_counter()
            states[name], value = jax.block_until_ready(steps[name](*states[name], batch))
            if number:  # the first step compiles
                times[name].append(time.perf_counter() - begin)
            losses[name].append(float(value))
    return losses, compare_samples(times["flax"], times["ours"])


# Layers -------------------------------------------------------------------------------------------


def linen_layer(RNN: Any, kind: str, inputs: int, hidden: int, xs: jax.Array):
    """The pure function of a linen layer, its weights and its initial carry."""
    cell = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[kind](hidden)
    layer = RNN(cell, return_carry=True)
    weights = layer.init(jax.random.key(0), xs)
    return layer.apply, weights, cell.initialize_carry(jax.random.key(0), (len(xs), inputs))


def nnx_layer(RNN: Any, kind: str, inputs: int, hidden: int, xs: jax.Array):
    """The pure function of an nnx layer, its weights and its initial carry."""
    make = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}[kind]
    cell = make(inputs, hidden, rngs=nnx.Rngs(0))
    graph, weights, rest = nnx.split(RNN(cell, return_carry=True), nnx.Param, ...)

    def apply(weights, xs, **options):
        return nnx.merge(graph, weights, rest, copy=True)(xs, **options)

    return apply, weights, cell.initialize_carry((len(xs), inputs), nnx.Rngs(0))


LAYERS = {
    "linen": (linen_layer, nn.RNN, jaxrnn.linen.RNN),
    "nnx": (nnx_layer, nnx.RNN, jaxrnn.nnx.RNN),
}


def compare_layers(config: Config, api: str, kind: str, point: str) -> Comparison:
    """Times one layer of Flax and the same one of jaxrnn."""
    steps, batch, inputs, hidden = map(int, point.split(","))
    xs, cotangent = (
        jnp.asarray(np.random.default_rng(n).normal(size=(batch, steps, size)), "float32")
        for n, size in ((1, inputs), (2, hidden))
    )
    make, *kinds = LAYERS[api]
    programs = []
    for RNN in kinds:
        apply, weights, carry = make(RNN, kind, inputs, hidden, xs)

        def loss(weights, carry, xs, apply=apply):
            final, ys = apply(weights, xs, initial_carry=carry)
            return (ys * cotangent).sum() + sum(leaf.sum() for leaf in jax.tree.leaves(final))

        step = jax.value_and_grad(loss, argnums=(0, 1, 2))
        programs.append(compile_program(step, (weights, carry, xs), exact=True))
    return compare(*programs, tolerance=2e-4, rounds=config.rounds, seconds=config.seconds)


# The command --------------------------------------------------------------------------------------


def main(config: Config, console: Console | None = None) -> Result:
    """Trains, times, and prints the results."""
    console = console or Console()
    losses: dict[str, list[float]] = {}
    times: dict[str, Comparison] = {}
    if config.steps > 1:
        losses, times["training step"] = train(config)
        first, last = losses["ours"][0], losses["ours"][-1]
        error = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
        console.print(f"loss {first:.3f} to {last:.3f}; largest difference of losses {error:.1e}")
    for api in LAYERS:
        for kind in ("lstm", "gru"):
            for point in config.points:
                times[f"{api} {kind} {point}"] = compare_layers(config, api, kind, point)
    rows = [
        [name, f"{1e3 * t.first:.2f}", f"{1e3 * t.second:.2f}", f"{t.ratio:.2f}"]
        for name, t in times.items()
    ]
    headings = ["", "Flax, ms", "jaxrnn, ms", "Flax / jaxrnn"]
    console.print(report.make_table(headings, rows))
    return Result(losses, times)


if __name__ == "__main__":
    main(tyro.cli(Config))
