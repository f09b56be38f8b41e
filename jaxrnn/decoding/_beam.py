"""Beam search."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_size
from jaxrnn._numerics import state_dtype
from jaxrnn._typing import Array, PyTree
from jaxrnn.decoding._sample import count_before
from jaxrnn.decoding._step import Decoded, Decoder, log_softmax, prepare


def beam_search(
    step: Any,
    params: PyTree,
    state: PyTree,
    token: Any,
    *,
    length: int,
    width: int,
    end: int | None = None,
    length_penalty: Any = 0.0,
) -> Decoded:
    """Decodes by beam search, which keeps the best partial sequences at each step.

        score(Y) = log p(Y) / |Y|^length_penalty

    where |Y| is the number of tokens of Y including the end token. Each step extends every beam by
    every token and keeps the ``width`` best hypotheses; finished hypotheses compete unchanged. With
    ``width=1`` this is `greedy`; with as many beams as sequences it is exhaustive search.

    Args:
        step: see `greedy`. `jax.vmap` maps it over the beams, so its batch shape is ``[*batch]``.
        params: see `greedy`; not copied per beam.
        state: see `greedy`.
        token: see `greedy`.
        length: the maximum number of tokens; a hypothesis that has not finished by then is scored
            as it is.
        width: the number of beams.
        end: the end token; None if there is none.
        length_penalty: the exponent of the length normalization: 0 compares log-probabilities,
            which favors short sequences, 1 compares mean log-probabilities per token.

    Shapes:
        As in `greedy`, with a last axis of beams, best first: tokens ``[length, *batch, width]``,
        lengths and scores ``[*batch, width]``.

    Returns:
        The sequences of all beams with their scores; empty beams, where there are fewer sequences
        than beams, have the score -inf.

    Raises:
        TypeError: as in `greedy`.
        ValueError: as in `greedy`, or ``width`` is less than 1.

    Example:
        The most probable first token does not start the most probable sequence:

        >>> import jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> table = jnp.log(jnp.array([[0.0, 0.6, 0.4], [0.4, 0.3, 0.3], [0.0, 0.1, 0.9]]))
        >>> def step(table, state, token):
        ...     return state, table[token]
        >>> first = jnp.array(0)
        >>> print(decoding.greedy(step, table, (), first, length=2).tokens)
        [1 0]
        >>> beams = decoding.beam_search(step, table, (), first, length=2, width=2)
        >>> print(beams.tokens[:, 0], beams.tokens[:, 1])
        [2 2] [1 0]

    References:
        I. Sutskever, O. Vinyals and Q. Le, "Sequence to sequence learning with neural networks",
        2014, section 3.2.
        Y. Wu et al., "Google's neural machine translation system", 2016, section 7 (length
        normalization, there with (5 + |Y|) / 6 instead of |Y|).
    """
    decoder, params, state, token = prepare(step, params, state, token, length, end)
    check_size("width", width)
    if not isinstance(length_penalty, int | float | jax.Array) or jnp.ndim(length_penalty):
        raise TypeError(f"length_penalty must be a number, got {length_penalty!r}")
    return _search(decoder, int(width), params, state, token, length_penalty)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(decoder: Decoder, width: int, params, state, token, length_penalty) -> Decoded:
    function, end, axis = decoder.function(), decoder.end, token.ndim
    logits = jax.eval_shape(function, params, state, token)[1]
    dtype, vocabulary = state_dtype(logits.dtype), logits.shape[-1]
    length_penalty = jnp.asarray(length_penalty, dtype)
    beams = jax.vmap(functools.partial(function, params), axis, axis)

    def unfinished(carry):
        t, _, _, done, log_probs, _ = carry
        return (t < decoder.length) & ~(done | jnp.isneginf(log_probs)).all()

    def body(carry):
        t, state, token, done, log_probs, tokens = carry
        state, logits = beams(state, token)
        gains = log_softmax(logits)
        if end is not None:  # a finished hypothesis has one extension: itself
            unchanged = jnp.where(jnp.arange(vocabulary, dtype=jnp.int32) == end, 0.0, -jnp.inf)
            gains = jnp.where(done[..., None], unchanged.astype(dtype), gains)
        extended = (log_probs[..., None] + gains).reshape(*token.shape[:-1], width * vocabulary)
        counts = jnp.where(done, count_before(tokens, end) + 1, t + 1).astype(dtype)
        scores = extended / jnp.repeat(counts**length_penalty, vocabulary, axis=-1)
        _, chosen = jax.lax.top_k(scores, width)
        log_probs = jnp.take_along_axis(extended, chosen, axis=-1)
        parent = chosen // vocabulary
        state, done = _rows((state, done), parent)
        tokens = jax.vmap(_rows, (0, None))(tokens, parent)
        token = (chosen % vocabulary).astype(token.dtype)
        if end is not None:
            done = done | (token == end)
        return t + 1, state, token, done, log_probs, tokens.at[t].set(token)

    def repeat(leaf: Array) -> Array:
        return jnp.repeat(jnp.expand_dims(leaf, axis), width, axis)

    state, token = jax.tree.map(repeat, (state, token))
    # All beams start with the same hypothesis, so all but one start empty.
    log_probs = jnp.full(token.shape, -jnp.inf, dtype).at[..., 0].set(0)
    tokens = jnp.full((decoder.length, *token.shape), 0 if end is None else end, token.dtype)
    carry = (jnp.int32(0), state, token, jnp.zeros(token.shape, bool), log_probs, tokens)
    *_, done, log_probs, tokens = jax.lax.while_loop(unfinished, body, carry)
    lengths = count_before(tokens, end)
    counts = jnp.where(done, lengths + 1, lengths).astype(dtype)
    return Decoded(tokens, lengths, log_probs / counts**length_penalty)


def _rows(tree: PyTree, parent: Array) -> PyTree:
    """Gathers the parent of each beam; leaves ``[*batch, width, ...]``."""

    def select(leaf, parent):
        return leaf[parent]

    for _ in range(parent.ndim - 1):
        select = jax.vmap(select)
    return jax.tree.map(lambda leaf: select(leaf, parent), tree)
