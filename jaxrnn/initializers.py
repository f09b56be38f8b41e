"""Initial values of kernels and biases, as values that compare equal and pickle.

Each is a frozen dataclass that is called as ``initializer(key, shape, dtype)``, the convention of
`jax.nn.initializers`, whose functions are accepted wherever these are. A cell with packed gates
draws each gate's kernel block ``[rows, columns]`` alone, and hands a bias initializer the shape
``[gates, size]``, a row a gate.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._eigenvalues import HippoN as HippoN
from jaxrnn._eigenvalues import LogUniform as LogUniform
from jaxrnn._eigenvalues import RotaryPhases as RotaryPhases
from jaxrnn._eigenvalues import UnitRing as UnitRing
from jaxrnn._frozen import frozen
from jaxrnn._numerics import state_dtype
from jaxrnn._typing import Array, Initializer


@frozen
class Constant:
    """Every element is ``value``; 0 by default.

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
        Hidden is read off the last axis of a gate's block. PyTorch adds two such biases where
        these cells hold one.
    """

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws the array."""
        bound = 1 / math.sqrt(shape[-1])
        return jax.random.uniform(key, shape, dtype, -bound, bound)


@frozen
class Orthogonal:
    """Random matrices with orthonormal rows or columns (whichever are fewer), times ``scale``.

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
    """A packed bias that is ``base``, with ``value`` added to the row of the forget gate.

    A positive bias holds the gate open at first, so that gradients live through many steps.

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
    """A packed bias whose gates remember for up to ``max_time`` steps.

        b_f = log U(1, max_time - 1),   b_i = -b_f,   0 elsewhere

    A gate σ(b) forgets with time constant 1 / (1 - σ(b)), so the constants of the units spread
    evenly over the lags of the task.

    Args:
        max_time: the longest lag of the task, in steps; more than 2.
        forget_gate: the row of the gate that keeps the state: LSTM's f, or GRU's z (also row 1).
        input_gate: the row of the gate that writes, or None where one gate does both (GRU).

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
    """A generator A whose exp(A - Aᵀ) turns each pair of units by an angle uniform in ±``bound``.

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
