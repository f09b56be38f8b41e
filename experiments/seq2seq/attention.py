"""Attention: how much of the decoder's next look falls on each place of the encoder's memory.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015 (additive); Luong, Pham and Manning, "Effective approaches to attention-based neural machine
translation", 2015 (multiplicative, there called general). Either may also see how much it has
looked at each place before, so that it need not say a thing twice: Tu et al., "Modeling coverage
for neural machine translation", 2016.
"""

from typing import Any, NamedTuple

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


class Look(NamedTuple):
    """A look at the memory, and what a decoder makes of it.

    Fields:
        logits: of the symbols that it could make up, `[rows, symbols]`.
        weights: where it looks, `[rows, time]`.
        gate: how much it would rather copy, `[rows, 1]`; None: it cannot.
    """

    logits: Array
    weights: Array
    gate: Array | None = None


_LEAST = 1e-9  # a probability is never 0, however sure of a copy the decoder is


def mix_copies(look: Look, memory: Memory) -> Array:
    """Log-probabilities of symbols that are made up, or copied from where the decoder looks.

    p(y) = (1 - g c) q(y) + g Σ_s w_s [y stands at s], where c = Σ_s w_s over all places where a
    symbol stands: See, Liu and Manning, "Get to the point: summarization with pointer-generator
    networks", 2017, equation 9, for a memory in which not every place can be copied.
    """
    weights, rest = _copying(look, memory)
    zeros = jnp.zeros_like(look.logits)
    copied = jax.vmap(lambda row, places, w: row.at[places].add(w))(zeros, memory.copies, weights)
    return jnp.log(rest[:, None] * jax.nn.softmax(look.logits) + copied + _LEAST)


def cross_entropy(look: Look, memory: Memory, symbols: Array, smoothing: float = 0.0) -> Array:
    """Minus the log-probability of one symbol for each row, by the same equation where it copies.

    Forward it makes no array of all symbols besides the logits.

    Args:
        look: see `Look`; other axes may come before the rows, the same as in `symbols`.
        memory: what stands where.
        symbols: those wanted `[rows]`.
        smoothing: how much of the loss is the mean of -log q over all symbols.
    """
    look = jax.tree.map(lambda leaf: leaf.astype("float32"), look)
    normaliser = jax.nn.logsumexp(look.logits, axis=-1)
    wanted = jnp.take_along_axis(look.logits, symbols[..., None], axis=-1)[..., 0]
    found = normaliser - wanted
    if look.gate is not None:
        weights, rest = _copying(look, memory)
        copied = jnp.where(memory.copies == symbols[..., None], weights, 0).sum(-1)
        found = -jnp.log(rest * jnp.exp(-found) + copied + _LEAST)
    if smoothing:
        mean = normaliser - look.logits.mean(-1)
        found = (1 - smoothing) * found + smoothing * mean
    return found


def _copying(look: Look, memory: Memory) -> tuple[Array, Array]:
    """How much is copied from each place, g w_s where a symbol stands, and the rest, 1 - g c."""
    gate: Any = look.gate
    weights = gate * jnp.where(memory.copies == 0, 0, look.weights)
    return weights, jnp.maximum(1 - weights.sum(-1), 0)  # the sum of all may be rounded above 1


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
