"""Initial eigenvalues and step sizes of linear recurrences; part of `jaxrnn.initializers`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._arguments import check_size
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array


@frozen
class UnitRing:
    """Complex numbers spread evenly over a ring around zero, as rows of radius and phase.

        r² ~ U(min_radius², max_radius²),   θ ~ U(0, max_phase)

    The eigenvalues of a linear recurrence: near the unit circle they remember for long, and a
    smaller phase slows their turning.

    Args:
        min_radius: the inner radius; at least 0.
        max_radius: the outer radius; at most 1.
        max_phase: the largest phase, in radians.

    Raises:
        ValueError: not ``0 <= min_radius < max_radius <= 1``, or a phase that is not positive.

    Example:
        >>> import jax
        >>> radius, phase = UnitRing(0.9, 0.99)(jax.random.key(0), (2, 100), "float32")
        >>> bool((radius > 0.9).all() & (radius < 0.99).all())
        True

    References:
        A. Orvieto et al., "Resurrecting recurrent neural networks for long sequences", 2023.
    """

    min_radius: float = 0.0
    max_radius: float = 1.0
    max_phase: float = 2 * math.pi

    def __post_init__(self):
        if not 0 <= self.min_radius < self.max_radius <= 1:
            raise ValueError(
                "min_radius and max_radius must lie between 0 and 1, in order, got "
                f"{self.min_radius!r} and {self.max_radius!r}"
            )
        if not self.max_phase > 0:
            raise ValueError(f"max_phase must be positive, got {self.max_phase!r}")

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws radii and phases ``[2, size]``, both positive."""
        # Never exactly 0: cells keep the logarithms of these numbers.
        draws = jax.random.uniform(key, shape, dtype, minval=jnp.finfo(dtype).tiny)
        inner, outer = self.min_radius**2, self.max_radius**2
        radius = jnp.sqrt(draws[0] * (outer - inner) + inner)
        return jnp.stack([radius, self.max_phase * draws[1]])


@frozen
class HippoN:
    """The eigenvalues of the normal part of the HiPPO-LegS matrix, one of each conjugate pair.

    Rows of real and imaginary parts. The matrix, of size 2·size / ``blocks``, compresses the past
    of a signal into Legendre polynomials; ``blocks`` copies of it stand on the diagonal.

    Raises:
        ValueError: ``blocks`` is not positive, or does not divide the size.

    Example:
        >>> import jax
        >>> print(HippoN()(jax.random.key(0), (2, 2), "float32")[1])
        [-4.6032... -0.5565...]

    References:
        J. Smith, A. Warrington and S. Linderman, "Simplified state space layers for sequence
        modeling", 2022.
    """

    blocks: int = 1

    def __post_init__(self):
        check_size("blocks", self.blocks)

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Returns the eigenvalues ``[2, size]``."""
        size = shape[-1]
        if size % self.blocks:
            raise ValueError(
                f"blocks must divide the number of eigenvalues, got blocks={self.blocks} for "
                f"{size} of them"
            )
        n = np.arange(2 * size // self.blocks)
        root = np.sqrt(2 * n + 1)
        # HiPPO-LegS plus a term of rank one leaves -1/2 on the diagonal and a skew rest.
        skew = np.tril(-np.outer(root, root), -1) / 2
        skew = skew - skew.T
        imaginary = np.linalg.eigvalsh(-1j * skew)[: len(n) // 2]
        imaginary = np.tile(imaginary, self.blocks)
        return jnp.asarray(np.stack([np.full(size, -0.5), imaginary]), dtype)


@frozen
class RotaryPhases:
    """Phases base^(-2 i / size) along the last axis, from fast to slow, as in rotary embeddings.

    References:
        J. Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
    """

    base: float = 10_000.0

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Returns the phases."""
        exponents = -2 * jnp.arange(shape[-1], dtype=dtype) / shape[-1]
        return jnp.broadcast_to(jnp.asarray(self.base, dtype) ** exponents, shape)


@frozen
class LogUniform:
    """Positive draws whose logarithm is uniform between those of ``low`` and ``high``.

    The usual choice for the step sizes of state space models.

    Raises:
        ValueError: not ``0 < low <= high``.
    """

    low: float = 0.001
    high: float = 0.1

    def __post_init__(self):
        if not 0 < self.low <= self.high:
            raise ValueError(
                f"low and high must be positive and in order, got {self.low!r} and {self.high!r}"
            )

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws the array."""
        low, high = math.log(self.low), math.log(self.high)
        return jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
