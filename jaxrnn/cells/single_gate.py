"""Cells with a single gate.

The gate's block comes first on the packed axis, the candidate's second.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import tanh
from jaxrnn.cells._dense import dense_params, zeros
from jaxrnn.cells.gru import GRUState


class SingleGateParams(NamedTuple):
    """Parameters of `MinimalGatedUnit`, `UpdateGateRNN` and `JANET`."""

    input_kernel: Array  # [input, 2 * hidden]
    recurrent_kernel: Array  # [hidden, 2 * hidden]
    bias: Array  # [2 * hidden]


def _from_input(params: SingleGateParams, x: Array) -> Array:
    """The part x W + b of both pre-activations."""
    return product(x, params.input_kernel) + widen(params.bias)


@frozen
class MinimalGatedUnit:
    """The minimal gated unit: a GRU whose reset and update gates are one gate.

        f = σ(x W_f + b_f + h U_f)
        n = tanh(x W_n + b_n + (f h) U_n)
        h' = (1 - f) h + f n

    Args:
        hidden_size: features of the state and of the output.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[2, hidden]``, f before n; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.MinimalGatedUnit(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.recurrent_kernel.shape
        (4, 8)

    References:
        G.-B. Zhou, J. Wu, C.-L. Zhang and Z.-H. Zhou, "Minimal gated unit for recurrent neural
        networks", 2016.

    Note:
        Equals `ResetBeforeGRU` with r = f and z = 1 - f. Flax's `MGUCell` departs from the paper:
        there h' = (1 - f) n + f h, and f gates the product h U_n and its bias.
    """

    hidden_size: int
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> SingleGateParams:
        """Draws the parameters."""
        return SingleGateParams(*dense_params(self, key, input_size, dtype, (2, 2, 2)))

    def init_state(self, params: SingleGateParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: SingleGateParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        h = state.hidden
        gate_kernel, candidate_kernel = jnp.split(params.recurrent_kernel, 2, axis=-1)
        i_f, i_n = jnp.split(_from_input(params, x), 2, axis=-1)
        f = jax.nn.sigmoid(i_f + product(h, gate_kernel))
        n = jnp.tanh(i_n + product(f * h, candidate_kernel))
        h = (1 - f) * h + f * n
        return GRUState(h), h.astype(params.bias.dtype)


@frozen
class UpdateGateRNN:
    """The update gate recurrent network (UGRNN): a simple recurrent network with one gate.

        g = σ(x W_g + b_g + h U_g)
        c = φ(x W_c + b_c + h U_c)
        h' = g h + (1 - g) c

    Args:
        hidden_size: features of the state and of the output.
        activation: φ, an elementwise function; default: tanh.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[2, hidden]``, g before c; default: 1 for g, so that the
            cell initially remembers, and 0 for c.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.UpdateGateRNN(hidden_size=2).init(jax.random.key(0), input_size=3)
        >>> print(params.bias)
        [1. 1. 0. 0.]

    References:
        J. Collins, J. Sohl-Dickstein and D. Sussillo, "Capacity and trainability in recurrent
        neural networks", 2016.

    Note:
        The paper adds a constant to g's pre-activation, tuned per task; here it is the initial
        value of b_g.
    """

    hidden_size: int
    activation: Callable[[Array], Array] = tanh
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.ForgetBias(1.0, gate=0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> SingleGateParams:
        """Draws the parameters."""
        return SingleGateParams(*dense_params(self, key, input_size, dtype, (2, 2, 2)))

    def init_state(self, params: SingleGateParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: SingleGateParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        from_state = product(state.hidden, params.recurrent_kernel)
        g, c = jnp.split(_from_input(params, x) + from_state, 2, axis=-1)
        g = jax.nn.sigmoid(g)
        h = g * state.hidden + (1 - g) * self.activation(c)
        return GRUState(h), h.astype(params.bias.dtype)


@frozen
class JANET:
    """JANET ("just another network"): an LSTM with only a forget gate.

        s = x W_f + b_f + h U_f
        c = tanh(x W_c + b_c + h U_c)
        h' = σ(s) h + (1 - σ(s - β)) c

    Args:
        hidden_size: features of the state and of the output.
        beta: β; above 0 the cell writes more than it forgets.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of U, drawn per gate; default: orthogonal.
        bias_init: initializer of b as ``[2, hidden]``, s before c; default: 1 for s and 0 for c. If
            the longest lag T is known, the paper uses ``initializers.Chrono(T, forget_gate=0,
            input_gate=None)``.

    Shapes:
        x ``[*batch, input]``, state ``GRUState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> chrono = rnn.initializers.Chrono(100, forget_gate=0, input_gate=None)
        >>> params = rnn.JANET(2, bias_init=chrono).init(jax.random.key(0), input_size=3)
        >>> bool((params.bias[:2] > 0).all()), bool((params.bias[2:] == 0).all())
        (True, True)

    References:
        J. van der Westhuizen and J. Lasenby, "The unreasonable effectiveness of the forget gate",
        2018. Code of the authors: JosvanderWesthuizen/janet, aux_code/rnn_cells.py.

    Note:
        β = 1, and a bias of 1 without a known lag, follow the authors' code. With β = 0 this is
        `UpdateGateRNN`.
    """

    hidden_size: int
    beta: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.ForgetBias(1.0, gate=0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> SingleGateParams:
        """Draws the parameters."""
        return SingleGateParams(*dense_params(self, key, input_size, dtype, (2, 2, 2)))

    def init_state(self, params: SingleGateParams, batch_shape: tuple[int, ...] = ()) -> GRUState:
        """Returns zeros."""
        return GRUState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: SingleGateParams, state: GRUState, x: Array) -> tuple[GRUState, Array]:
        """One step of the equations above."""
        from_state = product(state.hidden, params.recurrent_kernel)
        s, c = jnp.split(_from_input(params, x) + from_state, 2, axis=-1)
        write = 1 - jax.nn.sigmoid(s - self.beta)
        h = jax.nn.sigmoid(s) * state.hidden + write * jnp.tanh(c)
        return GRUState(h), h.astype(params.bias.dtype)
