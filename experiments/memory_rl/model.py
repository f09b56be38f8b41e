"""One recurrent network for the policy and the value, in rollouts and in updates."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxrnn as rnn


class Params(NamedTuple):
    """Parameters of `Model`."""

    encoder: Any
    cell: Any
    heads: Any


@dataclass(frozen=True)
class Model:
    """A nonlinear layer, a cell, a nonlinear layer, and two linear outputs.

    `step` takes one step, for rollouts; `apply` runs over a sequence, for updates, and computes the
    same. Both take `starts`: True where an observation is the first of an episode.
    """

    cell: Any
    actions: int
    width: int

    def init(self, key: jax.Array, observation: int) -> Params:
        """Initializes the parameters."""
        keys = jax.random.split(key, 3)
        return Params(
            self._encoder.init(keys[0], jnp.zeros(observation)),
            self.cell.init(keys[1], self.width),
            self._heads.init(keys[2], jnp.zeros(self.cell.output_size)),
        )

    def init_state(self, params: Params, count: int) -> Any:
        """The state before the first step of so many episodes."""
        return self.cell.init_state(params.cell, (count,))

    def step(self, params: Params, state: Any, x: jax.Array, starts: jax.Array):
        """One step: `(state, (logits [rows, actions], values [rows]))`."""
        first = self.init_state(params, len(x))

        def reset(first: jax.Array, leaf: jax.Array) -> jax.Array:
            return jnp.where(starts.reshape(-1, *(1 for _ in leaf.shape[1:])), first, leaf)

        state = jax.tree.map(reset, first, state)
        state, y = self.cell.step(params.cell, state, self._encode(params, x))
        return state, self._read(params, y)

    def apply(self, params: Params, state: Any, xs: jax.Array, starts: jax.Array):
        """All steps: `(logits [time, rows, actions], values [time, rows])`."""
        _, ys = rnn.unroll(
            self.cell,
            params.cell,
            self._encode(params, xs),
            state,
            starts=starts,
            engine=self.engine,
        )
        return self._read(params, ys)

    @property
    def engine(self) -> Any:
        """Parallel over time where the cell allows it."""
        return rnn.engines.Associative() if rnn.is_affine(self.cell) else rnn.engines.Auto()

    def _encode(self, params: Params, xs: jax.Array) -> Any:
        return self._encoder.apply(params.encoder, xs)

    def _read(self, params: Params, ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs: Any = self._heads.apply(params.heads, ys)
        return outputs[..., :-1], outputs[..., -1]

    @property
    def _encoder(self) -> nn.Module:
        return nn.Sequential([nn.Dense(self.width), nn.gelu])

    @property
    def _heads(self) -> nn.Module:
        return nn.Sequential([nn.Dense(self.width), nn.gelu, nn.Dense(self.actions + 1)])


@dataclass(frozen=True)
class FeedForward:
    """A layer without memory in the place of a cell: h = tanh(W x + b). Its state is empty."""

    hidden_size: int

    @property
    def output_size(self) -> int:
        """The number of features of one output."""
        return self.hidden_size

    def init(self, key: jax.Array, input_size: int, dtype: Any = None) -> Any:
        """Initializes the parameters."""
        return nn.Dense(self.hidden_size).init(key, jnp.zeros(input_size, dtype))

    def init_state(self, params: Any, batch_shape: tuple[int, ...] = ()) -> tuple[()]:
        """The empty state."""
        return ()

    def step(self, params: Any, state: tuple[()], x: jax.Array) -> tuple[tuple[()], Any]:
        """One step."""
        output: Any = nn.Dense(self.hidden_size).apply(params, x)
        return state, jnp.tanh(output)


CELLS = {
    "gru": rnn.GRU,
    "lstm": rnn.LSTM,
    "lru": rnn.LRU,
    "feed-forward": FeedForward,
}
