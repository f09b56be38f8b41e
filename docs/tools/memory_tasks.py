"""Two memory tasks and a small network that learns them, for any cell of the catalogue.

The adding problem over 100 steps asks for two numbers to be held while others pass by; the parity
of bits asks for a state that an input switches. A dense layer of rectified linear units, the cell,
and a linear output layer, in float32; one compiled loop contains the training.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxrnn as rnn
from jaxrnn import initializers
from jaxrnn._typing import Array

WIDTH, HIDDEN, BATCH = 16, 32, 32
TIME = 100
"""Steps of the adding problem."""
BITS, MORE_BITS = 12, 40
"""Bits of a sequence whose parity is learned, and of one that is tested."""


class Task(NamedTuple):
    """Sequences with targets, the loss of predictions ``[time, batch]``, and how it is learned."""

    features: int
    draw: Callable[[Array], tuple[Array, Array]]
    loss: Callable[[Array, Array], Array]
    steps: int
    rate: float = 1e-2


def draw_sums(key: Array, batch: int = BATCH) -> tuple[Array, Array]:
    """Numbers in [0, 1) of which two are marked, one in each half; the target is their sum."""
    keys = jax.random.split(key, 2)
    numbers = jax.random.uniform(keys[0], (TIME, batch))
    places = jax.random.randint(keys[1], (2, batch), 0, TIME // 2)
    places = places + jnp.array([[0], [TIME // 2]])
    marks = (jnp.arange(TIME)[:, None] == places[:, None]).any(axis=0).astype(numbers.dtype)
    return jnp.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=0)


def draw_bits(key: Array, time: int = BITS, batch: int = 64) -> tuple[Array, Array]:
    """Bits, and whether an odd number of them have been 1 so far."""
    bits = jax.random.bernoulli(key, 0.5, (time, batch)).astype(jnp.float32)
    return bits[..., None], jnp.cumsum(bits, axis=0) % 2


def square_error(ys: Array, targets: Array) -> Array:
    """Of the last prediction."""
    return jnp.mean((ys[-1] - targets) ** 2)


def cross_entropy(ys: Array, targets: Array) -> Array:
    """Of the predictions at every step, as logits."""
    return optax.sigmoid_binary_cross_entropy(ys, targets).mean()


ADDING = Task(2, draw_sums, square_error, steps=500)
PARITY = Task(1, draw_bits, cross_entropy, steps=1000)


class Network(NamedTuple):
    """A dense layer, a cell and a linear output layer with one output."""

    cell: Any

    def init(self, key: Array, features: int) -> dict[str, Any]:
        """Draws the parameters."""
        keys = jax.random.split(key, 3)
        points = math.prod(self._space())
        return {
            "in": _dense(keys[0], features, WIDTH),
            "cell": self.cell.init(keys[1], WIDTH // points, "float32"),
            "out": _dense(keys[2], self.cell.output_size * points, 1),
        }

    def encode(self, params: dict[str, Any], xs: Array) -> Array:
        """The inputs of the cell; those of a `ConvLSTM` are an image of the dense layer's units."""
        xs = jax.nn.relu(xs @ params["in"]["kernel"] + params["in"]["bias"])
        return xs.reshape(*xs.shape[:2], *self._space(), -1)

    def apply(self, params: dict[str, Any], xs: Array) -> Array:
        """The predictions ``[time, batch]``."""
        _, ys = rnn.unroll(self.cell, params["cell"], self.encode(params, xs))
        ys = ys.reshape(*xs.shape[:2], -1)
        return (ys @ params["out"]["kernel"] + params["out"]["bias"])[..., 0]

    def _space(self) -> tuple[int, ...]:
        return getattr(self.cell, "spatial_shape", ())


def _dense(key: Array, rows: int, columns: int) -> dict[str, Array]:
    return {
        "kernel": initializers.LecunNormal()(key, (rows, columns), "float32"),
        "bias": jnp.zeros(columns, "float32"),
    }


def train(cell: Any, task: Task, steps: int | None = None) -> tuple[dict, dict]:
    """Trains with Adam, and returns the parameters before and after."""
    network, steps = Network(cell), steps or task.steps
    schedule = optax.cosine_decay_schedule(task.rate, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def objective(params, batch):
        xs, targets = batch
        return task.loss(network.apply(params, xs), targets)

    @jax.jit
    def run(first, batches):
        def body(carry, batch):
            params, moments = carry
            gradient = jax.grad(objective)(params, batch)
            updates, moments = optimizer.update(gradient, moments, params)
            return (optax.apply_updates(params, updates), moments), None

        (params, _), _ = jax.lax.scan(body, (first, optimizer.init(first)), batches)
        return params

    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):  # Optax counts in floats
        key = jax.random.key(0)
        first = network.init(key, task.features)
        keys = jax.random.split(jax.random.fold_in(key, 1), steps)
        return first, run(first, draw_all(task.draw, keys))


@functools.partial(jax.jit, static_argnums=0)
def draw_all(draw: Callable[[Array], Any], keys: Array) -> Any:
    """A batch for each key; random numbers are compiled once for all cells."""
    return jax.lax.map(draw, keys)


def error(cell: Any, params: dict) -> float:
    """The mean squared error on sums that were not trained on; 1/6 for predicting 1."""
    with jax.enable_x64(False):
        xs, targets = draw_sums(jax.random.key(99), 512)
        return float(square_error(jax.jit(Network(cell).apply)(params, xs), targets))


def accuracy(cell: Any, params: dict) -> float:
    """The accuracy on the parity of more bits than were trained on; 1/2 by chance."""
    with jax.enable_x64(False):
        xs, targets = draw_bits(jax.random.key(99), MORE_BITS, 512)
        logits = jax.jit(Network(cell).apply)(params, xs)[-1]
        return float(((logits > 0) == (targets[-1] > 0.5)).mean())
