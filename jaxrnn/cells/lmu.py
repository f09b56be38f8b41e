"""The Legendre memory unit: a linear memory of a sliding window and a nonlinear state."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_positive, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, split_columns, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros


class LMUParams(NamedTuple):
    """Parameters of `LMU`; an encoder e is one column, before those of its kernel W."""

    input_kernel: Array  # [input, 1 + hidden], e_x and W_x
    recurrent_kernel: Array  # [hidden, 1 + hidden], e_h and W_h
    memory_encoder: Array  # [order], e_m
    memory_kernel: Array  # [order, hidden], W_m


class LMUState(NamedTuple):
    """State of `LMU`."""

    hidden: Array  # [*batch, hidden]
    memory: Array  # [*batch, order]


@functools.lru_cache(maxsize=64)
def delay_system(order: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """The delay system of a window of ``theta`` steps, discretized by zero-order hold.

        θ dm/dt = A m + B u,   A_ij = (2i + 1) (-1 if i < j else (-1)^(i-j+1)),   B_i = (2i+1)(-1)^i

    Args:
        order: the number of Legendre polynomials.
        theta: the length of the window, in steps.

    Returns:
        ``(Ā, B̄)`` with m' = Ā m + B̄ u for u constant over the step, float64 ``[order, order]``
        and ``[order]``. The value of u s steps ago is Σ_i P_i(2 s / θ - 1) m_i, where P_i are the
        Legendre polynomials on [-1, 1].
    """
    i, j = np.meshgrid(np.arange(order), np.arange(order), indexing="ij")
    continuous = np.zeros((order + 1, order + 1))
    continuous[:-1, :-1] = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** (i - j + 1)) / theta
    continuous[:-1, -1] = (2 * i[:, 0] + 1) * (-1.0) ** i[:, 0] / theta
    # u is an additional, constant state, so that one exponential gives both matrices.
    discrete = expm(continuous)
    discrete.setflags(write=False)
    return discrete[:-1, :-1], discrete[:-1, -1]


@frozen
class LMU:
    """The Legendre memory unit: a network that writes one number per step to a linear memory.

        u = x e_x + h e_h + m e_m
        m' = m Āᵀ + u B̄ᵀ
        h' = tanh(x W_x + h W_h + m' W_m)

    m holds the Legendre coefficients of the last ``theta`` values of u.
    `jaxrnn.cells.lmu.delay_system` gives Ā and B̄, which are not learned, and the decoding.

    Args:
        hidden_size: features of h and of the output.
        order: the number of polynomials, the size of the memory m.
        theta: the length of the window, in steps.
        encoder_init: initializer of e_x and e_h, as ``[rows, 1]``; default: LeCun uniform.
        memory_encoder_init: initializer of e_m as ``[1, order]``; default: zeros.
        kernel_init: initializer of W_x, W_h and W_m; default: Glorot uniform.

    Shapes:
        x ``[*batch, input]``, state ``LMUState(hidden [*batch, hidden], memory [*batch, order])``,
        y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` or ``order`` is not a positive int, ``theta`` not a
            positive number.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LMU(hidden_size=4, order=6, theta=20)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> ys.shape, final.memory.shape
        ((7, 2, 4), (2, 6))

    References:
        A. Voelker, I. Kajić and C. Eliasmith, "Legendre memory units: continuous-time
        representation in recurrent neural networks", 2019, eqs. 4, 6 and 7.

    Note:
        Ā and B̄ are discretized by zero-order hold, as in the authors' code. With bfloat16
        parameters they stay in the state's dtype, because rounded matrices do not preserve the
        window. There are no biases, as in the paper. The authors initialize kernels with Glorot
        normal.
    """

    hidden_size: int
    order: int
    theta: float
    encoder_init: Initializer = initializers.LecunUniform()
    memory_encoder_init: Initializer = initializers.Constant()
    kernel_init: Initializer = initializers.GlorotUniform()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("order", self.order)
        check_positive("theta", self.theta)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LMUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 6)
        hidden, order = self.hidden_size, self.order

        def encoder_and_kernel(encoder_key, kernel_key, rows):
            encoder = self.encoder_init(encoder_key, (rows, 1), dtype)
            kernel = self.kernel_init(kernel_key, (rows, hidden), dtype)
            return jnp.concatenate([encoder, kernel], axis=-1)

        return LMUParams(
            encoder_and_kernel(keys[0], keys[1], input_size),
            encoder_and_kernel(keys[2], keys[3], hidden),
            packed_bias(self.memory_encoder_init, keys[4], order, 1, dtype),
            packed_kernel(self.kernel_init, keys[5], (order, hidden), 1, dtype),
        )

    def init_state(self, params: LMUParams, batch_shape: tuple[int, ...] = ()) -> LMUState:
        """Returns zeros: an empty window."""
        return LMUState(*zeros(params, batch_shape, self.hidden_size, self.order))

    def step(self, params: LMUParams, state: LMUState, x: Array) -> tuple[LMUState, Array]:
        """One step of the equations above."""
        h, m = state
        held, written = (
            jnp.asarray(part, m.dtype) for part in delay_system(self.order, self.theta)
        )
        columns = (1, self.hidden_size)
        u_x, x_h = split_columns(product(x, params.input_kernel), columns)
        u_h, h_h = split_columns(product(h, params.recurrent_kernel), columns)
        # e_m and Ā act on the same m: one product.
        from_memory = jnp.concatenate([widen(params.memory_encoder)[:, None], held.T], axis=-1)
        u_m, m = split_columns(product(m, from_memory), (1, self.order))
        m = m + (u_x + u_h + u_m) * written
        h = jnp.tanh(x_h + h_h + product(m, params.memory_kernel))
        return LMUState(h, m), h.astype(params.memory_kernel.dtype)
