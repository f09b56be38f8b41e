"""Masks, lengths and starts of sequences."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree


class MaskedInput(NamedTuple):
    """The input of one step of a `Masked` cell; None is no mask, or no starts."""

    x: PyTree
    valid: Array | None = None  # bool [*batch]
    start: Array | None = None  # bool [*batch]


def select(where: Array, on_true: Array, on_false: Array) -> Array:
    """Selects whole batch rows: ``where`` is ``[*batch]``, the leaves ``[*batch, ...]``."""
    where = where.reshape(where.shape + (1,) * (on_false.ndim - where.ndim))
    return jnp.where(where, on_true, on_false)


def zero_skipped(xs: PyTree, valid: Array | None) -> PyTree:
    """Replaces the values at skipped steps, NaN included, by zeros."""
    if valid is None:
        return xs
    return jax.tree.map(lambda leaf: select(valid, leaf, jnp.zeros_like(leaf)), xs)


def valid_steps(xs: PyTree, lengths: Any, mask: Any) -> Array | None:
    """The mask ``[time, *batch]`` of checked lengths or a checked mask; None without either."""
    if lengths is None:
        return None if mask is None else jnp.asarray(mask)
    lengths = jnp.asarray(lengths)
    steps = jnp.arange(jnp.shape(jax.tree.leaves(xs)[0])[0])
    return steps.reshape(-1, *(1 for _ in lengths.shape)) < lengths.astype(steps.dtype)


def safe_inputs(xs: PyTree, mask: Array) -> PyTree:
    """Replaces the inputs of skipped steps by valid inputs, so that no step produces NaN.

    Masking the result of a skipped step is not enough: the derivative of the branch that was not
    selected is 0 · ∞ if the step overflowed. So a skipped step gets the inputs of the first valid
    step of its row, else those of the first row that has one, else, if no step is valid, constants;
    integers too, since a token out of range may have no embedding.

    Shapes:
        mask bool ``[time, *batch]``, leaves of xs ``[time, *batch, ...]``.
    """
    if mask.size == 0:
        return xs
    axes = tuple(range(mask.ndim - 1))  # of the batch
    # A masked sum instead of indexing keeps a sharded batch on its devices.
    first = _first(mask, 0)  # the step of each row to copy
    nonempty = mask.any(axis=0)
    donor = _first(nonempty, axes)  # the row to copy for rows without a valid step

    def safe(leaf: Array) -> Array:
        fixed = jax.lax.stop_gradient(leaf)
        own = _sum(first, fixed, 0)
        other = _sum(donor, own, axes)
        other = jnp.where(nonempty.any(), other, _regular(other))
        substitute = select(nonempty, own, jnp.broadcast_to(other, own.shape))
        return select(mask, leaf, jnp.broadcast_to(substitute, leaf.shape))

    return jax.tree.map(safe, xs)


def _first(flags: Array, axes: int | tuple[int, ...]) -> Array:
    """True at the first True along the axes."""
    order = jnp.arange(flags.size).reshape(flags.shape)
    return flags & (order == jnp.where(flags, order, flags.size).min(axis=axes, keepdims=True))


def _sum(where: Array, leaf: Array, axes: int | tuple[int, ...]) -> Array:
    """The sum over the axes of the rows where a flag is True, in the dtype of the leaf."""
    return select(where, leaf, jnp.zeros_like(leaf)).sum(axis=axes, dtype=leaf.dtype)


def _regular(leaf: Array) -> Array:
    """Values that are neither zero nor constant: there norms and variances have no derivative."""
    if leaf.ndim == 0 or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return jnp.broadcast_to(jnp.linspace(0.25, 0.75, leaf.shape[-1], dtype=leaf.dtype), leaf.shape)


def effective_starts(starts: Array, mask: Array | None, reverse: bool) -> Array:
    """Moves every start to the next valid step, before which it resets the state.

    Forward, the state is reset before valid step t if a start lies in (p, t], where p is the valid
    step processed before t (-1 at first); in reverse, if one lies in (t, p] (p = time - 1 at
    first). With c[t] the number of starts up to t, that is c[t] ≠ c[p]; and c at the valid step
    before is a running maximum, or minimum in reverse, because c never falls.

    Shapes:
        starts, mask and the result are bool ``[time, *batch]``.
    """
    if starts.shape[0] == 0:
        return starts
    valid = jnp.ones_like(starts) if mask is None else mask
    count = jnp.cumsum(starts, axis=0, dtype=jnp.int32)
    if reverse:
        last = count[-1:]
        seen = jax.lax.cummin(jnp.where(valid, count, last), axis=0, reverse=True)
        before = jnp.concatenate([seen[1:], last])
    else:
        seen = jax.lax.cummax(jnp.where(valid, count, 0), axis=0)
        before = jnp.concatenate([jnp.zeros_like(count[:1]), seen[:-1]])
    return (count != before) & valid
