"""One token after another: the likeliest, or one that is drawn."""

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxrnn import _validation as checks
from jaxrnn._arguments import check_key, check_size
from jaxrnn._numerics import state_dtype
from jaxrnn._typing import Array, PyTree
from jaxrnn.decoding._step import Decoded, Work, log_softmax, pick, prepare


def greedy(
    step: Any, params: PyTree, state: PyTree, token: Any, *, length: int, end: int | None = None
) -> Decoded:
    """Decodes by always taking the likeliest token.

        state, logits = step(params, state, token_{t-1}),    token_t = argmax logits

    Args:
        step: ``(params, state, token) -> (state, logits)``, or a cell or layer whose ``step`` is
            such a function. Keep the same object from call to call: each new one is compiled.
        params: what ``step`` gets; None if it closes over all it needs: then it is called
            ``step(state, token)``.
        state: the state that the first step gets; None is the cell's ``init_state``.
        token: the token that the first step gets, such as the one that begins every sequence.
        length: how many tokens to decode at most.
        end: the token that ends a row; None if rows never end. Decoding stops when all have ended.

    Shapes:
        token int ``[*batch]``; state leaves ``[*batch, ...]``; logits ``[*batch, vocabulary]``;
        tokens ``[length, *batch]``, filled up with ``end`` after a row's end; lengths and scores
        ``[*batch]``.

    Returns:
        What was decoded, with the logarithm of its probability.

    Raises:
        TypeError: an argument has the wrong kind, or ``step`` gives something else than logits, or
            another state than it took.
        ValueError: an argument, or what ``step`` gives, has the wrong shape or value.

    Example:
        A model of two tokens that alternates, with 2 for the end:

        >>> import jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> table = jnp.log(jnp.array([[0.1, 0.8, 0.1], [0.6, 0.1, 0.3], [0.3, 0.3, 0.4]]))
        >>> def step(table, state, token):
        ...     return state, table[token]
        >>> decoded = decoding.greedy(step, table, (), jnp.array(0), length=4)
        >>> print(decoded.tokens, round(float(jnp.exp(decoded.scores)), 4))
        [1 0 1 0] 0.2304
    """
    work, params, state, token = prepare(step, params, state, token, length, end)
    return _decode(work, None, params, state, token, None, None, None)


def sample(
    step: Any,
    params: PyTree,
    state: PyTree,
    token: Any,
    key: Array,
    *,
    length: int,
    end: int | None = None,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
) -> Decoded:
    """Decodes by drawing each token.

        token_t ~ softmax(logits / temperature), restricted to its likeliest tokens

    Args:
        step: see `greedy`.
        params: see `greedy`.
        state: see `greedy`.
        token: see `greedy`.
        key: randomness.
        length: how many tokens to decode at most.
        end: the token that ends a row; None if rows never end.
        temperature: 1 follows the model, less keeps to what is likely; 0 is `greedy`.
        top_k: draw from so many of the likeliest tokens only.
        top_p: draw from the fewest of the likeliest tokens that reach this probability together
            (at the temperature, and among those that ``top_k`` leaves).

    Shapes:
        As in `greedy`; temperature and top_p are numbers, or arrays ``[*batch]`` with one a row.

    Returns:
        What was drawn, with the logarithm of its probability under the model itself (temperature 1,
        nothing left out).

    Raises:
        TypeError: as in `greedy`.
        ValueError: as in `greedy`; or the temperature is negative, ``top_k`` less than 1, ``top_p``
            not in (0, 1].

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> def step(table, state, token):
        ...     return state, table[token]
        >>> table, first = jnp.log(jnp.array([[0.5, 0.4, 0.1]] * 3)), jnp.zeros(1000, "int32")
        >>> drawn = decoding.sample(
        ...     step, table, (), first, jax.random.key(0), length=1, top_p=0.8
        ... ).tokens
        >>> print(bool((drawn < 2).all()), abs(float((drawn == 0).mean()) - 5 / 9) < 0.05)
        True True

    References:
        A. Fan, M. Lewis and Y. Dauphin, "Hierarchical neural story generation", 2018, section 5.1
        (top k).
        A. Holtzman et al., "The curious case of neural text degeneration", 2020, section 3.1
        (top p).
    """
    check_key(key)
    work, params, state, token = prepare(step, params, state, token, length, end)
    if top_k is not None:
        check_size("top_k", top_k)
    temperature = _a_row("temperature", temperature, token.shape)
    if _concrete(temperature) and not (np.asarray(temperature) >= 0).all():
        raise ValueError(f"temperature must be 0 or more, got {temperature}; 0 is greedy")
    if top_p is not None:
        top_p = _a_row("top_p", top_p, token.shape)
        if _concrete(top_p) and not ((np.asarray(top_p) > 0) & (np.asarray(top_p) <= 1)).all():
            raise ValueError(f"top_p must be in (0, 1], got {top_p}; 1 leaves nothing out")
    return _decode(work, top_k, params, state, token, key, temperature, top_p)


def draw(key: Array, logits: Array, temperature: Any, top_k: int | None, top_p: Any) -> Array:
    """Draws a token a row from logits ``[*batch, vocabulary]``."""
    dtype = state_dtype(logits.dtype)
    # The largest of logits / temperature + Gumbel noise is a draw from their softmax; times the
    # temperature it holds for 0 as well.
    temperature = jnp.asarray(temperature, dtype)[..., None]
    noise = temperature * jax.random.gumbel(key, logits.shape, dtype)
    logits = logits.astype(dtype)
    if top_k is None and top_p is None:
        return jnp.argmax(logits + noise, axis=-1)
    size = logits.shape[-1] if top_k is None else min(top_k, logits.shape[-1])
    logits, order = jax.lax.top_k(logits, size)
    if top_p is not None:
        least = jnp.maximum(temperature, jnp.finfo(dtype).tiny)
        probabilities = jax.nn.softmax((logits - logits[..., :1]) / least, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept = (before < jnp.asarray(top_p, dtype)[..., None]).at[..., 0].set(True)
        logits = jnp.where(kept, logits, -jnp.inf)
    return pick(order, jnp.argmax(logits + noise[..., :size], axis=-1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _decode(work: Work, top_k, params, state, token, key, temperature, top_p) -> Decoded:
    function, end = work.function(), work.end
    logits = jax.eval_shape(function, params, state, token)[1]
    fill = jnp.asarray(0 if end is None else end, token.dtype)

    def unfinished(carry):
        t, _, _, done, _, _ = carry
        return (t < work.length) & ~done.all()

    def body(carry):
        t, state, token, done, scores, tokens = carry
        state, logits = function(params, state, token)
        if key is None:
            chosen = jnp.argmax(logits, axis=-1)
        else:
            chosen = draw(jax.random.fold_in(key, t), logits, temperature, top_k, top_p)
        scores = jnp.where(done, scores, scores + pick(log_softmax(logits), chosen))
        token = jnp.where(done, fill, chosen.astype(token.dtype))
        if end is not None:
            done = done | (token == fill)
        return t + 1, state, token, done, scores, tokens.at[t].set(token)

    scores = jnp.zeros(token.shape, state_dtype(logits.dtype))
    tokens = jnp.full((work.length, *token.shape), fill)
    done = jnp.zeros(token.shape, bool)
    carry = (jnp.int32(0), state, token, done, scores, tokens)
    *_, done, scores, tokens = jax.lax.while_loop(unfinished, body, carry)
    return Decoded(tokens, count_before(tokens, end), scores)


def count_before(tokens: Array, end: int | None) -> Array:
    """How many tokens ``[length, *batch]`` of each row stand before its first end."""
    if end is None:
        return jnp.full(tokens.shape[1:], tokens.shape[0], jnp.int32)
    return jnp.cumprod(tokens != end, axis=0, dtype=jnp.int32).sum(0, dtype=jnp.int32)


def _a_row(name: str, value: Any, batch: tuple[int, ...]) -> Array:
    value = checks.as_array(name, value)
    if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value.dtype}")
    if value.shape not in ((), batch):
        raise ValueError(
            f"{name} must be a number, or an array of the batch shape {batch} of token, got shape "
            f"{value.shape}"
        )
    return value


def _concrete(value: Array) -> bool:
    return not isinstance(value, jax.core.Tracer)
