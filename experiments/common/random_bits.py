"""The random bits of `jax.random`, in one pass over memory.

On a CPU, JAX computes the rounds of Threefry in a loop over arrays of all numbers drawn. Written
out, they are one kernel that keeps its intermediate values in registers. The numbers are the same.

J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import random

_JAX = random.threefry_prng_impl
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    """Threefry-2x32 of the index of each number, in 20 rounds; the two results are joined."""
    partitionable = getattr(jax.config, "jax_threefry_partitionable")  # noqa: B009
    if not partitionable or bit_width > 32 or not shape or math.prod(shape) >= 2**32:
        return _JAX.random_bits(key, bit_width, shape)
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA)
    index = jnp.zeros(shape, "uint32")
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]))
        index = index + stride * lax.broadcasted_iota("uint32", shape, axis)
    x, y = jnp.zeros(shape, "uint32") + keys[0], index + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ (y << jnp.uint32(rotation) | y >> jnp.uint32(32 - rotation))
        x = x + keys[(group + 1) % 3]
        y = y + (keys[(group + 2) % 3] + jnp.uint32(group + 1))
    return (x ^ y).astype(f"uint{bit_width}")


THREEFRY = random.define_prng_impl(
    key_shape=_JAX.key_shape,
    seed=_JAX.seed,
    split=_JAX.split,
    random_bits=_random_bits,
    fold_in=_JAX.fold_in,
    name="threefry2x32_in_one_pass",
    tag="fry1",
)
"""An `impl` of `jax.random.key`, with the numbers of the default one."""
