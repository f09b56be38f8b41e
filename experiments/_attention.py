"""Attention: how much of the decoder's next look falls on each place of the encoder's memory.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015 (additive); Luong, Pham and Manning, "Effective approaches to attention-based neural machine
translation", 2015 (multiplicative, there called general).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

Array = jax.Array


class Memory(NamedTuple):
    """What the encoder hands over: features `[rows, time, features]`, and which of them count."""

    features: Array
    valid: Array


class Additive(nn.Module):
    """w = softmax_s(v . tanh(W h + U m_s))."""

    size: int

    @nn.compact
    def __call__(self, h: Array, memory: Memory) -> Array:
        """Weights `[rows, time]` for `h [rows, features]`."""
        keys = nn.Dense(self.size, use_bias=False, name="key")(memory.features)
        query = nn.Dense(self.size, name="query")(h)
        scores = nn.Dense(1, use_bias=False, name="score")(jnp.tanh(query[:, None] + keys))[..., 0]
        return jax.nn.softmax(scores, axis=-1, where=memory.valid)


class Multiplicative(nn.Module):
    """w = softmax_s(W h . m_s), by Flax's function for it, which divides by a root of the size."""

    size: int

    @nn.compact
    def __call__(self, h: Array, memory: Memory) -> Array:
        """Weights `[rows, time]` for `h [rows, features]`."""
        query = nn.Dense(memory.features.shape[-1], use_bias=False, name="query")(h)
        weights = nn.dot_product_attention_weights(
            query[:, None, None], memory.features[:, :, None], mask=memory.valid[:, None, None]
        )
        return weights[:, 0, 0]
