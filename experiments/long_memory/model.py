"""The network that learns the tasks of long memory, and how each cell is started for them."""

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
from experiments.long_memory.tasks import Batch
from jaxrnn import initializers

# What the papers advise to cells that shall remember for so many steps. The others start as always.
_STARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "lstm": lambda steps: {"bias_init": initializers.Chrono(steps)},
    "peephole-lstm": lambda steps: {"bias_init": initializers.Chrono(steps)},
    "gru": lambda steps: {"bias_init": initializers.Chrono(steps, input_gate=None)},
    "lem": lambda steps: {"time_step": min(1.0, 48 / steps)},
    "lru": lambda steps: {
        # A slow decay, and at most one turn over the whole sequence.
        "eigenvalue_init": initializers.UnitRing(
            1 - 1 / steps, 1 - 0.1 / steps, 2 * math.pi / steps
        )
    },
}


def cell_for(name: str, hidden: int, remember: int | None) -> Any:
    """The cell of a name; `remember` says for how many steps, where its paper says how."""
    cell = make_cell(name, hidden)
    if remember is None or name not in _STARTS:
        return cell
    return type(cell)(hidden_size=hidden, **_STARTS[name](remember))


class Params(NamedTuple):
    """Parameters of `Model`."""

    encoder: Any
    cell: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """A cell and a linear read-out; a recurrence that is linear has a nonlinear layer around it.

    No product of two inputs, and no decision, comes out of a linear recurrence and linear layers.
    In their papers such cells stand in blocks with nonlinear layers; here they get one of `width`
    units before and one after, which see each step alone and remember nothing.

    Args:
        cell: the cell.
        outputs: numbers in an answer.
        width: units of the nonlinear layers, where there are any.
        engine: what runs the cell.
    """

    cell: Any
    outputs: int
    width: int
    engine: Any = None

    @property
    def linear(self) -> bool:
        """Whether the cell's recurrence is linear in its state."""
        return rnn.is_affine(self.cell) or rnn.is_chunked(self.cell)

    def init(self, key: jax.Array, inputs: int) -> Params:
        """Draws the parameters."""
        keys = jax.random.split(key, 3)
        encoded = self.width if self.linear else inputs
        return Params(
            self._encoder.init(keys[0], jnp.zeros(inputs)) if self.linear else (),
            self.cell.init(keys[1], encoded),
            self._readout.init(keys[2], jnp.zeros(self.cell.output_size)),
        )

    def encode(self, params: Params, xs: jax.Array) -> jax.Array:
        """What the cell sees of the inputs ``[time, rows, features]``."""
        encoded: Any = self._encoder.apply(params.encoder, xs) if self.linear else xs
        return encoded

    def apply(self, params: Params, xs: jax.Array) -> jax.Array:
        """Answers ``[time, rows, outputs]``."""
        _, ys = rnn.unroll(self.cell, params.cell, self.encode(params, xs), engine=self.engine)
        answers: Any = self._readout.apply(params.readout, ys)
        return answers

    @property
    def _encoder(self) -> nn.Module:
        return nn.Sequential([nn.Dense(self.width), nn.gelu])

    @property
    def _readout(self) -> nn.Module:
        before = [nn.Dense(self.width), nn.gelu] if self.linear else []
        return nn.Sequential([*before, nn.Dense(self.outputs)])


def losses(classes: int | None, answers: jax.Array, batch: Batch) -> jax.Array:
    """The loss of each answer ``[time, rows]``: squared errors, or nats."""
    if classes is None:
        return jnp.square(answers[..., 0] - batch.targets)
    return optax.softmax_cross_entropy_with_integer_labels(answers, batch.targets)


def weighted_mean(values: Any, weights: Any) -> Any:
    """The mean of the values that count."""
    return (values * weights).sum() / weights.sum()
