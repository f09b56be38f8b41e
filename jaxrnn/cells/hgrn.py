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
    """The lower bounds γ of a stack of `HGRN`, which rise from layer to layer, beginning with 0.

    In each feature, the softmax over the layers is summed over the layers below.

    Args:
        logits: Γ, learned with the stack.

    Shapes:
        logits ``[layers, hidden]``; the result, of the same shape, holds γ of layer k in row k,
        where it takes the place of that layer's ``lower_bound``.

    Example:
        >>> import jax.numpy as jnp
        >>> print(hgrn_lower_bounds(jnp.zeros((4, 1)))[:, 0])
        [0.   0.25 0.5  0.75]
    """
    shares = jax.nn.softmax(logits, axis=0)
    return jnp.cumsum(shares, axis=0) - shares


@frozen
class HGRN:
    """The hierarchically gated recurrent unit: a complex state, and a floor under its forget gate.

        f = γ + (1 - γ) σ(x W_f + b_f)
        c = silu(x W_r + b_r) + i silu(x W_i + b_i)
        h' = f e^(iθ) h + (1 - f) c
        y = [Re h', Im h']

    θ turns every feature at a rate of its own. γ grows with depth, so that upper layers must
    remember what lower ones may forget: `hgrn_lower_bounds` computes it for a stack, from one
    matrix that the whole stack learns. Of γ as a parameter of one cell, what lies outside of
    [0, 1] counts as the nearer of the two.

    Args:
        hidden_size: complex numbers in the state.
        kernel_init: initializer of W, a gate at a time; LeCun's normal.
        bias_init: initializer of b as ``[3, hidden]``, in the order f, r, i; zeros.
        phase_init: initializer of θ; ``RotaryPhases()``.
        lower_bound_init: initializer of γ; zeros, as in the paper's first layer.

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
        The output gate, the normalisation and the projection that follow in the paper are left to
        the layers around the cell. The authors' code takes the first layer's share off the sums
        of `hgrn_lower_bounds`, in place of the layer's own: the same bounds from a matrix whose
        rows are turned by one.
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
