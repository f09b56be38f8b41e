"""The simplified state space layer, S5."""

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


class S5Params(NamedTuple):
    """Parameters of `S5`; complex numbers are stored as real pairs."""

    eigenvalue_real: Array  # [hidden], Re Λ
    eigenvalue_imaginary: Array  # [hidden], Im Λ
    log_step: Array  # [hidden], log Δ
    input_kernel: Array  # [input, 2 * hidden], the real and the imaginary parts of B
    output_kernel: Array  # [2 * hidden, output], the real and the imaginary parts of C
    feedthrough_kernel: Array  # [input, output], D


class S5State(NamedTuple):
    """State of `S5`."""

    hidden: Array  # complex [*batch, hidden], one of each conjugate pair


def relative_expm1(z: Array) -> Array:
    """(e^z - 1) / z for complex z, and 1 at 0."""
    small = jnp.abs(z) < 1e-3
    safe = jnp.where(small, jnp.ones_like(z), z)
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5)))
    return jnp.where(small, series, jnp.expm1(safe) / safe)


@frozen
class S5:
    """The simplified state space layer (S5): dh/dt = Λ h + x B, discretized with step size Δ.

        h' = e^(ΛΔ) h + Λ⁻¹ (e^(ΛΔ) - 1) (x B)      (zero-order hold, with its limit Δ at Λ = 0)
        y = 2 Re(h' C) + x D

    The model is real: eigenvalues come in conjugate pairs, of which one is kept, and the factor 2
    accounts for the other. Each state has its own step size Δ, learned through its logarithm.

    Args:
        hidden_size: complex numbers in the state; half of the paper's state size.
        output_size: features of the output; ``hidden_size`` by default.
        eigenvalue_init: initializer of Re Λ and Im Λ as ``[2, hidden]``; default HiPPO-N.
            ``HippoN(blocks=J)`` is the paper's block-diagonal form.
        step_init: initializer of Δ; default: log-uniform in [0.001, 0.1].
        kernel_init: initializer of B, real and imaginary parts drawn separately and divided by √2;
            default: LeCun normal.
        output_init: initializer of C as ``[2 * hidden, output]``; default: LeCun normal.
        feedthrough_init: initializer of D; default: LeCun normal.

    Shapes:
        x ``[*batch, input]``, state ``S5State(hidden)`` complex ``[*batch, hidden]``,
        y ``[*batch, output]``.

    Raises:
        TypeError, ValueError: a size is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.S5(hidden_size=8, output_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> final.hidden.shape, ys.shape
        ((2, 8), (7, 2, 4))

    References:
        J. Smith, A. Warrington and S. Linderman, "Simplified state space layers for sequence
        modeling", 2022, eq. 2. Code of the authors: lindermanlab/S5, s5/ssm.py.

    Note:
        The authors' code draws real B and complex C and transforms them by the eigenvectors of
        HiPPO-N; here they are drawn in the eigenbasis, where normal draws have the same
        distribution. The variance of its B is 1 / (2 hidden); here it is 1 / input, so that the
        state has the scale of the input. Its D is diagonal; here D is a full matrix, so that input
        and output may differ in size. Re Λ is not constrained to be negative, as in the paper; the
        authors' code can clip it.
    """

    hidden_size: int
    output_size: int | None = None
    eigenvalue_init: Initializer = initializers.HippoN()
    step_init: Initializer = initializers.LogUniform(0.001, 0.1)
    kernel_init: Initializer = initializers.LecunNormal()
    output_init: Initializer = initializers.LecunNormal()
    feedthrough_init: Initializer = initializers.LecunNormal()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        if self.output_size is None:
            object.__setattr__(self, "output_size", self.hidden_size)
        check_size("output_size", self.output_size)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> S5Params:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        hidden, output = self.hidden_size, self.output_size or self.hidden_size
        keys = jax.random.split(key, 5)
        real, imaginary = self.eigenvalue_init(keys[0], (2, hidden), state_dtype(dtype))
        log_step = jnp.log(self.step_init(keys[1], (hidden,), state_dtype(dtype)))
        b = packed_kernel(self.kernel_init, keys[2], (input_size, hidden), 2, dtype)
        return S5Params(
            real.astype(dtype),
            imaginary.astype(dtype),
            log_step.astype(dtype),
            b / math.sqrt(2),
            self.output_init(keys[3], (2 * hidden, output), dtype),
            self.feedthrough_init(keys[4], (input_size, output), dtype),
        )

    def init_state(self, params: S5Params, batch_shape: tuple[int, ...] = ()) -> S5State:
        """Returns zeros."""
        dtype = complex_state_dtype(params.log_step.dtype)
        return S5State(jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def affine(self, params: S5Params, x: Array) -> tuple[S5State, S5State]:
        """Returns e^(ΛΔ) and Λ⁻¹ (e^(ΛΔ) - 1) (x B)."""
        real, imaginary, log_step = map(widen, params[:3])
        step = jnp.exp(log_step)
        z = jax.lax.complex(real * step, imaginary * step)
        scale = jax.lax.complex(step, jnp.zeros_like(step)) * relative_expm1(z)
        b = jax.lax.complex(*jnp.split(product(x, params.input_kernel), 2, axis=-1))
        return S5State(jnp.exp(z)), S5State(scale * b)

    def readout(self, params: S5Params, state: S5State, x: Array) -> Array:
        """Returns 2 Re(h C) + x D."""
        h = 2 * jnp.concatenate([state.hidden.real, -state.hidden.imag], axis=-1)
        y = product(h, params.output_kernel) + product(x, params.feedthrough_kernel)
        return y.astype(params.output_kernel.dtype)

    def step(self, params: S5Params, state: S5State, x: Array) -> tuple[S5State, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)
