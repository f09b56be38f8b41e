"""A character language model: an embedding, recurrent layers, and a dense output layer."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.common.step import in_32_bits
from jaxrnn.layers import Stack


class Params(NamedTuple):
    """The parameters of `CharLM`."""

    embedding: Any
    stack: Any
    readout: Any


@dataclass(frozen=True)
class CharLM:
    """A character language model; `dropout` is that of the last layer's outputs."""

    stack: Stack
    vocabulary: int
    embed: int
    dropout: float

    def init(self, key: jax.Array) -> Params:
        """Draws the parameters."""
        keys = jax.random.split(key, 3)
        return Params(
            self._embedding.init(keys[0], jnp.zeros((), jnp.int32)),
            self.stack.init(keys[1], self.embed),
            self._output.init(keys[2], jnp.zeros(self.stack.output_size)),
        )

    def init_state(self, params: Params, rows: int) -> Any:
        """The initial state."""
        return self.stack.init_state(params.stack, (rows,))

    def reset(self, params: Params, state: Any, rows: jax.Array) -> Any:
        """Sets the state to the initial one where `rows [rows]` is True."""

        def choose(initial, carried):
            return jnp.where(rows.reshape(-1, *[1] * (initial.ndim - 1)), initial, carried)

        return jax.tree.map(choose, self.init_state(params, len(rows)), state)

    def apply(
        self, params: Params, state: Any, tokens: jax.Array, key: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        """Reads `tokens [time, rows]`; returns the state and logits `[time, rows, vocabulary]`."""
        stack_key, dropout_key = (None, None) if key is None else jax.random.split(key)
        dtype = jax.tree.leaves(params.embedding)[0].dtype
        xs: Any = self._embedding.apply(in_32_bits(params.embedding), tokens)
        state, ys = self.stack.apply(params.stack, state, xs.astype(dtype), key=stack_key)
        drop = nn.Dropout(self.dropout, deterministic=key is None)
        ys = drop.apply({}, ys, rng=dropout_key)
        logits: Any = self._output.apply(in_32_bits(params.readout), in_32_bits(ys))
        return state, logits

    def step(self, params: Params, state: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        """Reads `token [rows]`, for `jaxrnn.decoding`."""
        state, logits = self.apply(params, state, token[None])
        return state, logits[0]

    @property
    def _embedding(self) -> nn.Embed:
        # Unit variance, which the initializers of recurrent layers expect of their inputs.
        return nn.Embed(self.vocabulary, self.embed, embedding_init=nn.initializers.normal(1.0))

    @property
    def _output(self) -> nn.Dense:
        return nn.Dense(self.vocabulary)
