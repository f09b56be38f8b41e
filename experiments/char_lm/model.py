"""Characters in, logits of the next ones out: an embedding, recurrent layers, a dense read-out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.layers import Stack


class Params(NamedTuple):
    """Parameters of `Model`."""

    embedding: Any
    stack: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """An embedding, recurrent layers, and a dense read-out.

    Args:
        stack: the recurrent layers.
        vocabulary: how many characters there are.
        embed: the size of the embedding.
        dropout: that of what the last layer gives to the read-out.
    """

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
            self._readout.init(keys[2], jnp.zeros(self.stack.output_size)),
        )

    def init_state(self, params: Params, rows: int) -> Any:
        """The state before the first character."""
        return self.stack.init_state(params.stack, (rows,))

    def begin_anew(self, params: Params, state: Any, rows: jax.Array) -> Any:
        """The state, with the one before the first character where `rows [rows]` is True."""

        def choose(first, carried):
            return jnp.where(rows.reshape(-1, *[1] * (first.ndim - 1)), first, carried)

        return jax.tree.map(choose, self.init_state(params, len(rows)), state)

    def apply(
        self, params: Params, state: Any, tokens: jax.Array, key: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        """Reads `tokens [time, rows]`; gives the state, and logits `[time, rows, vocabulary]`."""
        stack_key, dropout_key = (None, None) if key is None else jax.random.split(key)
        xs = self._embedding.apply(params.embedding, tokens)
        state, ys = self.stack.apply(params.stack, state, xs, key=stack_key)
        drop = nn.Dropout(self.dropout, deterministic=key is None)
        ys = drop.apply({}, ys, rng=dropout_key)
        logits: Any = self._readout.apply(params.readout, ys)
        return state, logits

    @property
    def _embedding(self) -> nn.Embed:
        # Of size 1, as a recurrent layer's initialisers expect of their inputs.
        return nn.Embed(self.vocabulary, self.embed, embedding_init=nn.initializers.normal(1.0))

    @property
    def _readout(self) -> nn.Dense:
        return nn.Dense(self.vocabulary)
