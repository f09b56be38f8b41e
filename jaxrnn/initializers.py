"""Initializers of kernels and biases that compare equal and pickle.

Each is a frozen dataclass that is called as ``initializer(key, shape, dtype)``, the convention of
`jax.nn.initializers`, whose functions are accepted too. A cell with packed gates draws the kernel
block ``[rows, columns]`` of each gate separately, and calls a bias initializer with the shape
``[gates, size]``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._arguments import check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import state_dtype
from jaxrnn._typing import Array, Initializer


@frozen
class Constant:
    """A constant ``value``; default 0.

    Example:
        >>> import jax
        >>> print(Constant(0.5)(jax.random.key(0), (2,), "float32"))
        [0.5 0.5]
    """

    value: float = 0.0

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Returns the constant array."""
        return jnp.full(shape, self.value, dtype)


@frozen
class Normal:
    """Independent normal draws with mean 0 and standard deviation ``stddev``."""

    stddev: float = 0.01

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws the array."""
        return self.stddev * jax.random.normal(key, shape, dtype)


@frozen
class Uniform:
    """Independent uniform draws from ``[low, high)``."""

    low: float = -0.01
    high: float = 0.01

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws the array."""
        return jax.random.uniform(key, shape, dtype, self.low, self.high)


@frozen
class GlorotUniform:
    """Uniform in ±scale √(6 / (rows + columns)), the usual choice for input kernels.

    References:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010, eq. 16.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws a kernel ``[..., rows, columns]``."""
        return self.scale * jax.nn.initializers.glorot_uniform()(key, shape, dtype)


@frozen
class LecunNormal:
    """Truncated normal draws with variance scale² / rows.

    With scale 1 a product keeps the variance of its input.

    References:
        LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998, section 4.6.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws a kernel ``[..., rows, columns]``."""
        return self.scale * jax.nn.initializers.lecun_normal()(key, shape, dtype)


@frozen
class LecunUniform:
    """Uniform in ±√(3 / rows): the variance of `LecunNormal`, without its tails."""

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws a kernel ``[..., rows, columns]``."""
        return jax.nn.initializers.lecun_uniform()(key, shape, dtype)


@frozen
class PyTorchUniform:
    """Uniform in ±1/√hidden for kernels and biases alike, as `torch.nn.RNN`, `LSTM`, `GRU` draw.

    Note:
        The hidden size is the last axis of a gate's block. PyTorch adds two such biases; the cells
        here have one.
    """

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws the array."""
        bound = 1 / math.sqrt(shape[-1])
        return jax.random.uniform(key, shape, dtype, -bound, bound)


@frozen
class Orthogonal:
    """Random matrices with orthonormal rows or columns (the fewer of the two), times ``scale``.

    References:
        Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
        linear neural networks", 2013.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws a kernel ``[rows, columns]``; low precision is rounded from float32."""
        draw = jax.nn.initializers.orthogonal(self.scale)
        return draw(key, shape, state_dtype(dtype)).astype(dtype)


@frozen
class Identity:
    """The identity matrix times ``scale``.

    References:
        Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear
        units", 2015.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Returns a kernel ``[rows, columns]``."""
        return self.scale * jnp.eye(*shape, dtype=dtype)


@frozen
class ForgetBias:
    """The packed bias ``base`` plus ``value`` in the row of the forget gate.

    A positive bias initially opens the gate, so that gradients persist over many steps.

    References:
        Jozefowicz, Zaremba and Sutskever, "An empirical exploration of recurrent network
        architectures", 2015, section 3.3.

    Example:
        >>> import jax
        >>> print(ForgetBias(1.0)(jax.random.key(0), (4, 1), "float32")[:, 0])
        [0. 1. 0. 0.]
    """

    value: float = 1.0
    gate: int = 1
    base: Initializer = Constant()

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws a bias ``[gates, size]``."""
        return self.base(key, shape, dtype).at[self.gate].add(self.value)


@frozen
class Chrono:
    """Chrono initialization: a packed bias for memories of up to ``max_time`` steps.

        b_f = log U(1, max_time - 1),   b_i = -b_f,   0 elsewhere

    A gate σ(b) forgets with time constant 1 / (1 - σ(b)), so that the time constants of the units
    are distributed evenly over the lags of the task.

    Args:
        max_time: the longest lag of the task, in steps; more than 2.
        forget_gate: the row of the forget gate: f of an LSTM, or z of a GRU (also row 1).
        input_gate: the row of the input gate, or None if the forget gate replaces it (GRU).

    References:
        Tallec and Ollivier, "Can recurrent neural networks warp time?", 2018, eqs. 14 and 16.
    """

    max_time: int
    forget_gate: int = 1
    input_gate: int | None = 0

    def __post_init__(self):
        if not self.max_time > 2:
            raise ValueError(f"max_time must be more than 2 steps, got {self.max_time!r}")

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws a bias ``[gates, size]``."""
        lags = jax.random.uniform(key, shape[1:], dtype, 1, self.max_time - 1)
        bias = jnp.zeros(shape, dtype).at[self.forget_gate].set(jnp.log(lags))
        return bias if self.input_gate is None else bias.at[self.input_gate].set(-jnp.log(lags))


@frozen
class Linspace:
    """Values in equal steps from ``low`` to ``high`` along the last axis, both included.

    Example:
        >>> import jax
        >>> print(Linspace(3.0, 6.0)(jax.random.key(0), (4,), "float32"))
        [3. 4. 5. 6.]
    """

    low: float = 0.0
    high: float = 1.0

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Returns the array."""
        return jnp.broadcast_to(jnp.linspace(self.low, self.high, shape[-1], dtype=dtype), shape)


@frozen
class RandomRotations:
    """A generator A such that exp(A - Aᵀ) rotates pairs of units by angles uniform in ±``bound``.

    References:
        M. Henaff, A. Szlam and Y. LeCun, "Recurrent orthogonal networks and long-memory tasks",
        2016.

    Example:
        >>> import jax
        >>> print((RandomRotations()(jax.random.key(0), (3, 3), "float32") != 0).astype(int))
        [[0 1 0]
         [0 0 0]
         [0 0 0]]
    """

    bound: float = math.pi

    def __call__(self, key: Array, shape: tuple[int, int], dtype: Any) -> Array:
        """Draws a generator ``[size, size]``."""
        rows = jnp.arange(0, shape[0] - 1, 2)
        angles = jax.random.uniform(key, rows.shape, dtype, -self.bound, self.bound)
        return jnp.zeros(shape, dtype).at[rows, rows + 1].set(angles)


# Eigenvalues and step sizes of linear recurrences -------------------------------------------------


@frozen
class UnitRing:
    """Complex numbers uniform on a ring around zero, as rows of radius and phase.

        r² ~ U(min_radius², max_radius²),   θ ~ U(0, max_phase)

    For the eigenvalues of a linear recurrence: near the unit circle the memory is long, and a
    smaller phase means slower rotation.

    Args:
        min_radius: the inner radius; at least 0.
        max_radius: the outer radius; at most 1.
        max_phase: the largest phase, in radians.

    Raises:
        ValueError: not ``0 <= min_radius < max_radius <= 1``, or ``max_phase`` is not positive.

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
    of a signal into Legendre polynomials; ``blocks`` copies of it form a block diagonal.

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
    """Phases base^(-2 i / size) along the last axis, as in rotary position embeddings.

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
