"""Elementwise linear recurrences, parallel over time; their derivatives are recurrences too."""

import functools

import jax
import jax.numpy as jnp

from jaxrnn._sharding import equally_varying
from jaxrnn._typing import Array

RADIX = 8
"""The number of steps that one level of the tree combines.

Measured on two CPU cores with AVX-512 (float32, 4096×8×64, forward and backward): 2, 4, 8 and 16
take 24, 16, 8 and 35 ms, `jax.lax.associative_scan` instead 16 ms."""


def combine(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """Composes the maps h → a h + b of two consecutive intervals; associative."""
    (a1, b1), (a2, b2) = earlier, later
    return a2 * a1, a2 * b1 + b2


def linear_recurrence(
    a: Array,
    b: Array,
    initial: Array,
    *,
    reverse: bool = False,
    tree: bool = True,
    axis_name: str | None = None,
) -> Array:
    """All h of h[t] = a[t] h[t-1] + b[t], from h[-1] = initial.

    This is one bidiagonal linear system in all h, with ones on the diagonal and -a below it.
    Declared as such, JAX differentiates it as any linear system: a tangent is a recurrence with the
    same a, and a gradient is one with a shifted and time reversed. The residuals are a and h only,
    whichever way the recurrence is evaluated.

    Args:
        a: the factors, broadcast against ``b`` except in time.
        b: the increments.
        initial: the initial state.
        reverse: h[t] = a[t] h[t+1] + b[t], from the end.
        tree: whether steps are combined in a tree or run in a loop.
        axis_name: within `jax.shard_map`, the axis over which time is sharded; ``initial`` is
            replicated.

    Shapes:
        a ``[time, ...]``, b and the result ``[time, *shape]``, initial ``[*shape]``.
    """
    a, b, initial = equally_varying((a.astype(b.dtype), b, initial))
    if axis_name is not None:
        device, devices = jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name)
        entered = device == (devices - 1 if reverse else 0)
        initial = jnp.where(entered, initial, jnp.zeros_like(initial))
    first = -1 if reverse else 0
    b = b.at[first].add(a[first] * initial)

    def matvec(h: Array) -> Array:
        return h - a * _before(h, reverse, axis_name)

    def solve(_, b: Array) -> Array:
        return _solve(a, b, reverse, tree, axis_name)

    def transpose_solve(_, b: Array) -> Array:
        if tree or axis_name is not None:
            factors = _before(a, not reverse, axis_name)
            return _solve(factors, b, not reverse, tree, axis_name)
        return _transposed_loop(a, b, reverse)

    return jax.lax.custom_linear_solve(matvec, b, solve, transpose_solve)


def _before(x: Array, reverse: bool, axis_name: str | None) -> Array:
    """Shifts by one step (in reverse, backwards); zero at the edge."""
    edge = x[:1] if reverse else x[-1:]
    if axis_name is None:
        edge = jnp.zeros_like(edge)
    else:
        edge = jax.lax.ppermute(edge, axis_name, _neighbors(axis_name, reverse))
    return jnp.concatenate([x[1:], edge] if reverse else [edge, x[:-1]])


def _neighbors(axis_name: str, reverse: bool) -> list[tuple[int, int]]:
    """Pairs of each device and the next one in time; the first receives nothing, so zeros."""
    pairs = [(n, n + 1) for n in range(jax.lax.axis_size(axis_name) - 1)]
    return [(b, a) for a, b in pairs] if reverse else pairs


def _solve(a: Array, b: Array, reverse: bool, tree: bool, axis_name: str | None = None) -> Array:
    """The recurrence from zero; it is not differentiated through."""
    if axis_name is not None:
        b = _add_entering(a, b, reverse, tree, axis_name)
    if not tree:
        return _loop(a, b, reverse)
    if reverse:
        return jnp.flip(_tree(jnp.flip(a, 0), jnp.flip(b, 0)), 0)
    return _tree(a, b)


def _add_entering(a: Array, b: Array, reverse: bool, tree: bool, axis_name: str) -> Array:
    """Adds the state that enters a device from the devices before it to its first increment."""
    first, last = (-1, 0) if reverse else (0, -1)
    own = jnp.prod(a, axis=0), _solve(a, b, reverse, tree)[last]
    factors, increments = jax.lax.all_gather(own, axis_name)  # [devices, ...]
    ends = _before(_solve(factors, increments, reverse, tree), reverse, None)
    entering = jax.lax.dynamic_index_in_dim(ends, jax.lax.axis_index(axis_name), keepdims=False)
    return b.at[first].add(a[first] * entering)


def _loop(a: Array, b: Array, reverse: bool) -> Array:
    def step(h, slices):
        a, b = slices
        h = a * h + b
        return h, h

    return jax.lax.scan(step, jnp.zeros_like(b[0]), (a, b), reverse=reverse)[1]


def _transposed_loop(a: Array, b: Array, reverse: bool) -> Array:
    """h[t] = a[t+1] h[t+1] + b[t]; the carry is the product, which avoids a shifted copy of a."""

    def step(carried, slices):
        a, b = slices
        h = carried + b
        return a * h, h

    return jax.lax.scan(step, jnp.zeros_like(b[0]), (a, b), reverse=not reverse)[1]


def _steps(a, b, h: Array | None) -> list[Array]:
    """A few unrolled steps."""
    hs = []
    for factor, increment in zip(a, b, strict=True):
        h = increment if h is None else factor * h + increment
        hs.append(h)
    return hs


def _tree(a: Array, b: Array) -> Array:
    """A tree: blocks of `RADIX` steps are combined to one step each, a smaller instance.

    Unlike `jax.lax.associative_scan`, it does not compute the unused products of all a from the
    beginning.
    """
    time = b.shape[0]
    if time <= RADIX:
        return jnp.stack(_steps(a, b, None))
    whole = time - time % RADIX
    factors, increments = (
        [x[:whole].reshape(-1, RADIX, *x.shape[1:])[:, n] for n in range(RADIX)] for x in (a, b)
    )
    factor, increment = functools.reduce(combine, zip(factors, increments, strict=True))
    ends = _tree(factor, increment)
    hs = jnp.stack(_steps(factors, increments, _before(ends, False, None)), axis=1)
    hs = hs.reshape(whole, *b.shape[1:])
    if whole == time:
        return hs
    return jnp.concatenate([hs, jnp.stack(_steps(a[whole:], b[whole:], ends[-1]))])
