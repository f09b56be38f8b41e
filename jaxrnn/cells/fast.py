"""Simple recurrent networks with a weighted residual connection through time."""

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
from jaxrnn.cells.elman import ElmanState


class FastRNNParams(NamedTuple):
    """Parameters of `FastRNN`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [hidden, hidden]
    bias: Array  # [hidden]
    alpha_logit: Array  # [], α = σ(alpha_logit)
    beta_logit: Array  # [], β = σ(beta_logit)


class FastGRNNParams(NamedTuple):
    """Parameters of `FastGRNN`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [hidden, hidden]
    bias: Array  # [2 * hidden], of z before that of the candidate
    zeta_logit: Array  # [], ζ = σ(zeta_logit)
    nu_logit: Array  # [], ν = σ(nu_logit)


@frozen
class FastRNN:
    """A simple recurrent network with a weighted residual connection: two more scalars.

        n = φ(x W + b + h U)
        h' = α n + β h,   0 ≤ α, β ≤ 1

    Args:
        hidden_size: features of the state and of the output.
        activation: φ, an elementwise function; default: tanh.
        alpha_logit: the initial logit of α.
        beta_logit: the initial logit of β.
        kernel_init: initializer of W; default: normal with standard deviation 0.1.
        recurrent_init: initializer of U; default: normal with standard deviation 0.1.
        bias_init: initializer of b; default: ones.

    Shapes:
        x ``[*batch, input]``, state ``ElmanState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.FastRNN(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> print(jax.nn.sigmoid(params.alpha_logit).round(3))
        0.047

    References:
        A. Kusupati, M. Singh, K. Bhatia, A. Kumar, P. Jain and M. Varma, "FastGRNN: a fast,
        accurate, stable and tiny kilobyte sized gated recurrent neural network", 2018, eq. 2.

    Note:
        The initial values follow the authors' code. Low-rank and sparse kernels are omitted.
    """

    hidden_size: int
    activation: Callable[[Array], Array] = tanh
    alpha_logit: float = -3.0
    beta_logit: float = 3.0
    kernel_init: Initializer = initializers.Normal(0.1)
    recurrent_init: Initializer = initializers.Normal(0.1)
    bias_init: Initializer = initializers.Constant(1.0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> FastRNNParams:
        """Draws the parameters."""
        dense = dense_params(self, key, input_size, dtype, (1, 1, 1))
        logits = jnp.array([self.alpha_logit, self.beta_logit], dense[0].dtype)
        return FastRNNParams(*dense, *logits)

    def init_state(self, params: FastRNNParams, batch_shape: tuple[int, ...] = ()) -> ElmanState:
        """Returns zeros."""
        return ElmanState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: FastRNNParams, state: ElmanState, x: Array) -> tuple[ElmanState, Array]:
        """One step of the equations above."""
        alpha = jax.nn.sigmoid(widen(params.alpha_logit))
        beta = jax.nn.sigmoid(widen(params.beta_logit))
        z = product(x, params.input_kernel) + widen(params.bias)
        n = self.activation(z + product(state.hidden, params.recurrent_kernel))
        h = alpha * n + beta * state.hidden
        return ElmanState(h), h.astype(params.bias.dtype)


@frozen
class FastGRNN:
    """A gated network whose gate and candidate share both kernels.

        a = x W + h U
        z = σ(a + b_z)
        n = tanh(a + b_n)
        h' = (ζ (1 - z) + ν) n + z h,   0 ≤ ζ, ν ≤ 1

    Args:
        hidden_size: features of the state and of the output.
        zeta_logit: the initial logit of ζ.
        nu_logit: the initial logit of ν.
        kernel_init: initializer of W; default: normal with standard deviation 0.1.
        recurrent_init: initializer of U; default: normal with standard deviation 0.1.
        bias_init: initializer of b as ``[2, hidden]``, z before n; default: ones.

    Shapes:
        x ``[*batch, input]``, state ``ElmanState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.FastGRNN(hidden_size=4).init(jax.random.key(0), input_size=3)
        >>> params.recurrent_kernel.shape, params.bias.shape
        ((4, 4), (8,))

    References:
        A. Kusupati, M. Singh, K. Bhatia, A. Kumar, P. Jain and M. Varma, "FastGRNN: a fast,
        accurate, stable and tiny kilobyte sized gated recurrent neural network", 2018, eq. 6.

    Note:
        The initial values follow the authors' code. Low-rank, sparse and quantized kernels are
        omitted.
    """

    hidden_size: int
    zeta_logit: float = 1.0
    nu_logit: float = -4.0
    kernel_init: Initializer = initializers.Normal(0.1)
    recurrent_init: Initializer = initializers.Normal(0.1)
    bias_init: Initializer = initializers.Constant(1.0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> FastGRNNParams:
        """Draws the parameters."""
        dense = dense_params(self, key, input_size, dtype, (1, 1, 2))
        logits = jnp.array([self.zeta_logit, self.nu_logit], dense[0].dtype)
        return FastGRNNParams(*dense, *logits)

    def init_state(self, params: FastGRNNParams, batch_shape: tuple[int, ...] = ()) -> ElmanState:
        """Returns zeros."""
        return ElmanState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: FastGRNNParams, state: ElmanState, x: Array) -> tuple[ElmanState, Array]:
        """One step of the equations above."""
        zeta = jax.nn.sigmoid(widen(params.zeta_logit))
        nu = jax.nn.sigmoid(widen(params.nu_logit))
        b_z, b_n = jnp.split(widen(params.bias), 2)
        # The biases come last, because both gates share x W + h U.
        a = product(x, params.input_kernel) + product(state.hidden, params.recurrent_kernel)
        z = jax.nn.sigmoid(a + b_z)
        h = (zeta * (1 - z) + nu) * jnp.tanh(a + b_n) + z * state.hidden
        return ElmanState(h), h.astype(params.bias.dtype)
