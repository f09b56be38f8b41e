"""The stackable recurrent cell."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import dense_params, zeros
from jaxrnn.cells.gru import GRUState


class STARParams(NamedTuple):
    """Parameters of `STAR`; blocks in the order k, z."""

    input_kernel: Array  # [input, 2 * hidden]
    recurrent_kernel: Array  # [hidden, hidden]
    bias: Array  # [2 * hidden]


@frozen
class STAR:
    """The stackable recurrent cell, designed to preserve gradients through many layers.

        k = σ(x W_k + b_k + h U)
        z = tanh(x W_z + b_z)
        h' = tanh((1 - k) h + k z)

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of W, drawn per gate; default: orthogonal.
        recurrent_init: initializer of U; default: orthogonal.
        bias_init: initializer of b as ``[2, hidden]``, k before z; default: -1 for k, so that the
            cell initially remembers, and 0 for z.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden)`` and y ``[*batch, hidden]``;
        ``recurrent_kernel`` is ``[hidden, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.STAR(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.input_kernel.shape, params.recurrent_kernel.shape
        ((3, 8), (4, 4))

    References:
        M. O. Turkoglu, S. D'Aronco, J. D. Wegner and K. Schindler, "Gating revisited: deep
        multi-layer RNNs that can be trained", 2019. Code of the authors:
        0zgur0/STAckable-Recurrent-network, star.py.

    Note:
        The authors' code has the gate f = 1 - k, with a bias of 1 or by the chrono rule, and
        weights the candidate by 1 - σ(s - 1) instead of 1 - σ(s), as in `JANET`; the paper does
        not.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.Orthogonal()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.ForgetBias(-1.0, gate=0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> STARParams:
        """Draws the parameters."""
        return STARParams(*dense_params(self, key, input_size, dtype, (2, 1, 2)))

    def init_state(self, params: STARParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: STARParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        from_input = product(x, params.input_kernel) + widen(params.bias)
        i_k, i_z = jnp.split(from_input, 2, axis=-1)
        k = jax.nn.sigmoid(i_k + product(state.hidden, params.recurrent_kernel))
        h = jnp.tanh((1 - k) * state.hidden + k * jnp.tanh(i_z))
        return GRUState(h), h.astype(params.bias.dtype)
