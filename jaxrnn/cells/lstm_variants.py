"""LSTM variants: coupled gates, and an input-dependent transition."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import dense_params, zeros
from jaxrnn.cells.lstm import LSTMState


class CoupledLSTMParams(NamedTuple):
    """Parameters of `CoupledLSTM`; gates in the order f, g, o."""

    input_kernel: Array  # [input, 3 * hidden]
    recurrent_kernel: Array  # [hidden, 3 * hidden]
    bias: Array  # [3 * hidden]


class MultiplicativeLSTMParams(NamedTuple):
    """Parameters of `MultiplicativeLSTM`; gates in the order i, f, g, o."""

    input_kernel: Array  # [input, 5 * hidden], the factor of m after the gates
    multiplier_kernel: Array  # [hidden, hidden]
    recurrent_kernel: Array  # [hidden, 4 * hidden]
    bias: Array  # [4 * hidden]


@frozen
class CoupledLSTM:
    """LSTM with coupled input and forget gates (CIFG): the input gate is 1 - f.

        f, o = σ(x W + b + h U)           (the blocks f, o)
        g = tanh(x W + b + h U)           (the block g)
        c' = f c + (1 - f) g
        h' = o tanh(c')

    Args:
        hidden_size: features of the hidden state, the cell state and the output.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[3, hidden]``, overriding ``forget_bias``.

    Shapes:
        x ``[*batch, input]``, state ``LSTMState(hidden, cell)``, both ``[*batch, hidden]``, y
        ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.CoupledLSTM(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.recurrent_kernel.shape
        (4, 12)

    References:
        K. Greff, R. K. Srivastava, J. Koutník, B. R. Steunebrink and J. Schmidhuber, "LSTM: a
        search space odyssey", 2015, the variant CIFG.

    Note:
        The paper keeps the input gate and sets f = 1 - i, as ONNX does with ``input_forget=1``: the
        same cell up to the sign of the gate's weights, because σ(-a) = 1 - σ(a). The paper's
        peepholes are omitted.
    """

    hidden_size: int
    forget_bias: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> CoupledLSTMParams:
        """Draws the parameters."""
        bias_init = self.bias_init or initializers.ForgetBias(self.forget_bias, gate=0)
        dense = dense_params(self, key, input_size, dtype, (3, 3, 3), bias_init=bias_init)
        return CoupledLSTMParams(*dense)

    def init_state(self, params: CoupledLSTMParams, batch_shape: tuple[int, ...] = ()) -> LSTMState:
        """Returns zeros."""
        return LSTMState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(
        self, params: CoupledLSTMParams, state: LSTMState, x: Array
    ) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        z = product(x, params.input_kernel) + widen(params.bias)
        f, g, o = jnp.split(z + product(state.hidden, params.recurrent_kernel), 3, axis=-1)
        f = jax.nn.sigmoid(f)
        c = f * state.cell + (1 - f) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return LSTMState(h, c), h.astype(params.bias.dtype)


@frozen
class MultiplicativeLSTM:
    """LSTM with an input-dependent transition: m = (x W_m)(h U_m) replaces h in the gates.

        m = (x W_m) ⊙ (h U_m)
        i, f, o = σ(x W + b + m U)        (the blocks i, f, o)
        g = tanh(x W + b + m U)           (the block g)
        c' = f c + i g
        h' = o tanh(c')

    Args:
        hidden_size: features of the hidden state, the cell state, m and the output.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        kernel_init: initializer of W and W_m, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate, and of U_m; default: orthogonal.
        bias_init: initializer of b as ``[4, hidden]``, overriding ``forget_bias``.

    Shapes:
        As for `LSTM`; ``input_kernel`` is ``[input, 5 * hidden]``, with W_m last.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.MultiplicativeLSTM(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.input_kernel.shape, params.multiplier_kernel.shape
        ((3, 20), (4, 4))

    References:
        B. Krause, I. Murray, S. Renals and L. Lu, "Multiplicative LSTM for sequence modelling",
        2016. Code of the authors: benkrause/mLSTM, chainer/mLSTMWN.py.

    Note:
        This follows the authors' later code, with its biases. In their first code the candidate is
        linear and the output gate acts inside the tanh.
    """

    hidden_size: int
    forget_bias: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> MultiplicativeLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 4)
        hidden = self.hidden_size
        bias_init = self.bias_init or initializers.ForgetBias(self.forget_bias)
        return MultiplicativeLSTMParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 5, dtype),
            packed_kernel(self.recurrent_init, keys[1], (hidden, hidden), 1, dtype),
            packed_kernel(self.recurrent_init, keys[2], (hidden, hidden), 4, dtype),
            packed_bias(bias_init, keys[3], hidden, 4, dtype),
        )

    def init_state(
        self, params: MultiplicativeLSTMParams, batch_shape: tuple[int, ...] = ()
    ) -> LSTMState:
        """Returns zeros."""
        return LSTMState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(
        self, params: MultiplicativeLSTMParams, state: LSTMState, x: Array
    ) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        from_input = product(x, params.input_kernel)
        z, factor = jnp.split(from_input, [4 * self.hidden_size], axis=-1)
        m = factor * product(state.hidden, params.multiplier_kernel)
        z = z + widen(params.bias) + product(m, params.recurrent_kernel)
        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return LSTMState(h, c), h.astype(params.bias.dtype)
