"""Minimal gated units whose gates depend only on the input: minGRU and minLSTM."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import positive
from jaxrnn.cells._dense import zeros


class MinGRUParams(NamedTuple):
    """Parameters of `MinGRU`; gates in the order z, h."""

    input_kernel: Array  # [input, 2 * hidden]
    bias: Array  # [2 * hidden]


class MinLSTMParams(NamedTuple):
    """Parameters of `MinLSTM`; gates in the order f, i, h."""

    input_kernel: Array  # [input, 3 * hidden]
    bias: Array  # [3 * hidden]


class MinState(NamedTuple):
    """State of `MinGRU` and of `MinLSTM`."""

    hidden: Array  # [*batch, hidden]


def _init(cell, key: Array, input_size: int, dtype: Any, gates: int) -> tuple[Array, Array]:
    keys = jax.random.split(key)
    shape = (input_size, cell.hidden_size)
    return (
        packed_kernel(cell.kernel_init, keys[0], shape, gates, dtype),
        packed_bias(cell.bias_init, keys[1], cell.hidden_size, gates, dtype),
    )


def _preactivations(params: MinGRUParams | MinLSTMParams, x: Array, gates: int) -> list[Array]:
    return jnp.split(product(x, params.input_kernel) + widen(params.bias), gates, axis=-1)


@frozen
class MinGRU:
    """The minimal gated recurrent unit: a GRU whose gate and candidate depend only on the input.

        z = σ(x W_z + b_z)
        n = g(x W_h + b_h)
        h' = (1 - z) h + z n

    Args:
        hidden_size: features of the state and of the output.
        activation: g, an elementwise function; default `jaxrnn.activations.positive`, the paper's
            log-space form. `jaxrnn.activations.identity` gives the form of the paper's main text.
        kernel_init: initializer of W, drawn per gate; default: LeCun normal.
        bias_init: initializer of b as ``[2, hidden]``, in the order z, h; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``MinState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.MinGRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> bool((ys > 0).all())
        True

    References:
        L. Feng et al., "Were RNNs all we needed?", 2024, section 3, and appendix B for g.

    Note:
        z and 1 - z are exchanged compared with `GRU`, as in the paper.
    """

    hidden_size: int
    activation: Callable[[Array], Array] = positive
    kernel_init: Initializer = initializers.LecunNormal()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> MinGRUParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        return MinGRUParams(*_init(self, key, input_size, dtype, gates=2))

    def init_state(self, params: MinGRUParams, batch_shape: tuple[int, ...] = ()) -> MinState:
        """Returns zeros."""
        return MinState(*zeros(params, batch_shape, self.hidden_size))

    def affine(self, params: MinGRUParams, x: Array) -> tuple[MinState, MinState]:
        """Returns 1 - z and z n."""
        z, n = _preactivations(params, x, gates=2)
        # 1 - σ(z) is computed as σ(-z), without cancellation.
        return MinState(jax.nn.sigmoid(-z)), MinState(jax.nn.sigmoid(z) * self.activation(n))

    def readout(self, params: MinGRUParams, state: MinState, x: Array) -> Array:
        """Returns the state."""
        return state.hidden.astype(params.bias.dtype)

    def step(self, params: MinGRUParams, state: MinState, x: Array) -> tuple[MinState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)


@frozen
class MinLSTM:
    """The minimal LSTM: gates that depend only on the input and sum to one.

        f, i = σ(x W + b)                     (the blocks f, i)
        n = g(x W_h + b_h)
        h' = f / (f + i) h + i / (f + i) n

    Args:
        hidden_size: features of the state and of the output.
        activation: g, an elementwise function; default `jaxrnn.activations.positive`, the paper's
            log-space form. `jaxrnn.activations.identity` gives the form of the paper's main text.
        kernel_init: initializer of W, drawn per gate; default: LeCun normal.
        bias_init: initializer of b as ``[3, hidden]``, in the order f, i, h; default: zeros. The
            paper uses ``ForgetBias(value, gate=0)`` for long sequences.

    Shapes:
        x ``[*batch, input]``, state ``MinState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.MinLSTM(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> a, b = cell.affine(params, jax.numpy.ones(3))
        >>> bool(((a.hidden > 0) & (a.hidden < 1)).all())
        True

    References:
        L. Feng et al., "Were RNNs all we needed?", 2024, section 3, and appendix B for g.

    Note:
        The two quotients are computed as σ(d) and σ(-d) with d = log f - log i, which stays
        accurate where both gates are nearly closed.
    """

    hidden_size: int
    activation: Callable[[Array], Array] = positive
    kernel_init: Initializer = initializers.LecunNormal()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> MinLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        return MinLSTMParams(*_init(self, key, input_size, dtype, gates=3))

    def init_state(self, params: MinLSTMParams, batch_shape: tuple[int, ...] = ()) -> MinState:
        """Returns zeros."""
        return MinState(*zeros(params, batch_shape, self.hidden_size))

    def affine(self, params: MinLSTMParams, x: Array) -> tuple[MinState, MinState]:
        """Returns f / (f + i) and i / (f + i) n."""
        f, i, n = _preactivations(params, x, gates=3)
        d = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
        return MinState(jax.nn.sigmoid(d)), MinState(jax.nn.sigmoid(-d) * self.activation(n))

    def readout(self, params: MinLSTMParams, state: MinState, x: Array) -> Array:
        """Returns the state."""
        return state.hidden.astype(params.bias.dtype)

    def step(self, params: MinLSTMParams, state: MinState, x: Array) -> tuple[MinState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)
