"""The linear recurrent unit."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
from jaxrnn._frozen import frozen
from jaxrnn._numerics import complex_state_dtype, packed_kernel, product, state_dtype, widen
from jaxrnn._typing import Array, Initializer


class LRUParams(NamedTuple):
    """Parameters of `LRU`; complex numbers are stored as real pairs."""

    log_decay: Array  # [hidden], ν
    log_phase: Array  # [hidden], θ
    log_scale: Array  # [hidden], log γ
    input_kernel: Array  # [input, 2 * hidden], the real and the imaginary parts of B
    output_kernel: Array  # [2 * hidden, output], the real and the imaginary parts of C
    feedthrough_kernel: Array  # [input, output], D


class LRUState(NamedTuple):
    """State of `LRU`."""

    hidden: Array  # complex [*batch, hidden]


@frozen
class LRU:
    """The linear recurrent unit: a diagonal, complex, stable linear recurrence.

        λ = exp(-e^ν + i e^θ)
        h' = λ h + γ (x B)
        y = Re(h' C) + x D

    |λ| < 1 for every ν. γ is learned through its logarithm and initialized to √(1 - |λ|²), so that
    the state has the scale of the input for every decay rate.

    Args:
        hidden_size: complex numbers in the state.
        output_size: features of the output; ``hidden_size`` by default.
        eigenvalue_init: initializer of |λ| and its phase as ``[2, hidden]``; default: the unit
            disc. For long sequences use e.g. ``UnitRing(0.9, 0.999, max_phase=0.314)``.
        kernel_init: initializer of B, real and imaginary parts drawn separately and divided by √2;
            default: LeCun normal.
        output_init: initializer of C, real and imaginary parts drawn separately; default: LeCun
            normal.
        feedthrough_init: initializer of D; default: LeCun normal.

    Shapes:
        x ``[*batch, input]``, state ``LRUState(hidden)`` complex ``[*batch, hidden]``,
        y ``[*batch, output]``.

    Raises:
        TypeError, ValueError: a size is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LRU(hidden_size=8, output_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> jax.numpy.iscomplexobj(final.hidden), final.hidden.shape, ys.shape
        (True, (2, 8), (7, 2, 4))

    References:
        A. Orvieto et al., "Resurrecting recurrent neural networks for long sequences", 2023,
        sections 3.2 to 3.4, eq. 7.

    Note:
        As in the paper, the logarithm of the phase is learned. The paper's pseudocode has a
        diagonal D; here D is a full matrix, so that input and output may differ in size.
    """

    hidden_size: int
    output_size: int | None = None
    eigenvalue_init: Initializer = initializers.UnitRing()
    kernel_init: Initializer = initializers.LecunNormal()
    output_init: Initializer = initializers.LecunNormal()
    feedthrough_init: Initializer = initializers.LecunNormal()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        if self.output_size is None:
            object.__setattr__(self, "output_size", self.hidden_size)
        check_size("output_size", self.output_size)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LRUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        hidden, output = self.hidden_size, self.output_size or self.hidden_size
        keys = jax.random.split(key, 4)
        radius, phase = self.eigenvalue_init(keys[0], (2, hidden), state_dtype(dtype))
        log_scale = jnp.log(1 - radius**2) / 2
        b = packed_kernel(self.kernel_init, keys[1], (input_size, hidden), 2, dtype)
        c = [self.output_init(k, (hidden, output), dtype) for k in jax.random.split(keys[2])]
        d = self.feedthrough_init(keys[3], (input_size, output), dtype)
        return LRUParams(
            jnp.log(-jnp.log(radius)).astype(dtype),
            jnp.log(phase).astype(dtype),
            log_scale.astype(dtype),
            b / math.sqrt(2),
            jnp.concatenate(c),
            d,
        )

    def init_state(self, params: LRUParams, batch_shape: tuple[int, ...] = ()) -> LRUState:
        """Returns zeros."""
        dtype = complex_state_dtype(params.log_decay.dtype)
        return LRUState(jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def affine(self, params: LRUParams, x: Array) -> tuple[LRUState, LRUState]:
        """Returns λ and γ (x B)."""
        nu, theta, log_gamma = map(widen, params[:3])
        a = jnp.exp(jax.lax.complex(-jnp.exp(nu), jnp.exp(theta)))
        real, imaginary = jnp.split(product(x, params.input_kernel), 2, axis=-1)
        gamma = jnp.exp(log_gamma)
        return LRUState(a), LRUState(jax.lax.complex(gamma * real, gamma * imaginary))

    def readout(self, params: LRUParams, state: LRUState, x: Array) -> Array:
        """Returns Re(h C) + x D."""
        h = jnp.concatenate([state.hidden.real, -state.hidden.imag], axis=-1)
        y = product(h, params.output_kernel) + product(x, params.feedthrough_kernel)
        return y.astype(params.output_kernel.dtype)

    def step(self, params: LRUParams, state: LRUState, x: Array) -> tuple[LRUState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)
