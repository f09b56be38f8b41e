"""The real-gated linear recurrent unit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
from jaxrnn._frozen import frozen
from jaxrnn._numerics import joined_kernel, packed_bias, product, state_dtype, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros

_SHARPNESS = 8.0  # the paper's constant c


class RGLRUParams(NamedTuple):
    """Parameters of `RGLRU`; gates in the order a (recurrence), i (input)."""

    decay: Array  # [hidden], Λ
    input_kernel: Array  # [input, 2 * hidden], or 3 where input and hidden sizes differ
    bias: Array  # [2 * hidden]


class RGLRUState(NamedTuple):
    """State of `RGLRU`."""

    hidden: Array  # [*batch, hidden]


@frozen
class RGLRU:
    """The real-gated linear recurrent unit: a diagonal recurrence with a gated decay.

        r, i = σ(x W + b)                     (the blocks a, i)
        log a = -8 softplus(Λ) r
        h' = a h + √(1 - a²) (i x)

    If input and state differ in size, x in the last equation is x W_x, with W_x as a third block of
    the kernel.

    Args:
        hidden_size: features of the state and of the output.
        ring_init: initializer of e^(-8 softplus(Λ)), the decay for r = 1, as the radii of ``[2,
            hidden]``; default: ``UnitRing(0.9, 0.999)``.
        kernel_init: initializer of W, drawn per gate; default: LeCun normal.
        bias_init: initializer of b as ``[2, hidden]``, in the order a, i; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``RGLRUState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.RGLRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=4)
        >>> a, b = cell.affine(params, jax.numpy.ones(4))
        >>> bool(((a.hidden > 0.9) & (a.hidden < 1)).all())
        True

    References:
        S. De et al., "Griffin: mixing gated linear recurrences with local attention for efficient
        language models", 2024, eqs. 1 to 4 (section 2.4).

    Note:
        The paper has both a = σ(Λ) and log a = -softplus(Λ), which differ in the sign of Λ; this is
        the second, as in the authors' code. The kernels of the gates are full here and
        block-diagonal there. The authors' code does not scale the input of the first step by √(1 -
        a²); here every step is scaled.
    """

    hidden_size: int
    ring_init: Initializer = initializers.UnitRing(0.9, 0.999)
    kernel_init: Initializer = initializers.LecunNormal()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> RGLRUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys, hidden = jax.random.split(key, 3), self.hidden_size
        radius = self.ring_init(keys[0], (2, hidden), state_dtype(dtype))[0]
        decay = jnp.log(jnp.expm1(-jnp.log(radius) / _SHARPNESS))  # inverse softplus
        blocks = 2 if input_size == hidden else 3
        return RGLRUParams(
            decay.astype(dtype),
            joined_kernel(self.kernel_init, keys[1], input_size, (hidden,) * blocks, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 2, dtype),
        )

    def init_state(self, params: RGLRUParams, batch_shape: tuple[int, ...] = ()) -> RGLRUState:
        """Returns zeros."""
        return RGLRUState(*zeros(params, batch_shape, self.hidden_size))

    def affine(self, params: RGLRUParams, x: Array) -> tuple[RGLRUState, RGLRUState]:
        """Returns a and √(1 - a²) (i x)."""
        z = product(x, params.input_kernel)
        gates, projected = jnp.split(z, [2 * self.hidden_size], axis=-1)
        r, i = jnp.split(jax.nn.sigmoid(gates + widen(params.bias)), 2, axis=-1)
        value = projected if projected.shape[-1] else widen(x)
        log_a = -_SHARPNESS * jax.nn.softplus(widen(params.decay)) * r
        # The square root has no derivative at 0, which a closed gate reaches.
        scale = jnp.sqrt(jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(log_a.dtype).tiny))
        return RGLRUState(jnp.exp(log_a)), RGLRUState(scale * (i * value))

    def readout(self, params: RGLRUParams, state: RGLRUState, x: Array) -> Array:
        """Returns the state."""
        return state.hidden.astype(params.bias.dtype)

    def step(self, params: RGLRUParams, state: RGLRUState, x: Array) -> tuple[RGLRUState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)
