"""The recurrent highway network: several gated layers in one time step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros


class RecurrentHighwayParams(NamedTuple):
    """Parameters of `RecurrentHighway`; blocks on the last axis in the order h, t."""

    input_kernel: Array  # [input, 2 * hidden]
    recurrent_kernel: Array  # [depth, hidden, 2 * hidden]
    bias: Array  # [depth, 2 * hidden]


class RecurrentHighwayState(NamedTuple):
    """State of `RecurrentHighway`."""

    hidden: Array  # [*batch, hidden]


@frozen
class RecurrentHighway:
    """The recurrent highway network: ``depth`` highway layers in one time step.

        s_0 = s                                     (the state before the step)
        h_l = tanh(1{l = 1} x W_h + b_h,l + s_{l-1} R_h,l)
        t_l = σ(1{l = 1} x W_t + b_t,l + s_{l-1} R_t,l)
        s_l = h_l t_l + s_{l-1} (1 - t_l)           for l = 1, ..., depth
        y = s_depth

    Args:
        hidden_size: features of the state and of the output.
        depth: highway layers per time step; only the first sees the input.
        transform_bias: the initial bias of the transform gates t; negative, so that a deep
            transition starts near the identity. Other biases are zero.
        kernel_init: initializer of W, drawn per block; default: Glorot uniform.
        recurrent_init: initializer of R, drawn per layer and block; default: orthogonal.
        bias_init: initializer of each layer's b as ``[2, hidden]``, overriding ``transform_bias``.

    Shapes:
        x ``[*batch, input]``, state ``RecurrentHighwayState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` or ``depth`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.RecurrentHighway(hidden_size=4, depth=3)
        >>> params = cell.init(jax.random.key(0), input_size=5)
        >>> params.input_kernel.shape, params.recurrent_kernel.shape
        ((5, 8), (3, 4, 8))

    References:
        J. G. Zilly, R. K. Srivastava, J. Koutník and J. Schmidhuber, "Recurrent highway networks",
        2017, eqs. 6 to 9.

    Note:
        The carry gate is 1 - t, as in the paper's experiments; its eq. 9 allows a separate gate.
    """

    hidden_size: int
    depth: int
    transform_bias: float = -2.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("depth", self.depth)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> RecurrentHighwayParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
        bias_init = self.bias_init or initializers.ForgetBias(self.transform_bias)
        hidden = self.hidden_size
        return RecurrentHighwayParams(
            packed_kernel(self.kernel_init, kernel_key, (input_size, hidden), 2, dtype),
            jnp.stack(
                [
                    packed_kernel(self.recurrent_init, key, (hidden, hidden), 2, dtype)
                    for key in jax.random.split(recurrent_key, self.depth)
                ]
            ),
            jnp.stack(
                [
                    packed_bias(bias_init, key, hidden, 2, dtype)
                    for key in jax.random.split(bias_key, self.depth)
                ]
            ),
        )

    def init_state(
        self, params: RecurrentHighwayParams, batch_shape: tuple[int, ...] = ()
    ) -> RecurrentHighwayState:
        """Returns zeros."""
        return RecurrentHighwayState(*zeros(params, batch_shape, self.hidden_size))

    def step(
        self, params: RecurrentHighwayParams, state: RecurrentHighwayState, x: Array
    ) -> tuple[RecurrentHighwayState, Array]:
        """One step of the equations above."""
        s = state.hidden
        from_input = product(x, params.input_kernel) + widen(params.bias[0])
        for layer in range(self.depth):
            known = widen(params.bias[layer]) if layer else from_input
            h, t = jnp.split(known + product(s, params.recurrent_kernel[layer]), 2, axis=-1)
            t = jax.nn.sigmoid(t)
            s = jnp.tanh(h) * t + s * (1 - t)
        return RecurrentHighwayState(s), s.astype(params.bias.dtype)
