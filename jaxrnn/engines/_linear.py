"""Elementwise linear recurrences, parallel over time; their derivatives are recurrences too."""

import jax
import jax.numpy as jnp

from jaxrnn._cell import Array


def combine(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """The map h → a h + b of two stretches of time, from the maps of each: associative."""
    (a1, b1), (a2, b2) = earlier, later
    return a2 * a1, a2 * b1 + b2


def linear_recurrence(
    a: Array, b: Array, initial: Array, *, reverse: bool = False, chunk_size: int | None = None
) -> Array:
    """All h of h[t] = a[t] h[t-1] + b[t], from h[-1] = initial.

    That is one linear system in all h together, with ones on its diagonal and -a beside it. Told
    so, JAX differentiates it as it does any linear system: a tangent is a recurrence with the same
    a, and a gradient is one with a shifted and time reversed. Nothing of the way in which the
    recurrence is evaluated is kept for that, only a and h.

    Args:
        a: the factors, which broadcast against ``b`` except in time.
        b: the increments.
        initial: the state before the first step.
        reverse: h[t] = a[t] h[t+1] + b[t], from the end.
        chunk_size: chunks are done one after the other, each parallel in itself; None is one chunk.

    Shapes:
        a ``[time, ...]``, b and the result ``[time, *shape]``, initial ``[*shape]``.
    """
    a = a.astype(b.dtype)
    first = -1 if reverse else 0
    b = b.at[first].add(a[first] * initial)

    def matvec(h: Array) -> Array:
        return h - a * _shift(h, reverse)

    def solve(_, b: Array) -> Array:
        return _scan(a, b, reverse, chunk_size)

    def transpose_solve(_, b: Array) -> Array:
        return _scan(_shift(a, not reverse), b, not reverse, chunk_size)

    return jax.lax.custom_linear_solve(matvec, b, solve, transpose_solve)


def _shift(x: Array, reverse: bool) -> Array:
    """What stood one step before (or, in reverse, after); zero where nothing did."""
    nothing = jnp.zeros_like(x[:1])
    return jnp.concatenate([x[1:], nothing] if reverse else [nothing, x[:-1]])


def _scan(a: Array, b: Array, reverse: bool, chunk_size: int | None) -> Array:
    """The recurrence from zero, forwards only: its derivatives are not taken through this."""
    time = b.shape[0]
    if chunk_size is None or time <= chunk_size:
        return jax.lax.associative_scan(combine, (a, b), reverse=reverse)[1]
    first, last = (-1, 0) if reverse else (0, -1)

    def one(h: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = chunk
        b = b.at[first].add(a[first] * h)
        hs = jax.lax.associative_scan(combine, (a, b), reverse=reverse)[1]
        return hs[last], hs

    rest = time % chunk_size
    start, stop = (rest, time) if reverse else (0, time - rest)
    chunks = [x[start:stop].reshape(-1, chunk_size, *x.shape[1:]) for x in (a, b)]
    h, hs = jax.lax.scan(one, jnp.zeros_like(b[0]), tuple(chunks), reverse=reverse)
    hs = hs.reshape(stop - start, *b.shape[1:])
    if not rest:
        return hs
    if reverse:
        return jnp.concatenate([one(h, (a[:rest], b[:rest]))[1], hs])
    return jnp.concatenate([hs, one(h, (a[stop:], b[stop:]))[1]])
