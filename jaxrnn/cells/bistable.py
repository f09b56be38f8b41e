"""Bistable cells, whose units can hold one of two values indefinitely.

Blocks on the packed axis are in the order a, z, n; the candidate n has neither a recurrent weight
nor a bias.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import dense_params, zeros
from jaxrnn.cells.gru import GRUState


class BRCParams(NamedTuple):
    """Parameters of `BRC`."""

    input_kernel: Array  # [input, 3 * hidden]
    recurrent_kernel: Array  # [2 * hidden], the diagonals of two kernels
    bias: Array  # [2 * hidden]


class NBRCParams(NamedTuple):
    """Parameters of `NBRC`."""

    input_kernel: Array  # [input, 3 * hidden]
    recurrent_kernel: Array  # [hidden, 2 * hidden]
    bias: Array  # [2 * hidden]


def _step(params, h: Array, x: Array, h_a: Array, h_z: Array) -> tuple[GRUState, Array]:
    """The step of both cells, given the recurrent term of each gate."""
    i_a, i_z, n = jnp.split(product(x, params.input_kernel), 3, axis=-1)
    b_a, b_z = jnp.split(widen(params.bias), 2)
    a = 1 + jnp.tanh(i_a + b_a + h_a)
    z = jax.nn.sigmoid(i_z + b_z + h_z)
    h = z * h + (1 - z) * jnp.tanh(n + a * h)
    return GRUState(h), h.astype(params.bias.dtype)


@frozen
class BRC:
    """The bistable recurrent cell: each unit depends only on its own past.

        a = 1 + tanh(x W_a + b_a + w_a ⊙ h)
        z = σ(x W_z + b_z + w_z ⊙ h)
        h' = z h + (1 - z) tanh(x W_n + a h)

    A unit's feedback a lies in (0, 2). Above 1 the unit has two stable states, and the input
    selects one; below 1 it forgets.

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of w as ``[2, hidden]``, a before z; default: ones.
        bias_init: initializer of b as ``[2, hidden]``, a before z; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.BRC(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.input_kernel.shape, params.recurrent_kernel.shape
        ((3, 12), (8,))

    References:
        N. Vecoven, D. Ernst and G. Drion, "A bio-inspired bistable recurrent cell allows for
        long-lasting memory", 2020. Code of the authors: nvecoven/BRC, cells/cells.py.

    Note:
        The paper's equations have no biases; the biases of the gates follow the authors' code. The
        paper's c is z here.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Constant(1.0)
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> BRCParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 3)
        hidden = self.hidden_size
        return BRCParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 3, dtype),
            packed_bias(self.recurrent_init, keys[1], hidden, 2, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 2, dtype),
        )

    def init_state(self, params: BRCParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: BRCParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        h = state.hidden
        w_a, w_z = jnp.split(widen(params.recurrent_kernel), 2)
        return _step(params, h, x, w_a * h, w_z * h)


@frozen
class NBRC:
    """The neuromodulated bistable recurrent cell: units control each other's gates.

        a = 1 + tanh(x W_a + b_a + h U_a)
        z = σ(x W_z + b_z + h U_z)
        h' = z h + (1 - z) tanh(x W_n + a h)

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: Glorot uniform.
        bias_init: initializer of b as ``[2, hidden]``, a before z; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.NBRC(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.input_kernel.shape, params.recurrent_kernel.shape
        ((3, 12), (4, 8))

    References:
        N. Vecoven, D. Ernst and G. Drion, "A bio-inspired bistable recurrent cell allows for
        long-lasting memory", 2020. Code of the authors: nvecoven/BRC, cells/cells.py.

    Note:
        Equals `BRC` for diagonal U, with the same biases.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.GlorotUniform()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> NBRCParams:
        """Draws the parameters."""
        return NBRCParams(*dense_params(self, key, input_size, dtype, (3, 2, 2)))

    def init_state(self, params: NBRCParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: NBRCParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        from_state = product(state.hidden, params.recurrent_kernel)
        return _step(params, state.hidden, x, *jnp.split(from_state, 2, axis=-1))
