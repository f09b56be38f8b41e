"""Long short-term memory (LSTM), with peepholes, and with a projection.

Gates are packed on the last axis in the order i, f, g, o.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import tanh
from jaxrnn.cells._dense import dense_params, zeros


class LSTMParams(NamedTuple):
    """Parameters of `LSTM`."""

    input_kernel: Array  # [input, 4 * hidden]
    recurrent_kernel: Array  # [hidden, 4 * hidden]
    bias: Array  # [4 * hidden]


class LSTMState(NamedTuple):
    """State of `LSTM` and related cells."""

    hidden: Array  # [*batch, hidden]; [*batch, projection] for ProjectedLSTM
    cell: Array  # [*batch, hidden]


class PeepholeLSTMParams(NamedTuple):
    """Parameters of `PeepholeLSTM`."""

    input_kernel: Array  # [input, 4 * hidden]
    recurrent_kernel: Array  # [hidden, 4 * hidden]
    bias: Array  # [4 * hidden]
    peephole_kernel: Array  # [3 * hidden], in the order i, f, o


class ProjectedLSTMParams(NamedTuple):
    """Parameters of `ProjectedLSTM`."""

    input_kernel: Array  # [input, 4 * hidden]
    recurrent_kernel: Array  # [projection, 4 * hidden]
    bias: Array  # [4 * hidden]
    projection_kernel: Array  # [hidden, projection]


def _init(cell, key: Array, input_size: int, recurrent_size: int, dtype: Any) -> LSTMParams:
    bias_init = cell.bias_init or initializers.ForgetBias(cell.forget_bias)
    sizes = {"recurrent_size": recurrent_size, "bias_init": bias_init}
    return LSTMParams(*dense_params(cell, key, input_size, dtype, (4, 4, 4), **sizes))


def _preactivations(params, hidden: Array, x: Array) -> Array:
    """The sum x W + b + h U, for all four gates at once."""
    return (
        product(x, params.input_kernel)
        + widen(params.bias)
        + product(hidden, params.recurrent_kernel)
    )


@frozen
class LSTM:
    """Long short-term memory with a forget gate.

        i, f, o = σ(x W + b + h U)        (the blocks i, f, o of W, b, U)
        g = tanh(x W + b + h U)           (the block g)
        c' = f c + i g
        h' = o tanh(c')

    Args:
        hidden_size: features of the hidden state, the cell state and the output.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[4, hidden]``, overriding ``forget_bias``.
        candidate_activation: the activation of g; default: tanh.

    Shapes:
        x ``[*batch, input]``, state ``LSTMState(hidden, cell)``, both ``[*batch, hidden]``, y
        ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LSTM(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> ys.shape, final.cell.shape
        ((7, 2, 4), (2, 4))

    References:
        S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997,
        section 4 and eqs. 3 to 9 (appendix A.1).
        F. Gers, J. Schmidhuber and F. Cummins, "Learning to forget: continual prediction with
        LSTM", Neural Computation 12, 2000 (the forget gate).

    Note:
        The 1997 paper squashes g to (-2, 2) and c to (-1, 1) with shifted logistic functions; here
        both use tanh, as is now standard. PyTorch has two biases, whose sum is b, and initializes
        the forget gate's near 0; Haiku adds 1 to f at run time.
    """

    hidden_size: int
    forget_bias: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None
    candidate_activation: Callable[[Array], Array] = tanh

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LSTMParams:
        """Draws the parameters."""
        return _init(self, key, input_size, self.hidden_size, dtype)

    def init_state(self, params: LSTMParams, batch_shape: tuple[int, ...] = ()) -> LSTMState:
        """Returns zeros."""
        return LSTMState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(self, params: LSTMParams, state: LSTMState, x: Array) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        i, f, g, o = jnp.split(_preactivations(params, state.hidden, x), 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(i) * self.candidate_activation(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return LSTMState(h, c), h.astype(params.bias.dtype)


@frozen
class PeepholeLSTM:
    """LSTM with peepholes: the gates of each unit also see its cell state.

        i, f = σ(x W + b + h U + p ⊙ c)   (the blocks i, f)
        g = tanh(x W + b + h U)           (the block g)
        c' = f c + i g
        o = σ(x W + b + h U + p_o ⊙ c')   (the block o: it sees the NEW cell state)
        h' = o tanh(c')

    Args:
        hidden_size: features of the hidden state, the cell state and the output.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[4, hidden]``, overriding ``forget_bias``.
        peephole_init: initializer of p as ``[3, hidden]``, in the order i, f, o; default: zeros.
        candidate_activation: the activation of g; default: tanh.

    Shapes:
        As for `LSTM`; ``peephole_kernel`` is ``[3 * hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.PeepholeLSTM(hidden_size=4)
        >>> cell.init(jax.random.key(0), input_size=3).peephole_kernel.shape
        (12,)

    References:
        F. Gers, N. Schraudolph and J. Schmidhuber, "Learning precise timing with LSTM recurrent
        networks", Journal of Machine Learning Research 3, 2002.

    Note:
        With p = 0 this is `LSTM`. In the paper the gates of a block see all cells of the block;
        here every block has one cell. Gers et al. truncate the gradient at the peepholes; here it
        is exact.
    """

    hidden_size: int
    forget_bias: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None
    peephole_init: Initializer = initializers.Constant()
    candidate_activation: Callable[[Array], Array] = tanh

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PeepholeLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        key, peephole_key = jax.random.split(key)
        peepholes = packed_bias(self.peephole_init, peephole_key, self.hidden_size, 3, dtype)
        dense = _init(self, key, input_size, self.hidden_size, dtype)
        return PeepholeLSTMParams(*dense, peepholes)

    def init_state(
        self, params: PeepholeLSTMParams, batch_shape: tuple[int, ...] = ()
    ) -> LSTMState:
        """Returns zeros."""
        return LSTMState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(
        self, params: PeepholeLSTMParams, state: LSTMState, x: Array
    ) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        i, f, g, o = jnp.split(_preactivations(params, state.hidden, x), 4, axis=-1)
        p_i, p_f, p_o = jnp.split(widen(params.peephole_kernel), 3)
        i = jax.nn.sigmoid(i + p_i * state.cell)
        f = jax.nn.sigmoid(f + p_f * state.cell)
        c = f * state.cell + i * self.candidate_activation(g)
        h = jax.nn.sigmoid(o + p_o * c) * jnp.tanh(c)
        return LSTMState(h, c), h.astype(params.bias.dtype)


@frozen
class ProjectedLSTM:
    """LSTM with a linear projection of the output, which is also what is fed back.

        i, f, o = σ(x W + b + h U),   g = tanh(x W + b + h U)
        c' = f c + i g
        h' = (o tanh(c')) P

    Args:
        hidden_size: features of the cell state.
        projection_size: features of the hidden state and of the output.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[4, hidden]``, overriding ``forget_bias``.
        projection_init: initializer of P ``[hidden, projection]``; default: Glorot uniform.
        candidate_activation: the activation of g; default: tanh.

    Shapes:
        x ``[*batch, input]``, state ``LSTMState(hidden [*batch, projection], cell
        [*batch, hidden])``, y ``[*batch, projection]``.

    Raises:
        TypeError, ValueError: a size is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.ProjectedLSTM(hidden_size=8, projection_size=3)
        >>> params = cell.init(jax.random.key(0), input_size=5)
        >>> params.recurrent_kernel.shape, params.projection_kernel.shape
        ((3, 32), (8, 3))

    References:
        H. Sak, A. Senior and F. Beaufays, "Long short-term memory based recurrent neural network
        architectures for large vocabulary speech recognition", 2014.

    Note:
        The paper's peepholes and second, non-recurrent projection are omitted, as in PyTorch's
        ``proj_size``.
    """

    hidden_size: int
    projection_size: int
    forget_bias: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None
    projection_init: Initializer = initializers.GlorotUniform()
    candidate_activation: Callable[[Array], Array] = tanh

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("projection_size", self.projection_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``projection_size``."""
        return self.projection_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ProjectedLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        key, projection_key = jax.random.split(key)
        shape = (self.hidden_size, self.projection_size)
        dense = _init(self, key, input_size, self.projection_size, dtype)
        return ProjectedLSTMParams(*dense, self.projection_init(projection_key, shape, dtype))

    def init_state(
        self, params: ProjectedLSTMParams, batch_shape: tuple[int, ...] = ()
    ) -> LSTMState:
        """Returns zeros."""
        return LSTMState(*zeros(params, batch_shape, self.projection_size, self.hidden_size))

    def step(
        self, params: ProjectedLSTMParams, state: LSTMState, x: Array
    ) -> tuple[LSTMState, Array]:
        """One step of the equations above."""
        i, f, g, o = jnp.split(_preactivations(params, state.hidden, x), 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(i) * self.candidate_activation(g)
        h = product(jax.nn.sigmoid(o) * jnp.tanh(c), params.projection_kernel)
        return LSTMState(h, c), h.astype(params.bias.dtype)
