"""A custom cell that no library has, as a user of jaxrnn would write it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class TwoSpeedParams(NamedTuple):
    """Parameters of `TwoSpeed`, gates packed in the order f, o, n."""

    input_kernel: jax.Array  # [input, 3 * hidden]
    recurrent_kernel: jax.Array  # [hidden, 3 * hidden]
    bias: jax.Array  # [3 * hidden]


class TwoSpeedState(NamedTuple):
    """State of `TwoSpeed`."""

    hidden: jax.Array  # [*batch, hidden]
    memory: jax.Array  # [*batch, hidden]


@dataclasses.dataclass(frozen=True)
class TwoSpeed:
    """Two leaky integrators in series with gated rates: a memory, and an output that follows it.

    f, o = σ(x W + b + h U)           (the blocks f, o)
    n = tanh(x W + b + h U)           (the block n)
    m' = (1 - f) m + f n
    h' = (1 - o) h + o m'
    """

    hidden_size: int

    @property
    def output_size(self) -> int:
        """The number of output features."""
        return self.hidden_size

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> TwoSpeedParams:
        """Draws the parameters."""
        columns = 3 * self.hidden_size
        keys = jax.random.split(key)
        init = jax.nn.initializers.lecun_normal()
        return TwoSpeedParams(
            init(keys[0], (input_size, columns), dtype),
            init(keys[1], (self.hidden_size, columns), dtype),
            jnp.zeros(columns, dtype),
        )

    def init_state(self, params: TwoSpeedParams, batch_shape: tuple[int, ...] = ()):
        """Returns zeros."""
        zeros = jnp.zeros((*batch_shape, self.hidden_size), params.bias.dtype)
        return TwoSpeedState(zeros, zeros)

    def step(self, params: TwoSpeedParams, state: TwoSpeedState, x: jax.Array):
        """One step of the equations above."""
        z = x @ params.input_kernel + params.bias + state.hidden @ params.recurrent_kernel
        f, o, n = jnp.split(z, 3, axis=-1)
        f, o, n = jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(n)
        memory = (1 - f) * state.memory + f * n
        hidden = (1 - o) * state.hidden + o * memory
        return TwoSpeedState(hidden, memory), hidden
