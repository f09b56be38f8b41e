"""Linear recurrences with block-diagonal matrices, parallel over time."""

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array

UNROLLED = 4
"""Blocks up to this size are multiplied by unrolled elementwise operations, vectorized over lanes;
larger ones by batched matrix products."""


def block_recurrence(a: Array, b: Array, *, reverse: bool = False) -> Array:
    """All h of h[t] = a[t] h[t-1] + b[t], from h[-1] = 0; a matrix recurrence in every lane.

    The map of an interval, h → a h + b, is (a, b); that of two consecutive intervals is
    (a₂ a₁, a₂ b₁ + b₂). This is associative, so a parallel scan takes log time steps.

    Args:
        a: the matrices.
        b: the increments.
        reverse: h[t] = a[t] h[t+1] + b[t], from the end.

    Shapes:
        a ``[time, size, size, *lanes]``, b and the result ``[time, size, *lanes]``.
    """
    size = a.shape[1]
    if size <= UNROLLED:
        return jax.lax.associative_scan(_combine_elements, (a, b), reverse=reverse)[1]
    a, b = jnp.moveaxis(a, (1, 2), (-2, -1)), jnp.moveaxis(b, 1, -1)[..., None]
    h = jax.lax.associative_scan(_combine_matrices, (a, b), reverse=reverse)[1]
    return jnp.moveaxis(h[..., 0], -1, 1)


def transposed_matrices(a: Array, *, reverse: bool = False) -> Array:
    """The matrices of the transposed recurrence, which runs in the other direction: shifted aᵀ."""
    a, zero = jnp.swapaxes(a, 1, 2), jnp.zeros_like(a[:1])
    return jnp.concatenate([zero, a[:-1]] if reverse else [a[1:], zero])


def _combine_elements(earlier, later):
    (a1, b1), (a2, b2) = earlier, later
    columns = range(a2.shape[2])
    a = sum(a2[:, :, j, None] * a1[:, None, j] for j in columns)
    return a, sum(a2[:, :, j] * b1[:, None, j] for j in columns) + b2


def _combine_matrices(earlier, later):
    (a1, b1), (a2, b2) = earlier, later
    return _matmul(a2, a1), _matmul(a2, b1) + b2


def _matmul(a: Array, b: Array) -> Array:
    # Rounding errors accumulate over time, so reduced precision is not used.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
