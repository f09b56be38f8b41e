"""Activations as module-level functions, so that the cells that hold them pickle."""

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array

__all__ = ["identity", "positive", "relu", "tanh"]


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return jnp.tanh(x)


def relu(x: Array) -> Array:
    """max(x, 0), with derivative 0 at 0."""
    return jnp.where(x > 0, x, jnp.zeros_like(x))


def identity(x: Array) -> Array:
    """``x`` itself."""
    return x


def positive(x: Array) -> Array:
    """X + 1/2 where x ≥ 0, σ(x) elsewhere: increasing, continuous and never negative."""
    return jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))


SAME = {"tanh": (tanh, jnp.tanh, jax.nn.tanh), "relu": (relu, jax.nn.relu)}
"""The functions that compute the same, by the name that frameworks give them."""
