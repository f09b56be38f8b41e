"""The network for the memory tasks, and the initialization of each cell for long memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import jaxrnn as rnn
from experiments.common.options import make_cell
from experiments.common.step import in_32_bits
from experiments.long_memory.tasks import Batch
from jaxrnn import initializers

# What the cells' papers recommend for a memory of so many steps.
_LONG_MEMORY: dict[str, Callable[[int], dict[str, Any]]] = {
    "lstm": lambda steps: {"bias_init": initializers.Chrono(steps)},
    "peephole-lstm": lambda steps: {"bias_init": initializers.Chrono(steps)},
    "gru": lambda steps: {"bias_init": initializers.Chrono(steps, input_gate=None)},
    "lem": lambda steps: {"time_step": min(1.0, 48 / steps)},
    # A slow decay, and at most one turn over the whole sequence.
    "lru": lambda steps: dict(
        eigenvalue_init=initializers.UnitRing(1 - 1 / steps, 1 - 0.1 / steps, 2 * math.pi / steps)
    ),
}


def make_memory_cell(name: str, hidden: int, steps: int | None) -> Any:
    """Makes a cell by name, initialized for a memory of so many steps if its paper says how."""
    cell = make_cell(name, hidden)
    if steps is None or name not in _LONG_MEMORY:
        return cell
    return type(cell)(hidden_size=hidden, **_LONG_MEMORY[name](steps))


class Params(NamedTuple):
    """Parameters of `Model`."""

    encoder: Any
    cell: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """A cell and a linear output layer.

    A cell with a linear recurrence gets a nonlinear layer of size `width` before and after it, as
    in the blocks of its paper: alone, it can neither multiply two inputs nor make a decision.
    """

    cell: Any
    outputs: int
    width: int
    engine: Any = None

    @property
    def linear(self) -> bool:
        """Whether the recurrence is linear in the state."""
        return rnn.is_affine(self.cell) or rnn.is_chunked(self.cell)

    def init(self, key: jax.Array, inputs: int) -> Params:
        """Initializes the parameters."""
        keys = jax.random.split(key, 3)
        encoded = self.width if self.linear else inputs
        return Params(
            self._encoder.init(keys[0], jnp.zeros(inputs)) if self.linear else (),
            self.cell.init(keys[1], encoded),
            self._readout.init(keys[2], jnp.zeros(self.cell.output_size)),
        )

    def encode(self, params: Params, xs: jax.Array) -> jax.Array:
        """The inputs of the cell, from the inputs `[time, rows, features]`."""
        if not self.linear:
            return xs
        encoded: Any = self._encoder.apply(in_32_bits(params.encoder), in_32_bits(xs))
        return encoded.astype(xs.dtype)

    def apply(self, params: Params, xs: jax.Array) -> jax.Array:
        """The outputs `[time, rows, outputs]`."""
        _, ys = rnn.unroll(self.cell, params.cell, self.encode(params, xs), engine=self.engine)
        outputs: Any = self._readout.apply(in_32_bits(params.readout), in_32_bits(ys))
        return outputs

    @property
    def _encoder(self) -> nn.Module:
        return nn.Sequential([nn.Dense(self.width), nn.gelu])

    @property
    def _readout(self) -> nn.Module:
        before = [nn.Dense(self.width), nn.gelu] if self.linear else []
        return nn.Sequential([*before, nn.Dense(self.outputs)])


def mean_loss(classes: int | None, outputs: jax.Array, batch: Batch) -> jax.Array:
    """The mean squared error, or cross-entropy in nats, over the steps with a target."""
    batch = in_32_bits(batch)
    if classes is None:
        losses = jnp.square(outputs[..., 0] - batch.targets)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch.targets)
    return weighted_mean(losses, batch.weights)


def weighted_mean(values: Any, weights: Any) -> Any:
    """The mean of the values, weighted."""
    return (values * weights).sum() / weights.sum()
