"""The hierarchically gated recurrent network."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
from jaxrnn._frozen import frozen
from jaxrnn._numerics import (
    complex_state_dtype,
    packed_bias,
    packed_kernel,
    product,
    state_dtype,
    widen,
)
from jaxrnn._typing import Array, Initializer


class HGRNParams(NamedTuple):
    """Parameters of `HGRN`; gates in the order f, and real and imaginary parts of c."""

    input_kernel: Array  # [input, 3 * hidden]
    bias: Array  # [3 * hidden]
    phase: Array  # [hidden], θ
    lower_bound: Array  # [hidden], γ


class HGRNState(NamedTuple):
    """State of `HGRN`."""

    hidden: Array  # complex [*batch, hidden]


def hgrn_lower_bounds(logits: Array) -> Array:
    """The lower bounds γ of a stack of `HGRN`, which increase with depth from 0.

    For each feature, a softmax over the layers is summed over the layers below.

    Args:
        logits: Γ, learned with the stack.

    Shapes:
        logits and the result ``[layers, hidden]``; row k of the result replaces the ``lower_bound``
        of layer k.

    Example:
        >>> import jax.numpy as jnp
        >>> print(hgrn_lower_bounds(jnp.zeros((4, 1)))[:, 0])
        [0.   0.25 0.5  0.75]
    """
    shares = jax.nn.softmax(logits, axis=0)
    return jnp.cumsum(shares, axis=0) - shares


@frozen
class HGRN:
    """The hierarchically gated recurrent unit: complex state, forget gate with a lower bound.

        f = γ + (1 - γ) σ(x W_f + b_f)
        c = silu(x W_r + b_r) + i silu(x W_i + b_i)
        h' = f e^(iθ) h + (1 - f) c
        y = [Re h', Im h']

    θ rotates each feature at its own rate. γ grows with depth, so that upper layers have longer
    memory: `hgrn_lower_bounds` computes it for a stack from one learned matrix. As a parameter of
    one cell, γ is clipped to [0, 1].

    Args:
        hidden_size: complex numbers in the state.
        kernel_init: initializer of W, drawn per gate; default: LeCun normal.
        bias_init: initializer of b as ``[3, hidden]``, in the order f, r, i; default: zeros.
        phase_init: initializer of θ; default: ``RotaryPhases()``.
        lower_bound_init: initializer of γ; default: zeros, as in the paper's first layer.

    Shapes:
        x ``[*batch, input]``, state ``HGRNState(hidden)`` complex ``[*batch, hidden]``,
        y ``[*batch, 2 * hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.HGRN(hidden_size=4, lower_bound_init=rnn.initializers.Constant(0.5))
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> a, b = cell.affine(params, jax.numpy.ones(3))
        >>> bool((abs(a.hidden) > 0.5).all()), cell.output_size
        (True, 8)

    References:
        Z. Qin, S. Yang and Y. Zhong, "Hierarchically gated recurrent neural network for sequence
        modeling", 2023, section 3. Equations of the authors: OpenNLPLab/HGRN, README.md.

    Note:
        The paper's output gate, normalization and projection are separate layers. The authors' code
        subtracts the first layer's softmax from the cumulative sums of `hgrn_lower_bounds`, instead
        of each layer's own: the same bounds up to a cyclic shift of the rows of Γ.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.LecunNormal()
    bias_init: Initializer = initializers.Constant()
    phase_init: Initializer = initializers.RotaryPhases()
    lower_bound_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: twice ``hidden_size``."""
        return 2 * self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> HGRNParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys, hidden = jax.random.split(key, 4), self.hidden_size
        phase = self.phase_init(keys[2], (hidden,), state_dtype(dtype))
        return HGRNParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 3, dtype),
            packed_bias(self.bias_init, keys[1], hidden, 3, dtype),
            phase.astype(dtype),
            self.lower_bound_init(keys[3], (hidden,), dtype),
        )

    def init_state(self, params: HGRNParams, batch_shape: tuple[int, ...] = ()) -> HGRNState:
        """Returns zeros."""
        dtype = complex_state_dtype(params.bias.dtype)
        return HGRNState(jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def affine(self, params: HGRNParams, x: Array) -> tuple[HGRNState, HGRNState]:
        """Returns f e^(iθ) and (1 - f) c."""
        z = product(x, params.input_kernel) + widen(params.bias)
        f, real, imaginary = jnp.split(z, 3, axis=-1)
        gamma, theta = jnp.clip(widen(params.lower_bound), 0, 1), widen(params.phase)
        open_ = (1 - gamma) * jax.nn.sigmoid(-f)  # 1 - f
        f = gamma + (1 - gamma) * jax.nn.sigmoid(f)
        a = jax.lax.complex(f * jnp.cos(theta), f * jnp.sin(theta))
        b = jax.lax.complex(open_ * jax.nn.silu(real), open_ * jax.nn.silu(imaginary))
        return HGRNState(a), HGRNState(b)

    def readout(self, params: HGRNParams, state: HGRNState, x: Array) -> Array:
        """Returns the real parts of the state, then the imaginary parts."""
        y = jnp.concatenate([state.hidden.real, state.hidden.imag], axis=-1)
        return y.astype(params.bias.dtype)

    def step(self, params: HGRNParams, state: HGRNState, x: Array) -> tuple[HGRNState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)
