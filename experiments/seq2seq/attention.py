"""Attention over an encoder's memory, with optional coverage and copying.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015 (additive); Luong, Pham and Manning, "Effective approaches to attention-based neural machine
translation", 2015 (multiplicative, there called general); Tu et al., "Modeling coverage for neural
machine translation", 2016; See, Liu and Manning, "Get to the point: summarization with
pointer-generator networks", 2017 (copying).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.common.step import in_32_bits

Array = jax.Array


class Memory(NamedTuple):
    """The encoder's output.

    Attributes:
        features: `[batch, source, features]`.
        valid: False for padding, `[batch, source]`.
        copies: the target symbol at each source position `[batch, source]`, 0 where there is none;
            None disables copying.
    """

    features: Array
    valid: Array
    copies: Array | None = None


class DecoderOutput(NamedTuple):
    """What determines the distribution of the next symbol.

    Attributes:
        logits: of the vocabulary, `[batch, symbols]`.
        weights: attention weights, `[batch, source]`.
        gate: probability of copying, `[batch, 1]`; None without copying.
    """

    logits: Array
    weights: Array
    gate: Array | None = None


_MIN_PROBABILITY = 1e-9


def copy_log_probs(output: DecoderOutput, memory: Memory) -> Array:
    """Log-probabilities of symbols that are generated, or copied from the attended positions.

    p(y) = (1 - g c) q(y) + g Σ_s w_s [y stands at s], where c = Σ_s w_s over the positions that
    have a symbol to copy: equation 9 of See, Liu and Manning, for a memory of which only some
    positions can be copied.
    """
    weights, rest = _copy_weights(output, memory)
    zeros = jnp.zeros_like(output.logits)
    copied = jax.vmap(lambda row, symbols, w: row.at[symbols].add(w))(zeros, memory.copies, weights)
    return jnp.log(rest[:, None] * jax.nn.softmax(output.logits) + copied + _MIN_PROBABILITY)


def cross_entropy(
    output: DecoderOutput, memory: Memory, targets: Array, smoothing: float = 0.0
) -> Array:
    """The negative log-probability of one symbol per row, by the equation of `copy_log_probs`.

    The forward pass makes no array of vocabulary size besides the logits.

    Args:
        output: of the decoder; axes before the batch are allowed, the same as in `targets`.
        memory: of the encoder.
        targets: symbols `[batch]`.
        smoothing: label smoothing: weight of the mean of -log q over all symbols.
    """
    output = jax.tree.map(lambda leaf: leaf.astype("float32"), output)
    normalizer = jax.nn.logsumexp(output.logits, axis=-1)
    loss = normalizer - jnp.take_along_axis(output.logits, targets[..., None], axis=-1)[..., 0]
    if output.gate is not None:
        weights, rest = _copy_weights(output, memory)
        copied = jnp.where(memory.copies == targets[..., None], weights, 0).sum(-1)
        loss = -jnp.log(rest * jnp.exp(-loss) + copied + _MIN_PROBABILITY)
    if smoothing:
        uniform = normalizer - output.logits.mean(-1)
        loss = (1 - smoothing) * loss + smoothing * uniform
    return loss


def _copy_weights(output: DecoderOutput, memory: Memory) -> tuple[Array, Array]:
    """The probability of copying each position, g w_s, and of generating, 1 - g c."""
    gate: Any = output.gate
    weights = gate * jnp.where(memory.copies == 0, 0, output.weights)
    return weights, jnp.maximum(1 - weights.sum(-1), 0)  # rounding may bring the sum above 1


class Additive(nn.Module):
    """w = softmax_s(v . tanh(W h + U m_s + u c_s)), where c is the coverage, if there is one."""

    size: int

    @nn.compact
    def __call__(self, h: Array, memory: Memory, coverage: Array | None = None) -> Array:
        """Weights `[batch, source]` for `h [batch, features]` and a coverage `[batch, source]`."""
        keys = nn.Dense(self.size, use_bias=False, name="key")(memory.features)
        # Gradients of the scores of a row cancel, which magnifies what is rounded.
        hidden = in_32_bits(nn.Dense(self.size, name="query")(h))[:, None] + keys
        if coverage is not None:
            hidden += nn.Dense(self.size, use_bias=False, name="coverage")(coverage[..., None])
        scores = nn.Dense(1, use_bias=False, name="score")(jnp.tanh(hidden))[..., 0]
        return jax.nn.softmax(scores, axis=-1, where=memory.valid).astype(h.dtype)


class Multiplicative(nn.Module):
    """w = softmax_s(W h . m_s / √features + u c_s), where c is the coverage, if there is one."""

    size: int

    @nn.compact
    def __call__(self, h: Array, memory: Memory, coverage: Array | None = None) -> Array:
        """Weights `[batch, source]` for `h [batch, features]` and a coverage `[batch, source]`."""
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
            force_fp32_for_softmax=jnp.finfo(h.dtype).bits < 32,
        )
        return weights[:, 0, 0].astype(h.dtype)
