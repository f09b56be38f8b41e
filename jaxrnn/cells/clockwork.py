"""The clockwork recurrent network, whose modules update with different periods."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrnn import initializers
from jaxrnn._arguments import check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, state_dtype, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.activations import tanh
from jaxrnn.cells._dense import dense_params


class ClockworkRNNParams(NamedTuple):
    """Parameters of `ClockworkRNN`."""

    input_kernel: Array  # [input, hidden]
    recurrent_kernel: Array  # [hidden, hidden], zero and unused from fast modules to slow ones
    bias: Array  # [hidden]


class ClockworkRNNState(NamedTuple):
    """State of `ClockworkRNN`."""

    hidden: Array  # [*batch, hidden]
    time: Array  # int32 [*batch], the steps taken since the sequence began


@frozen
class ClockworkRNN:
    """A simple recurrent network in modules; module i updates at every T_i-th step.

        h'_i = φ(x W_i + b_i + Σ_j h_j U_ji)   where t mod T_i = 0, over j with T_i ≤ T_j
        h'_i = h_i                             elsewhere

    The hidden units are divided into one module per period, all of one size. A module receives the
    states of itself and of slower modules. t is 0 at the first step, at which all modules update.

    Args:
        hidden_size: features of the state and of the output, a multiple of the number of periods.
        periods: T, the periods of the modules in steps, in any order.
        activation: φ, an elementwise function; default: tanh.
        kernel_init: initializer of W; default: normal with standard deviation 0.1.
        recurrent_init: initializer of U, before the blocks from fast to slow modules are set to
            zero; default: normal with standard deviation 0.1.
        bias_init: initializer of b; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``ClockworkRNNState(hidden [*batch, hidden], time [*batch])``,
        y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: a size or a period is not a positive int, or ``hidden_size`` is not a
            multiple of the number of periods.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.ClockworkRNN(hidden_size=2, periods=(1, 3))
        >>> params = cell.init(jax.random.key(0), input_size=1)
        >>> _, ys = rnn.unroll(cell, params, jax.random.normal(jax.random.key(1), (6, 1)))
        >>> print((jax.numpy.diff(ys, axis=0) != 0).astype(int).T)  # updates from step 1
        [[1 1 1 1 1]
         [0 0 1 0 0]]

    References:
        J. Koutník, K. Greff, F. Gomez and J. Schmidhuber, "A clockwork RNN", 2014, eqs. 1, 3
        and 4.

    Note:
        The paper computes only the modules that update; here one product computes all, and the
        others keep their state. The paper's equations have no biases. With all periods 1 this is
        `Elman`.
    """

    hidden_size: int
    periods: tuple[int, ...] = (1, 2, 4, 8)
    activation: Callable[[Array], Array] = tanh
    kernel_init: Initializer = initializers.Normal(0.1)
    recurrent_init: Initializer = initializers.Normal(0.1)
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        object.__setattr__(self, "periods", tuple(self.periods))
        for period in self.periods:
            check_size("every period", period)
        if not self.periods or self.hidden_size % len(self.periods):
            raise ValueError(
                f"hidden_size must be a multiple of the number of periods, "
                f"got hidden_size={self.hidden_size} and periods={self.periods}"
            )

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def _unit_periods(self) -> np.ndarray:
        """The period of every unit, int32 [hidden]."""
        return np.repeat(np.array(self.periods, np.int32), self.hidden_size // len(self.periods))

    def _open(self, kernel: Array) -> Array:
        """The recurrent kernel with the blocks from faster to slower modules set to 0."""
        periods = self._unit_periods
        return jnp.where(periods[None, :] <= periods[:, None], kernel, jnp.zeros_like(kernel))

    def init(self, key: Array, input_size: int, dtype: Any = None) -> ClockworkRNNParams:
        """Draws the parameters."""
        kernel, recurrent, bias = dense_params(self, key, input_size, dtype, (1, 1, 1))
        return ClockworkRNNParams(kernel, self._open(recurrent), bias)

    def init_state(
        self, params: ClockworkRNNParams, batch_shape: tuple[int, ...] = ()
    ) -> ClockworkRNNState:
        """Returns zeros."""
        dtype = state_dtype(params.bias.dtype)
        hidden = jnp.zeros((*batch_shape, self.hidden_size), dtype)
        return ClockworkRNNState(hidden, jnp.zeros(batch_shape, jnp.int32))

    def step(
        self, params: ClockworkRNNParams, state: ClockworkRNNState, x: Array
    ) -> tuple[ClockworkRNNState, Array]:
        """One step of the equations above."""
        z = product(x, params.input_kernel) + widen(params.bias)
        z = z + product(state.hidden, self._open(params.recurrent_kernel))
        moves = state.time[..., None] % self._unit_periods == 0
        h = jnp.where(moves, self.activation(z), state.hidden)
        return ClockworkRNNState(h, state.time + 1), h.astype(params.bias.dtype)
