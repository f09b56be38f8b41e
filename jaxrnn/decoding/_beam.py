"""Several sequences at once, the likeliest of which are kept."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_size
from jaxrnn._numerics import state_dtype
from jaxrnn._typing import Array, PyTree
from jaxrnn.decoding._sample import count_before
from jaxrnn.decoding._step import Decoded, Work, log_softmax, prepare


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
    """Decodes by keeping, at each step, the best sequences so far.

        score(Y) = log p(Y) / |Y|^length_penalty

    where |Y| counts the tokens of Y, its end among them. At each step every beam is continued by
    every token; a sequence that has ended competes as it is. The ``width`` best of all these are
    kept. With ``width=1`` it is `greedy`; a beam as wide as there are sequences finds the best one.

    Args:
        step: see `greedy`. It is mapped over the beams by `jax.vmap`, so it sees ``[*batch]`` here,
            too.
        params: see `greedy`; not copied for each beam.
        state: see `greedy`.
        token: see `greedy`.
        length: how many tokens to decode at most; a sequence that has not ended by then counts as
            it is.
        width: how many beams to keep.
        end: the token that ends a sequence; None if none does.
        length_penalty: 0 compares probabilities, which favours short sequences; 1 compares the mean
            of a token's log-probability.

    Shapes:
        As in `greedy`, with a last axis of beams, best first: tokens ``[length, *batch, width]``,
        lengths and scores ``[*batch, width]``.

    Returns:
        The sequences kept at last, with their scores: -inf in a beam that is empty, where there are
        fewer sequences than beams.

    Raises:
        TypeError: as in `greedy`.
        ValueError: as in `greedy`, or ``width`` is less than 1.

    Example:
        What looks best at first need not be so in the end:

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
        normalisation, there with (5 + |Y|) / 6 in place of |Y|).
    """
    work, params, state, token = prepare(step, params, state, token, length, end)
    check_size("width", width)
    if not isinstance(length_penalty, int | float | jax.Array) or jnp.ndim(length_penalty):
        raise TypeError(f"length_penalty must be a number, got {length_penalty!r}")
    return _search(work, int(width), params, state, token, length_penalty)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(work: Work, width: int, params, state, token, length_penalty) -> Decoded:
    function, end, axis = work.function(), work.end, token.ndim
    logits = jax.eval_shape(function, params, state, token)[1]
    dtype, vocabulary = state_dtype(logits.dtype), logits.shape[-1]
    length_penalty = jnp.asarray(length_penalty, dtype)
    beams = jax.vmap(functools.partial(function, params), axis, axis)

    def unfinished(carry):
        t, _, _, done, log_probs, _ = carry
        return (t < work.length) & ~(done | jnp.isneginf(log_probs)).all()

    def body(carry):
        t, state, token, done, log_probs, tokens = carry
        state, logits = beams(state, token)
        gains = log_softmax(logits)
        if end is not None:  # one that has ended offers itself, once
            itself = jnp.where(jnp.arange(vocabulary, dtype=jnp.int32) == end, 0, -jnp.inf).astype(
                dtype
            )
            gains = jnp.where(done[..., None], itself, gains)
        offers = (log_probs[..., None] + gains).reshape(*token.shape[:-1], width * vocabulary)
        counts = jnp.where(done, count_before(tokens, end) + 1, t + 1).astype(dtype)
        scores = offers / jnp.repeat(counts**length_penalty, vocabulary, axis=-1)
        _, chosen = jax.lax.top_k(scores, width)
        log_probs = jnp.take_along_axis(offers, chosen, axis=-1)
        parent = chosen // vocabulary
        state, done = _rows((state, done), parent)
        tokens = jax.vmap(_rows, (0, None))(tokens, parent)
        token = (chosen % vocabulary).astype(token.dtype)
        if end is not None:
            done = done | (token == end)
        return t + 1, state, token, done, log_probs, tokens.at[t].set(token)

    def spread(leaf: Array) -> Array:
        return jnp.repeat(jnp.expand_dims(leaf, axis), width, axis)

    state, token = jax.tree.map(spread, (state, token))
    # All beams begin alike, so all but one begin empty.
    log_probs = jnp.full(token.shape, -jnp.inf, dtype).at[..., 0].set(0)
    tokens = jnp.full((work.length, *token.shape), 0 if end is None else end, token.dtype)
    carry = (jnp.int32(0), state, token, jnp.zeros(token.shape, bool), log_probs, tokens)
    *_, done, log_probs, tokens = jax.lax.while_loop(unfinished, body, carry)
    lengths = count_before(tokens, end)
    counts = jnp.where(done, lengths + 1, lengths).astype(dtype)
    return Decoded(tokens, lengths, log_probs / counts**length_penalty)


def _rows(tree: PyTree, parent: Array) -> PyTree:
    """Lets each beam go on from its parent's row; leaves ``[*batch, width, ...]``."""

    def select(leaf, parent):
        return leaf[parent]

    for _ in range(parent.ndim - 1):
        select = jax.vmap(select)
    return jax.tree.map(lambda leaf: select(leaf, parent), tree)
