"""Recurrent networks of rectified linear units: IRNN and IndRNN."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import relu
from jaxrnn.cells._dense import zeros
from jaxrnn.cells.elman import Elman, ElmanParams, ElmanState


@frozen
class IRNN:
    """A simple recurrent network of rectified linear units, initialized to the identity.

        h = max(0, x W + b + h U),   at first U = scale · I, b = 0

    While U is the identity, gradients neither vanish nor explode.

    Args:
        hidden_size: features of the state and of the output.
        scale: the initial diagonal of U; less than 1 for tasks with a shorter memory.
        kernel_init: initializer of W; default: normal with standard deviation 0.001.
        bias_init: initializer of b; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``ElmanState(hidden)`` and y ``[*batch, hidden]``; the
        parameters are ``ElmanParams``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> params = rnn.IRNN(hidden_size=2, scale=0.5).init(jax.random.key(0), input_size=3)
        >>> print(params.recurrent_kernel)
        [[0.5 0. ]
         [0.  0.5]]

    References:
        Q. V. Le, N. Jaitly and G. E. Hinton, "A simple way to initialize recurrent networks of
        rectified linear units", 2015.

    Note:
        Equals ``Elman(activation=relu)`` with other initial parameters.
    """

    hidden_size: int
    scale: float = 1.0
    kernel_init: Initializer = initializers.Normal(0.001)
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def _elman(self) -> Elman:
        recurrent_init = initializers.Identity(self.scale)
        return Elman(self.hidden_size, relu, self.kernel_init, recurrent_init, self.bias_init)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ElmanParams:
        """Draws the parameters."""
        return self._elman.init(key, input_size, dtype)

    def init_state(self, params: ElmanParams, batch_shape: tuple[int, ...] = ()) -> ElmanState:
        """Returns zeros."""
        return self._elman.init_state(params, batch_shape)

    def step(self, params: ElmanParams, state: ElmanState, x: Array) -> tuple[ElmanState, Array]:
        """One step of the equation above."""
        return self._elman.step(params, state, x)


class IndRNNParams(NamedTuple):
    """Parameters of `IndRNN`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [hidden], the diagonal of a kernel
    bias: Array  # [hidden]


@frozen
class IndRNN:
    """The independently recurrent network: each unit depends only on its own past.

        h = φ(x W + b + u ⊙ h)

    Units mix in the next layer. Over T steps of rectified linear units a gradient grows at most by
    |u|^T, so that |u| ≤ 2^(1/T) bounds it by 2; see `constrain`.

    Args:
        hidden_size: features of the state and of the output.
        activation: φ, an elementwise function; default: the rectified linear unit.
        kernel_init: initializer of W; default: Glorot uniform.
        recurrent_init: initializer of u as ``[1, hidden]``; default: uniform in [0, 1). For a
            memory of up to T steps the authors initialize the last layer near 1, with
            ``Uniform(low, high)``, low = 2^(-1/T), high = 2^(1/T).
        bias_init: initializer of b; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``ElmanState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.IndRNN(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> params = params._replace(recurrent_kernel=3 * jax.numpy.ones(4))
        >>> print(cell.constrain(params, length=2).recurrent_kernel.round(3))
        [1.414 1.414 1.414 1.414]

    References:
        S. Li, W. Li, C. Cook, C. Zhu and Y. Gao, "Independently recurrent neural network (IndRNN):
        building a longer and deeper RNN", 2018, eq. 2.

    Note:
        Equals `Elman` with the diagonal kernel diag(u).
    """

    hidden_size: int
    activation: Callable[[Array], Array] = relu
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Uniform(0.0, 1.0)
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> IndRNNParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 3)
        hidden = self.hidden_size
        return IndRNNParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 1, dtype),
            packed_bias(self.recurrent_init, keys[1], hidden, 1, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 1, dtype),
        )

    def constrain(self, params: IndRNNParams, length: int) -> IndRNNParams:
        """Clips u to |u| ≤ 2^(1/length), as the paper does after every update.

        Args:
            params: the parameters after an update.
            length: T, the longest sequence through which gradients flow, in steps.

        Returns:
            The parameters, with ``recurrent_kernel`` clipped.
        """
        check_size("length", length)
        bound = 2.0 ** (1 / length)
        u = jnp.clip(params.recurrent_kernel, -bound, bound)
        return params._replace(recurrent_kernel=u)

    def init_state(self, params: IndRNNParams, batch_shape: tuple[int, ...] = ()) -> ElmanState:
        """Returns zeros."""
        return ElmanState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: IndRNNParams, state: ElmanState, x: Array) -> tuple[ElmanState, Array]:
        """One step of the equation above."""
        z = product(x, params.input_kernel) + widen(params.bias)
        h = self.activation(z + widen(params.recurrent_kernel) * state.hidden)
        return ElmanState(h), h.astype(params.bias.dtype)
