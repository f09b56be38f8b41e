"""The Jordan network, which feeds back its output."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import identity, tanh
from jaxrnn.cells._dense import zeros


class JordanParams(NamedTuple):
    """Parameters of `Jordan`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [output, hidden]
    bias: Array  # [hidden]
    output_kernel: Array  # [hidden, output]
    output_bias: Array  # [output]


class JordanState(NamedTuple):
    """State of `Jordan`."""

    trace: Array  # [*batch, output], a decaying sum of past outputs


@frozen
class Jordan:
    """The Jordan network: the output, not the hidden layer, is fed back.

        h = φ(x W + b + s U)
        y = ψ(h V + c)
        s' = μ s + y

    With μ = 0 the state is the last output, the form usually called a Jordan network.

    Args:
        hidden_size: units of the hidden layer.
        output_size: features of the output and of the state; ``hidden_size`` by default.
        decay: μ, the decay of the trace of past outputs in one step.
        activation: φ, an elementwise function.
        output_activation: ψ, an elementwise function; default: the identity.
        kernel_init: initializer of W; default: Glorot uniform.
        recurrent_init: initializer of U; default: Glorot uniform.
        bias_init: initializer of b and c, each as ``[1, size]``; default: zeros.
        output_init: initializer of V; default: Glorot uniform.

    Shapes:
        x ``[*batch, input]``, state ``JordanState(trace)`` and y ``[*batch, output]``.

    Raises:
        TypeError, ValueError: a size is not a positive int, or ``decay`` is not in [0, 1).

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.Jordan(hidden_size=4, output_size=2)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((5, 3)))
        >>> ys.shape, bool((final.trace == ys[-1]).all())
        ((5, 2), True)

    References:
        M. I. Jordan, "Serial order: a parallel distributed processing approach", technical report
        8604, Institute for Cognitive Science, University of California, San Diego, 1986.

    Note:
        All of Jordan's units are logistic. His plan units, which are constant over a sequence, are
        the input here.
    """

    hidden_size: int
    output_size: int | None = None
    decay: float = 0.0
    activation: Callable[[Array], Array] = tanh
    output_activation: Callable[[Array], Array] = identity
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.GlorotUniform()
    bias_init: Initializer = initializers.Constant()
    output_init: Initializer = initializers.GlorotUniform()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        if self.output_size is None:
            object.__setattr__(self, "output_size", self.hidden_size)
        check_size("output_size", self.output_size)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")

    def init(self, key: Array, input_size: int, dtype: Any = None) -> JordanParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 5)
        hidden, output = self.hidden_size, self.output_size or self.hidden_size
        return JordanParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 1, dtype),
            packed_kernel(self.recurrent_init, keys[1], (output, hidden), 1, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 1, dtype),
            packed_kernel(self.output_init, keys[3], (hidden, output), 1, dtype),
            packed_bias(self.bias_init, keys[4], output, 1, dtype),
        )

    def init_state(self, params: JordanParams, batch_shape: tuple[int, ...] = ()) -> JordanState:
        """Returns zeros."""
        return JordanState(*zeros(params, batch_shape, self.output_size or self.hidden_size))

    def step(self, params: JordanParams, state: JordanState, x: Array) -> tuple[JordanState, Array]:
        """One step of the equations above."""
        s = state.trace
        z = product(x, params.input_kernel) + widen(params.bias)
        h = self.activation(z + product(s, params.recurrent_kernel))
        y = self.output_activation(product(h, params.output_kernel) + widen(params.output_bias))
        return JordanState(self.decay * s + y), y.astype(params.bias.dtype)
