"""Greedy decoding and sampling."""

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
from jaxrnn.decoding._step import Decoded, Decoder, log_softmax, pick, prepare


def greedy(
    step: Any, params: PyTree, state: PyTree, token: Any, *, length: int, end: int | None = None
) -> Decoded:
    """Decodes by taking the most probable token at each step.

        state, logits = step(params, state, token_{t-1}),    token_t = argmax logits

    Args:
        step: ``(params, state, token) -> (state, logits)``, or a cell or layer whose ``step`` is
            such a function. Reuse the same object: each new one is compiled again.
        params: the parameters of ``step``; None for a closure ``step(state, token)``.
        state: the initial state; None is the cell's ``init_state``.
        token: the first input token, such as the start-of-sequence token.
        length: the maximum number of tokens.
        end: the end token; None if there is none. Decoding stops when all rows have ended.

    Shapes:
        token int ``[*batch]``; state leaves ``[*batch, ...]``; logits ``[*batch, vocabulary]``;
        tokens ``[length, *batch]``, padded with ``end`` after a row's end; lengths and scores
        ``[*batch]``.

    Returns:
        The decoded tokens with their log-probabilities.

    Raises:
        TypeError: an argument has the wrong type, or ``step`` does not return logits and a state
            like the one it takes.
        ValueError: an argument or a result of ``step`` has the wrong shape or value.

    Example:
        A model that alternates between two tokens, with 2 as the end token:

        >>> import jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> table = jnp.log(jnp.array([[0.1, 0.8, 0.1], [0.6, 0.1, 0.3], [0.3, 0.3, 0.4]]))
        >>> def step(table, state, token):
        ...     return state, table[token]
        >>> decoded = decoding.greedy(step, table, (), jnp.array(0), length=4)
        >>> print(decoded.tokens, round(float(jnp.exp(decoded.scores)), 4))
        [1 0 1 0] 0.2304
    """
    decoder, params, state, token = prepare(step, params, state, token, length, end)
    return _decode(decoder, None, params, state, token, None, None, None)


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
    """Decodes by sampling each token.

        token_t ~ softmax(logits / temperature), restricted by top_k and top_p

    Args:
        step: see `greedy`.
        params: see `greedy`.
        state: see `greedy`.
        token: see `greedy`.
        key: the random key.
        length: the maximum number of tokens.
        end: the end token; None if there is none.
        temperature: 1 samples from the model's distribution, less sharpens it; 0 is `greedy`.
        top_k: sample from the ``top_k`` most probable tokens only.
        top_p: nucleus sampling: sample from the smallest set of most probable tokens whose total
            probability reaches ``top_p`` (after temperature and ``top_k``).

    Shapes:
        As in `greedy`; temperature and top_p are numbers, or arrays ``[*batch]``, one per row.

    Returns:
        The sampled tokens with their log-probabilities under the unmodified model (temperature 1,
        without ``top_k`` and ``top_p``).

    Raises:
        TypeError: as in `greedy`.
        ValueError: as in `greedy`, or the temperature is negative, ``top_k`` is less than 1, or
            ``top_p`` is not in (0, 1].

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> def step(table, state, token):
        ...     return state, table[token]
        >>> table, first = jnp.log(jnp.array([[0.5, 0.4, 0.1]] * 3)), jnp.zeros(1000, "int32")
        >>> sampled = decoding.sample(
        ...     step, table, (), first, jax.random.key(0), length=1, top_p=0.8
        ... ).tokens
        >>> print(bool((sampled < 2).all()), abs(float((sampled == 0).mean()) - 5 / 9) < 0.05)
        True True

    References:
        A. Fan, M. Lewis and Y. Dauphin, "Hierarchical neural story generation", 2018, section 5.1
        (top-k sampling).
        A. Holtzman et al., "The curious case of neural text degeneration", 2020, section 3.1
        (nucleus sampling).
    """
    check_key(key)
    decoder, params, state, token = prepare(step, params, state, token, length, end)
    if top_k is not None:
        check_size("top_k", top_k)
    temperature = _per_row("temperature", temperature, token.shape)
    if _concrete(temperature) and not (np.asarray(temperature) >= 0).all():
        raise ValueError(f"temperature must be 0 or more, got {temperature}; 0 is greedy")
    if top_p is not None:
        top_p = _per_row("top_p", top_p, token.shape)
        if _concrete(top_p) and not ((np.asarray(top_p) > 0) & (np.asarray(top_p) <= 1)).all():
            raise ValueError(f"top_p must be in (0, 1], got {top_p}; 1 keeps every token")
    return _decode(decoder, top_k, params, state, token, key, temperature, top_p)


def draw(key: Array, logits: Array, temperature: Any, top_k: int | None, top_p: Any) -> Array:
    """Samples one token per row from logits ``[*batch, vocabulary]``."""
    dtype = state_dtype(logits.dtype)
    # The Gumbel-max trick, multiplied by the temperature so that it holds for 0 too.
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
def _decode(decoder: Decoder, top_k, params, state, token, key, temperature, top_p) -> Decoded:
    function, end = decoder.function(), decoder.end
    logits = jax.eval_shape(function, params, state, token)[1]
    fill = jnp.asarray(0 if end is None else end, token.dtype)

    def unfinished(carry):
        t, _, _, done, _, _ = carry
        return (t < decoder.length) & ~done.all()

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
    tokens = jnp.full((decoder.length, *token.shape), fill)
    done = jnp.zeros(token.shape, bool)
    carry = (jnp.int32(0), state, token, done, scores, tokens)
    *_, done, scores, tokens = jax.lax.while_loop(unfinished, body, carry)
    return Decoded(tokens, count_before(tokens, end), scores)


def count_before(tokens: Array, end: int | None) -> Array:
    """The number of tokens ``[length, *batch]`` of each row before its first end token."""
    if end is None:
        return jnp.full(tokens.shape[1:], tokens.shape[0], jnp.int32)
    return jnp.cumprod(tokens != end, axis=0, dtype=jnp.int32).sum(0, dtype=jnp.int32)


def _per_row(name: str, value: Any, batch: tuple[int, ...]) -> Array:
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
