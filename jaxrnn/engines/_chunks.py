"""Processes a sequence in chunks of time, one after the other."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._masking import select, zero_skipped
from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._sharding import equally_varying
from jaxrnn._typing import Array, PyTree


def in_chunks(
    run: Callable[[Any, Any, Any], tuple[Any, Any]],
    shared: Any,
    state: Any,
    xs: Any,
    every: int,
    reverse: bool,
    *,
    checkpoint: bool = True,
) -> tuple[Any, Any]:
    """Applies ``run(shared, state, xs) -> (state, ys)`` chunk by chunk; the last may be shorter.

    With ``checkpoint``, the backward pass recomputes each chunk and keeps only the states between.
    The gradients of ``shared`` are added up in 32 bits at least: in 16 bits their sum would be
    rounded with each chunk.
    """
    time = jax.tree.leaves(xs)[0].shape[0]
    if time <= every:
        return run(shared, state, xs)
    whole = time - time % every
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, every, *x.shape[1:]), xs)
    wide = jax.tree.map(_in_32_bits, shared)

    def run_chunk(state, xs):
        return run(jax.tree.map(_cast_like, wide, shared), state, xs)

    if checkpoint:
        run_chunk = jax.checkpoint(run_chunk)

    def run_whole(state):
        state, ys = jax.lax.scan(run_chunk, state, chunks, reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)

    if whole == time:
        return run_whole(state)
    remainder = jax.tree.map(lambda x: x[whole:], xs)
    if reverse:
        state, last = run_chunk(state, remainder)
        state, first = run_whole(state)
    else:
        state, first = run_whole(state)
        state, last = run_chunk(state, remainder)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, last)


def _in_32_bits(x: Array) -> Array:
    return x.astype("float32") if is_inexact(x) and x.dtype.itemsize < 4 else x


def _cast_like(x: Array, like: Array) -> Array:
    return x if x.dtype == like.dtype else x.astype(like.dtype)


def chunks_over_devices(
    cell: Any, params: PyTree, state: PyTree, xs: PyTree, every: int, reverse: bool, axis_name: str
) -> tuple[PyTree, PyTree]:
    """Chunks of a `SpannedCell`, whose time is sharded over a manual mesh axis.

    Each device computes the span of its own part, receives all spans, and so finds the state that
    enters its part, which then runs as on one device.

    Returns:
        ``(state, ys)``: the state after the part of each device, and its outputs.
    """
    spans = jax.lax.all_gather(cell.span(params, xs), axis_name)  # [devices, ...]
    place = jax.lax.axis_index(axis_name)
    state, spans = equally_varying((state, spans))

    def follow(state, span):
        return cell.after_span(state, span), state

    _, entering = jax.lax.scan(follow, state, spans, reverse=reverse)
    own = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, place, 0, False), entering)
    return in_chunks(cell.chunk, params, own, xs, every, reverse=False)


def masked_chunks(
    cell: Any, params: PyTree, state: PyTree, xs: PyTree, valid: Array, every: int
) -> tuple[PyTree, PyTree]:
    """Chunks of a `ChunkedCell` under a mask, forward in time, without starts.

    The closed form of a chunk cannot skip steps, so the valid steps of each row are compacted. Each
    row runs as many whole chunks as it has valid steps for, and holds its state until all rows are
    done; the remainder runs in chunks of an eighth of the size, and so on down to single steps.
    """
    time = valid.shape[0]
    count = valid.sum(axis=0, dtype=jnp.int32)
    place = jnp.maximum(jnp.cumsum(valid, axis=0, dtype=jnp.int32) - 1, 0)
    xs = _gather_steps(xs, jnp.argsort(~valid, axis=0, stable=True))

    done, outputs = jnp.zeros_like(count), None
    size = min(every, time)
    slots = time // size
    while size:
        taken = (count - done) // size * size
        steps = jnp.arange(slots * size, dtype=jnp.int32).reshape(-1, *(1 for _ in count.shape))
        steps = jnp.broadcast_to(steps, (slots * size, *count.shape))
        run = functools.partial(_chunk_or_hold, cell, taken)
        slices = _gather_steps(xs, jnp.minimum(done + steps, time - 1)), steps
        state, ys = in_chunks(run, params, state, slices, size, reverse=False)

        gathered = _gather_steps(ys, jnp.clip(place - done, 0, slots * size - 1))
        outputs = gathered if outputs is None else _select(place < done, outputs, gathered)
        done = done + taken
        smaller = max(1, size // 8) if size > 1 else 0
        slots, size = (size - 1) // max(1, smaller), smaller
    return state, zero_skipped(outputs, valid)


def _chunk_or_hold(
    cell: Any, taken: Array, params: PyTree, state: PyTree, slices: tuple[PyTree, Array]
):
    """A chunk, for the rows that have enough steps left; the others keep their state."""
    xs, steps = slices
    new, ys = cell.chunk(params, state, xs)
    return _select(steps[-1] < taken, new, state), ys


def _select(where: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    return jax.tree.map(lambda t, f: select(where, t, f), on_true, on_false)


def _gather_steps(tree: PyTree, times: Array) -> PyTree:
    """Gathers the steps at these times, for each row.

    Shapes:
        leaves ``[time, *batch, ...]``, times int ``[n, *batch]`` -> ``[n, *batch, ...]``.
    """

    def of_row(leaf, times):
        return leaf[times]

    for _ in times.shape[1:]:
        of_row = jax.vmap(of_row, in_axes=1, out_axes=1)
    return jax.tree.map(lambda leaf: of_row(leaf, times), tree)
