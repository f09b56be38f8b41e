"""Gated cells with diagonal recurrences: the Jacobian is diagonal or has 2×2 blocks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import zeros
from jaxrnn.cells.gru import GRUState
from jaxrnn.cells.lstm import LSTMState


class ParaGRUParams(NamedTuple):
    """Parameters of `ParaGRU`; gates in the order r, z, n."""

    input_kernel: Array  # [input, 3 * hidden]
    recurrent_kernel: Array  # [3 * hidden], the diagonals of three kernels
    bias: Array  # [3 * hidden]


class ParaLSTMParams(NamedTuple):
    """Parameters of `ParaLSTM`; gates in the order f, g, o."""

    input_kernel: Array  # [input, 3 * hidden]
    recurrent_kernel: Array  # [3 * hidden], the diagonals of three kernels
    bias: Array  # [3 * hidden]
    peephole_kernel: Array  # [2 * hidden], in the order f, o


@frozen
class ParaGRU:
    """The gated recurrent unit with diagonal recurrent kernels, for training in parallel over time.

        r, z = σ(x B + b + a h)                  (the blocks r, z)
        n = tanh(x B_n + b_n + a_n (h r))
        h' = (1 - z) h + z n

    The Jacobian of a step is diagonal.

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of B, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of a as ``[3, hidden]``; default: uniform in ±1/√hidden.
        bias_init: initializer of b as ``[3, hidden]``; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.ParaGRU(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.recurrent_kernel.shape
        (12,)

    References:
        F. Danieli, P. Rodríguez, M. Sarabia, X. Suau and L. Zappella, "ParaRNN: unlocking parallel
        training of nonlinear RNNs for large language models", 2025. Code of the authors:
        apple/ml-pararnn, pararnn/rnn_cell/gru_diag_mh.py.

    Note:
        z weights the candidate, as in the authors' code; in `GRU` it weights the state. The authors
        pack z, r, n, make B block-diagonal by heads, and initialize a and b differently.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.PyTorchUniform()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ParaGRUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 3)
        hidden = self.hidden_size
        return ParaGRUParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 3, dtype),
            packed_bias(self.recurrent_init, keys[1], hidden, 3, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 3, dtype),
        )

    def init_state(self, params: ParaGRUParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: ParaGRUParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        h = state.hidden
        from_input = product(x, params.input_kernel) + widen(params.bias)
        i_r, i_z, i_n = jnp.split(from_input, 3, axis=-1)
        a_r, a_z, a_n = jnp.split(widen(params.recurrent_kernel), 3, axis=-1)
        r = jax.nn.sigmoid(i_r + a_r * h)
        z = jax.nn.sigmoid(i_z + a_z * h)
        n = jnp.tanh(i_n + a_n * (h * r))
        h = (1 - z) * h + z * n
        return GRUState(h), h.astype(params.bias.dtype)


@frozen
class ParaLSTM:
    """The coupled-gate LSTM with peepholes and diagonal recurrent kernels.

        f = σ(x B_f + b_f + a_f h + p_f c)
        g = tanh(x B_g + b_g + a_g h)
        c' = f c + (1 - f) g
        o = σ(x B_o + b_o + a_o h + p_o c')
        h' = o tanh(c')

    The Jacobian of a step has one 2×2 block per unit.

    Args:
        hidden_size: features of the hidden state, the cell state and the output.
        kernel_init: initializer of B, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of a as ``[3, hidden]``; default: uniform in ±1/√hidden.
        bias_init: initializer of b as ``[3, hidden]``; default: zeros.
        peephole_init: initializer of p as ``[2, hidden]``; default: uniform in ±1/√hidden.

    Shapes:
        x ``[*batch, input]``, state ``LSTMState(hidden, cell)``, both ``[*batch, hidden]``, y
        ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.ParaLSTM(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.recurrent_kernel.shape, params.peephole_kernel.shape
        ((12,), (8,))

    References:
        F. Danieli, P. Rodríguez, M. Sarabia, X. Suau and L. Zappella, "ParaRNN: unlocking parallel
        training of nonlinear RNNs for large language models", 2025. Code of the authors:
        apple/ml-pararnn, pararnn/rnn_cell/lstm_cifg_diag_mh.py.

    Note:
        The authors pack f, o, g, and can make B block-diagonal by heads.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.PyTorchUniform()
    bias_init: Initializer = initializers.Constant()
    peephole_init: Initializer = initializers.PyTorchUniform()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ParaLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 4)
        hidden = self.hidden_size
        return ParaLSTMParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 3, dtype),
            packed_bias(self.recurrent_init, keys[1], hidden, 3, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 3, dtype),
            packed_bias(self.peephole_init, keys[3], hidden, 2, dtype),
        )

    def init_state(self, params: ParaLSTMParams, batch_shape: tuple[int, ...] = ()) -> LSTMState:
        """Returns zeros."""
        return LSTMState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(self, params: ParaLSTMParams, state: LSTMState, x: Array) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        h, c = state
        from_input = product(x, params.input_kernel) + widen(params.bias)
        i_f, i_g, i_o = jnp.split(from_input, 3, axis=-1)
        a_f, a_g, a_o = jnp.split(widen(params.recurrent_kernel), 3, axis=-1)
        p_f, p_o = jnp.split(widen(params.peephole_kernel), 2, axis=-1)
        f = jax.nn.sigmoid(i_f + a_f * h + p_f * c)
        c = f * c + (1 - f) * jnp.tanh(i_g + a_g * h)
        h = jax.nn.sigmoid(i_o + a_o * h + p_o * c) * jnp.tanh(c)
        return LSTMState(h, c), h.astype(params.bias.dtype)
