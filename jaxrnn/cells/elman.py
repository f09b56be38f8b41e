"""The simple recurrent network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrnn import initializers
from jaxrnn._arguments import check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import tanh
from jaxrnn.cells._dense import dense_params, zeros


class ElmanParams(NamedTuple):
    """Parameters of `Elman`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [hidden, hidden]
    bias: Array  # [hidden]


class ElmanState(NamedTuple):
    """State of `Elman`."""

    hidden: Array  # [*batch, hidden]


@frozen
class Elman:
    """The simple recurrent network: the hidden state is fed back through one dense layer.

        h = φ(x W + b + h U)

    Args:
        hidden_size: features of the state and of the output.
        activation: φ, an elementwise function; default `jaxrnn.activations.tanh`. A cell pickles if
            this is a module-level function.
        kernel_init: initializer of W; default: Glorot uniform.
        recurrent_init: initializer of U; default: orthogonal.
        bias_init: initializer of b; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``ElmanState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.Elman(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> state = cell.init_state(params, batch_shape=(2,))
        >>> state, y = cell.step(params, state, jax.numpy.ones((2, 3)))
        >>> y.shape
        (2, 4)

    References:
        J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990, figure 2.

    Note:
        PyTorch's `nn.RNN` has two biases, whose sum is b. Elman's units are logistic.
    """

    hidden_size: int
    activation: Callable[[Array], Array] = tanh
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ElmanParams:
        """Draws the parameters."""
        return ElmanParams(*dense_params(self, key, input_size, dtype, (1, 1, 1)))

    def init_state(self, params: ElmanParams, batch_shape: tuple[int, ...] = ()) -> ElmanState:
        """Returns zeros."""
        return ElmanState(*zeros(params, batch_shape, self.hidden_size))

    def step(self, params: ElmanParams, state: ElmanState, x: Array) -> tuple[ElmanState, Array]:
        """One step of the equation above."""
        z = product(x, params.input_kernel) + widen(params.bias)
        h = self.activation(z + product(state.hidden, params.recurrent_kernel))
        return ElmanState(h), h.astype(params.bias.dtype)
