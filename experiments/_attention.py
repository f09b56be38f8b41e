"""Attention: how much of the decoder's next look falls on each place of the encoder's memory.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015 (additive); Luong, Pham and Manning, "Effective approaches to attention-based neural machine
translation", 2015 (multiplicative, there called general). Either may also see how much it has
looked at each place before, so that it need not say a thing twice: Tu et al., "Modeling coverage
for neural machine translation", 2016.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

Array = jax.Array


class Memory(NamedTuple):
    """What the encoder hands over.

    Fields:
        features: `[rows, time, features]`.
        valid: which places count, `[rows, time]`.
        copies: the target symbol that stands at each place `[rows, time]`, or 0; None: nowhere one.
    """

    features: Array
    valid: Array
    copies: Array | None = None


def mix_copies(log_probs: Array, weights: Array, gate: Array, memory: Memory) -> Array:
    """Log-probabilities of symbols that are made up, or copied from where the decoder looks.

    p(y) = (1 - g c) q(y) + g Σ_s w_s [y stands at s], where c = Σ_s w_s over all places where a
    symbol stands: See, Liu and Manning, "Get to the point: summarization with pointer-generator
    networks", 2017, equation 9, for a memory in which not every place can be copied.

    Args:
        log_probs: log q `[rows, symbols]`.
        weights: w, where the decoder looks `[rows, time]`.
        gate: g, between 0 and 1 `[rows, 1]`.
        memory: what stands where.
    """
    weights = gate * jnp.where(memory.copies == 0, 0, weights)
    zeros = jnp.zeros_like(log_probs)
    copied = jax.vmap(lambda row, places, w: row.at[places].add(w))(zeros, memory.copies, weights)
    made = (1 - weights.sum(-1, keepdims=True)) * jnp.exp(log_probs)
    return jnp.log(made + copied + 1e-9)  # never log 0, however sure of a copy


class Additive(nn.Module):
    """w = softmax_s(v . tanh(W h + U m_s + u c_s)), where c is the coverage, if there is one."""

    size: int

    @nn.compact
    def __call__(self, h: Array, memory: Memory, coverage: Array | None = None) -> Array:
        """Weights `[rows, time]` for `h [rows, features]` and a coverage `[rows, time]`."""
        keys = nn.Dense(self.size, use_bias=False, name="key")(memory.features)
        both = nn.Dense(self.size, name="query")(h)[:, None] + keys
        if coverage is not None:
            both += nn.Dense(self.size, use_bias=False, name="coverage")(coverage[..., None])
        scores = nn.Dense(1, use_bias=False, name="score")(jnp.tanh(both))[..., 0]
        return jax.nn.softmax(scores, axis=-1, where=memory.valid)


class Multiplicative(nn.Module):
    """w = softmax_s(W h . m_s + u c_s), where c is the coverage, if there is one.

    By Flax's function for it, which divides the product by a root of the size.
    """

    size: int

    @nn.compact
    def __call__(self, h: Array, memory: Memory, coverage: Array | None = None) -> Array:
        """Weights `[rows, time]` for `h [rows, features]` and a coverage `[rows, time]`."""
        query = nn.Dense(memory.features.shape[-1], use_bias=False, name="query")(h)
        bias = None
        if coverage is not None:
            scale = nn.Dense(1, use_bias=False, name="coverage")(coverage[..., None])
            bias = scale[:, None, None, :, 0]
        weights = nn.dot_product_attention_weights(
            query[:, None, None],
            memory.features[:, :, None],
            bias=bias,
            mask=memory.valid[:, None, None],
        )
        return weights[:, 0, 0]
