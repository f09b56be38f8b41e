"""Helpers of the multi-head cells: heads, and decays within a chunk."""

import jax.numpy as jnp

from jaxrnn._arguments import check_size
from jaxrnn._typing import Array


def check_heads(hidden_size: int, key_size: int, num_heads: int) -> None:
    """Raises unless ``num_heads`` divides the features of values and of keys."""
    for name, size in (("hidden_size", hidden_size), ("key_size", key_size)):
        check_size(name, size)
        check_size("num_heads", num_heads)
        if size % num_heads:
            raise ValueError(
                f"num_heads must divide {name}, got num_heads={num_heads} for {name}={size}; "
                f"both sizes count the features of all heads"
            )


def split_heads(x: Array, num_heads: int) -> Array:
    """``[*batch, heads * size]`` -> ``[*batch, heads, size]``."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def chunk_heads(x: Array, num_heads: int) -> Array:
    """``[time, *batch, heads * size]`` -> ``[*batch, heads, time, size]``."""
    return jnp.moveaxis(split_heads(x, num_heads), 0, -2)


def join_heads(x: Array) -> Array:
    """``[*batch, heads, size]`` -> ``[*batch, heads * size]``."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def join_chunk(x: Array) -> Array:
    """``[*batch, heads, time, size]`` -> ``[time, *batch, heads * size]``."""
    return join_heads(jnp.moveaxis(x, -2, 0))


def causal(time: int, strict: bool = False) -> Array:
    """The mask ``[time, time]`` of the steps s up to (or before) step t, at ``[t, s]``."""
    return jnp.tri(time, k=-1 if strict else 0, dtype=bool)


def segment_sums(x: Array) -> Array:
    """``[..., time]`` -> ``[..., time, time]``: at ``[t, s]``, the sum over the steps after s to t.

    Each interval is summed directly: differences of cumulative sums lose all digits once a chunk
    contains a nearly closed gate. Zero for s ≥ t.
    """
    later = causal(x.shape[-1], strict=True)
    return jnp.cumsum(jnp.where(later, x[..., :, None], jnp.zeros_like(x[..., :, None])), axis=-2)


def sums_after(x: Array) -> Array:
    """``[..., time]``: at each step, the sum over the steps after it; no differences."""
    later = jnp.concatenate([x[..., 1:], jnp.zeros_like(x[..., :1])], axis=-1)
    return jnp.flip(jnp.cumsum(jnp.flip(later, -1), axis=-1), -1)
