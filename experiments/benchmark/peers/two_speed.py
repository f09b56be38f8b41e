"""A custom cell that no library has, as a user of jaxrnn would write it.

Two leaky integrators in series with gated rates: a memory, and an output that follows it.

f, o = σ(x W + b + h U)           (the blocks f, o)
n = tanh(x W + b + h U)           (the block n)
m' = (1 - f) m + f n
h' = (1 - o) h + o m'
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxrnn as rnn


class TwoSpeedParams(NamedTuple):
    """Parameters, with gates packed in the order f, o, n."""

    input_kernel: jax.Array  # [input, 3 * hidden]
    recurrent_kernel: jax.Array  # [hidden, 3 * hidden]
    bias: jax.Array  # [3 * hidden]


class TwoSpeedState(NamedTuple):
    """State."""

    hidden: jax.Array  # [*batch, hidden]
    memory: jax.Array  # [*batch, hidden]


def step(params: TwoSpeedParams, state: TwoSpeedState, x: jax.Array):
    """One step of the equations above."""
    z = x @ params.input_kernel + params.bias + state.hidden @ params.recurrent_kernel
    f, o, n = jnp.split(z, 3, axis=-1)
    f, o, n = jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(n)
    memory = (1 - f) * state.memory + f * n
    hidden = (1 - o) * state.hidden + o * memory
    return TwoSpeedState(hidden, memory), hidden


@functools.cache
def two_speed_cell(hidden_size: int) -> Any:
    """The cell of a size."""

    def init(key: jax.Array, input_size: int, dtype: Any = None) -> TwoSpeedParams:
        draw = jax.nn.initializers.lecun_normal()
        sizes = zip(jax.random.split(key), (input_size, hidden_size), strict=True)
        inputs, recurrent = (draw(k, (size, 3 * hidden_size), dtype) for k, size in sizes)
        return TwoSpeedParams(inputs, recurrent, jnp.zeros(3 * hidden_size, dtype))

    def init_state(params: TwoSpeedParams, batch_shape: tuple[int, ...]) -> TwoSpeedState:
        zeros = jnp.zeros((*batch_shape, hidden_size), params.bias.dtype)
        return TwoSpeedState(zeros, zeros)

    return rnn.from_step(step, init_state=init_state, init=init, output_size=hidden_size)
