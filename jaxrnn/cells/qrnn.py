"""The quasi-recurrent neural network."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, split_columns, state_dtype, widen
from jaxrnn._typing import Array, Initializer


class QRNNParams(NamedTuple):
    """Parameters of `QRNN`; gates in the order z, f, o."""

    input_kernel: Array  # [window * input, 3 * hidden], the newest input first
    bias: Array  # [3 * hidden]


class QRNNState(NamedTuple):
    """State of `QRNN`."""

    cell: Array  # [*batch, hidden]
    inputs: Array | None  # [*batch, (window - 1) * input], newest first; None for window 1


@frozen
class QRNN:
    """The quasi-recurrent neural network: gates from a causal convolution, and fo-pooling.

        z = tanh([x, x_1, ..., x_(w-1)] W_z + b_z)      (x_k is the input of k steps before)
        f, o = σ([x, x_1, ..., x_(w-1)] W + b)          (the blocks f, o)
        c' = f c + (1 - f) z
        y = o c'

    With a window of 1 the cell is affine in the state and runs in parallel over time
    (`jaxrnn.AffineCell`). A wider window keeps past inputs, initially zeros, in the state, and the
    cell is not affine. To run such a network in parallel, give ``QRNN(hidden_size)`` inputs that
    hold the whole window.

    Args:
        hidden_size: features of the state and of the output.
        window: the number of inputs that the gates see.
        kernel_init: initializer of W ``[window * input, hidden]``, drawn per gate; default: Glorot
            uniform.
        bias_init: initializer of b as ``[3, hidden]``, in the order z, f, o; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``QRNNState(cell [*batch, hidden], inputs [*batch,
        (window - 1) * input])``, y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` or ``window`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.QRNN(hidden_size=4, window=2)
        >>> cell.init(jax.random.key(0), input_size=3).input_kernel.shape
        (6, 12)
        >>> rnn.is_affine(cell), rnn.is_affine(rnn.QRNN(4))
        (False, True)

    References:
        J. Bradbury, S. Merity, C. Xiong and R. Socher, "Quasi-recurrent neural networks", 2016.
        Code of the authors: salesforce/pytorch-qrnn, torchqrnn/qrnn.py.

    Note:
        The paper's convolutions have no biases; the authors' code has biases, and there f weights
        z. With window 1 and o = 1 this is the gated impulse linear recurrence of Martin and Cundy,
        2018.
    """

    hidden_size: int
    window: int = 1
    kernel_init: Initializer = initializers.GlorotUniform()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("window", self.window)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def is_affine(self) -> bool:
        """Whether the gates depend on the input alone."""
        return self.window == 1

    def init(self, key: Array, input_size: int, dtype: Any = None) -> QRNNParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key)
        shape = (self.window * input_size, self.hidden_size)
        return QRNNParams(
            packed_kernel(self.kernel_init, keys[0], shape, 3, dtype),
            packed_bias(self.bias_init, keys[1], self.hidden_size, 3, dtype),
        )

    def init_state(self, params: QRNNParams, batch_shape: tuple[int, ...] = ()) -> QRNNState:
        """Returns zeros."""
        dtype = state_dtype(params.bias.dtype)
        cell = jnp.zeros((*batch_shape, self.hidden_size), dtype)
        if self.window == 1:
            return QRNNState(cell, None)
        past = params.input_kernel.shape[0] // self.window * (self.window - 1)
        return QRNNState(cell, jnp.zeros((*batch_shape, past), dtype))

    def _blocks(self, params: QRNNParams, part: int) -> list[Array]:
        """Kernel and bias of z and f (part 0), or of o (part 1)."""
        sizes = (2 * self.hidden_size, self.hidden_size)
        return [split_columns(leaf, sizes)[part] for leaf in params]

    def affine(self, params: QRNNParams, x: Array) -> tuple[QRNNState, QRNNState]:
        """Returns f and (1 - f) z; for window 1."""
        kernel, bias = self._blocks(params, 0)
        z, f = jnp.split(product(x, kernel) + widen(bias), 2, axis=-1)
        b = jax.nn.sigmoid(-f) * jnp.tanh(z)  # 1 - σ(f) is σ(-f)
        return QRNNState(jax.nn.sigmoid(f), None), QRNNState(b, None)

    def readout(self, params: QRNNParams, state: QRNNState, x: Array) -> Array:
        """Returns o c'; for window 1."""
        kernel, bias = self._blocks(params, 1)
        o = jax.nn.sigmoid(product(x, kernel) + widen(bias))
        return (o * state.cell).astype(bias.dtype)

    def step(self, params: QRNNParams, state: QRNNState, x: Array) -> tuple[QRNNState, Array]:
        """One step of the equations above."""
        if state.inputs is None:
            return affine_step(self, params, state, x)
        window = jnp.concatenate([widen(x), state.inputs], axis=-1)
        single = QRNN(self.hidden_size)  # on one input that is the whole window
        (cell, _), y = affine_step(single, params, QRNNState(state.cell, None), window)
        return QRNNState(cell, window[..., : state.inputs.shape[-1]]), y
