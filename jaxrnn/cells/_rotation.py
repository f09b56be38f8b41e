"""The exponential of a skew-symmetric matrix, which is a rotation, by matrix products alone.

`jax.scipy.linalg.expm` solves linear systems, whose gradient hangs over several devices of a CPU
with jaxlib 0.10.2; and under `jax.vmap` it computes approximations of all orders, to choose one.
"""

import functools
import math

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array

RADIUS, SQUARINGS = 0.7, 16
"""The norm up to which the polynomial is exact in float64 (0.7¹⁷ / 17! = 7e-18), and the most
squarings, for norms up to 45,000; the result for larger ones is NaN."""

_multiply = functools.partial(jnp.matmul, precision="highest")


def rotation(skew: Array) -> Array:
    """``exp(S)`` for ``S = -Sᵀ``: the Taylor polynomial of S / 2ⁿ, squared n times.

        V = p(S / 2ⁿ)^(2ⁿ),   p(S) = Σ_k S^k / k!,   k = 0, ..., 16
        exp(S) = (3 V - V Vᵀ V) / 2

    The polynomial takes six products: three powers, and Horner's rule in the fourth power.

    Args:
        skew: ``[n, n]``, float32 or float64.

    References:
        C. Moler and C. Van Loan, "Nineteen dubious ways to compute the exponential of a matrix,
        twenty-five years later", 2003, method 3. M. Paterson and L. Stockmeyer, "On the number of
        nonscalar multiplications necessary to evaluate polynomials", 1973.
    """
    norm = jnp.abs(jax.lax.stop_gradient(skew)).sum(axis=0).max()
    count = jnp.ceil(jnp.log2(jnp.maximum(norm / RADIUS, 1))).astype(jnp.int32)
    count = jnp.minimum(count, SQUARINGS + 1)
    skew = skew / jnp.left_shift(jnp.ones_like(count), count).astype(skew.dtype)
    powers = [jnp.eye(len(skew), dtype=skew.dtype), skew]
    for _ in range(3):
        powers.append(_multiply(powers[-1], skew))
    fourth = powers.pop()
    found = fourth / float(math.factorial(16))
    for first in (12, 8, 4, 0):
        found = found + sum(p / float(math.factorial(first + k)) for k, p in enumerate(powers))
        found = _multiply(found, fourth) if first else found

    def square(number: Array, matrix: Array) -> Array:
        squared = lambda matrix: _multiply(matrix, matrix)  # noqa: E731
        return jax.lax.cond(number < count, squared, lambda matrix: matrix, matrix)

    near = jax.lax.fori_loop(0, SQUARINGS, square, found)
    # Each squaring doubles the error; a step of Newton's method makes the result orthogonal again.
    found = 1.5 * near - 0.5 * _multiply(near, _multiply(near.T, near))
    return jnp.where(count <= SQUARINGS, found, jnp.nan)
