"""The participation ratio: how many dimensions the states of a network occupy."""

import jax
import jax.numpy as jnp

from jaxrnn._schedule.flat_state import FlatState
from jaxrnn._typing import Array, PyTree
from jaxrnn._validation import as_arrays


def participation_ratio(states: PyTree) -> Array:
    """The number of dimensions that states occupy, from the eigenvalues of their covariance.

        PR = (Σ λ_i)² / Σ λ_i² = tr(C)² / tr(C²)

    with λ_i the eigenvalues of the covariance C of the states: n for states with the same variance
    in all of n directions, 1 for states on a line.

    Args:
        states: an array ``[*samples, features]``, or a pytree of such arrays that share the axes of
            samples, for instance the states ``[time, *batch, features]`` of `wrappers.EmitState`.
            All features together are one vector; a complex feature is two real ones.

    Returns:
        The ratio, a scalar; NaN where all states are equal.

    Raises:
        TypeError: ``states`` holds no floating-point arrays.
        ValueError: the arrays do not share the axes of samples, or there are fewer than 2 samples.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> states = jax.random.normal(jax.random.key(0), (100_000, 8))
        >>> round(float(rnn.analysis.participation_ratio(states)))
        8

    References:
        P. Gao, E. Trautmann, B. Yu, G. Santhanam, S. Ryu, K. Shenoy and S. Ganguli, "A theory of
        multineuronal dimensionality, dynamics and measurement", 2017.
    """
    leaves = jax.tree.leaves(as_arrays("states", states))
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves):
        dtypes = [str(leaf.dtype) for leaf in leaves]
        raise TypeError(f"states must hold floating-point arrays, got arrays of {dtypes}")
    shapes = [leaf.shape for leaf in leaves]
    if min(map(len, shapes)) < 2 or len({shape[:-1] for shape in shapes}) > 1:
        raise ValueError(
            "states must be arrays [*samples, features] that share the axes of samples, got the "
            f"shapes {shapes}; flatten states with several axes of features"
        )
    layout = FlatState.of(leaves, len(shapes[0]) - 1)
    vectors = layout.pack(leaves).reshape(-1, layout.size)
    if jnp.finfo(vectors.dtype).bits < 32:
        vectors = vectors.astype(jnp.float32)
    if len(vectors) < 2:
        raise ValueError(f"states must hold 2 or more samples, got {len(vectors)}")
    centered = vectors - vectors.mean(axis=0)
    centered = centered / jnp.abs(centered).max()  # their fourth powers are added below
    # The smaller of the two Gram matrices, which have the same nonzero eigenvalues.
    samples, features = centered.shape
    gram = centered.T @ centered if features <= samples else centered @ centered.T
    return jnp.trace(gram) ** 2 / jnp.sum(gram * gram)
