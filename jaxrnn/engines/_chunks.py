"""Time in chunks: one after the other, with nothing kept of a chunk but where it began."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._cell import Array, PyTree
from jaxrnn.wrappers.masked import Masked, MaskedInput, select, zero_skipped


def in_chunks(
    run: Callable[[Any, Any], tuple[Any, Any]], state: Any, xs: Any, every: int, reverse: bool
) -> tuple[Any, Any]:
    """Does ``run(state, xs) -> (state, ys)`` chunk by chunk; the last chunk may be shorter.

    The backward pass does each chunk again, and needs the states between chunks only.
    """
    time = jax.tree.leaves(xs)[0].shape[0]
    if time <= every:
        return run(state, xs)
    whole = time - time % every
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, every, *x.shape[1:]), xs)
    run = jax.checkpoint(run)

    def many(state):
        state, ys = jax.lax.scan(run, state, chunks, reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)

    if whole == time:
        return many(state)
    rest = jax.tree.map(lambda x: x[whole:], xs)
    if reverse:
        state, last = run(state, rest)
        state, first = many(state)
    else:
        state, first = many(state)
        state, last = run(state, rest)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, last)


def masked_chunks(
    cell: Any,
    params: PyTree,
    state: PyTree,
    xs: PyTree,
    valid: Array,
    every: int,
    remainder: Callable[..., tuple[PyTree, PyTree]],
) -> tuple[PyTree, PyTree]:
    """Chunks of a `ChunkedCell` under a mask, forward in time, without starts.

    Each row's valid steps are moved together, so that it has some whole chunks, after which its
    state is held, and then fewer steps than a chunk. These are taken by an engine that knows masks.
    """
    time, batch_shape = valid.shape[0], valid.shape[1:]
    every = min(every, time)
    count = valid.sum(axis=0, dtype=jnp.int32)
    chunked = count - count % every  # of each row, the steps in whole chunks
    xs = rows(xs, jnp.argsort(~valid, axis=0, stable=True))

    def run(state, slices):
        xs, ends = slices
        new, ys = cell.chunk(params, state, xs)
        reached = ends[-1] < chunked
        return jax.tree.map(lambda n, s: select(reached, n, s), new, state), ys

    whole = time - time % every
    ticks = jnp.broadcast_to(
        jnp.arange(whole, dtype=jnp.int32).reshape(-1, *(1 for _ in batch_shape)),
        (whole, *batch_shape),
    )
    state, ys = in_chunks(
        run, state, (jax.tree.map(lambda x: x[:whole], xs), ticks), every, reverse=False
    )

    later = chunked + ticks[:every]
    left = MaskedInput(rows(xs, jnp.minimum(later, time - 1)), later < count)
    state, others = remainder(Masked(cell), params, state, left)

    place = jnp.maximum(jnp.cumsum(valid, axis=0, dtype=jnp.int32) - 1, 0)

    def put_back(y, other):
        y = rows(y, jnp.minimum(place, whole - 1))
        other = rows(other, jnp.clip(place - chunked, 0, every - 1))
        return zero_skipped(select(place < chunked, y, other), valid)

    return state, jax.tree.map(put_back, ys, others)


def rows(tree: PyTree, times: Array) -> PyTree:
    """Of each row, the steps at these times.

    Shapes:
        leaves ``[time, *batch, ...]``, times int ``[n, *batch]`` -> ``[n, *batch, ...]``.
    """

    def of_row(leaf, times):
        return leaf[times]

    for _ in times.shape[1:]:
        of_row = jax.vmap(of_row, in_axes=1, out_axes=1)
    return jax.tree.map(lambda leaf: of_row(leaf, times), tree)
