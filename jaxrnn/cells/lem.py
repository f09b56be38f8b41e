"""Long expressive memory (LEM): two states with separate, learned time steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_positive, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import product, split_columns, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._dense import dense_params, zeros


class LEMParams(NamedTuple):
    """Parameters of `LEM`; blocks on the last axis in the order 1, 2, z, y."""

    input_kernel: Array  # [input, 4 * hidden]
    recurrent_kernel: Array  # [hidden, 4 * hidden]; the last block acts on the new z
    bias: Array  # [4 * hidden]


class LEMState(NamedTuple):
    """State of `LEM`."""

    hidden: Array  # [*batch, hidden], y
    memory: Array  # [*batch, hidden], z


@frozen
class LEM:
    """Long expressive memory: two states, each with a learned time step for every unit.

        Δ₁ = Δt σ(x V₁ + b₁ + y W₁)
        Δ₂ = Δt σ(x V₂ + b₂ + y W₂)
        z' = (1 - Δ₁) z + Δ₁ tanh(x V_z + b_z + y W_z)
        y' = (1 - Δ₂) y + Δ₂ tanh(x V_y + b_y + z' W_y)

    Args:
        hidden_size: features of y, of z and of the output.
        time_step: Δt, the longest time step.
        kernel_init: initializer of V, drawn per block; default: uniform in ±1/√hidden.
        recurrent_init: initializer of W, drawn per block; default: uniform in ±1/√hidden.
        bias_init: initializer of b as ``[4, hidden]``; default: uniform in ±1/√hidden.

    Shapes:
        x ``[*batch, input]``, state ``LEMState(hidden, memory)``, both ``[*batch, hidden]``, y
        ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` is not a positive int, or ``time_step`` not positive.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LEM(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))
        >>> ys.shape, final.memory.shape
        ((7, 2, 4), (2, 4))

    References:
        T. K. Rusch, S. Mishra, N. B. Erichson and M. W. Mahoney, "Long expressive memory for
        sequence modeling", 2022. Code of the authors: tk-rusch/LEM, src/adding/network.py.

    Note:
        The authors' code has a second bias for each W (b here is the sum of both) and packs the
        blocks in the order 2, 1, y, z.
    """

    hidden_size: int
    time_step: float = 1.0
    kernel_init: Initializer = initializers.PyTorchUniform()
    recurrent_init: Initializer = initializers.PyTorchUniform()
    bias_init: Initializer = initializers.PyTorchUniform()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_positive("time_step", self.time_step)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LEMParams:
        """Draws the parameters."""
        return LEMParams(*dense_params(self, key, input_size, dtype, (4, 4, 4)))

    def init_state(self, params: LEMParams, batch_shape: tuple[int, ...] = ()) -> LEMState:
        """Returns zeros."""
        return LEMState(*zeros(params, batch_shape, self.hidden_size, self.hidden_size))

    def step(self, params: LEMParams, state: LEMState, x: Array) -> tuple[LEMState, Array]:
        """One step of the equations above."""
        y, z = state
        sizes = (3 * self.hidden_size, self.hidden_size)
        kernel, hidden_kernel = split_columns(params.recurrent_kernel, sizes)
        from_input = product(x, params.input_kernel) + widen(params.bias)
        i_1, i_2, i_z, i_y = jnp.split(from_input, 4, axis=-1)
        h_1, h_2, h_z = jnp.split(product(y, kernel), 3, axis=-1)
        step_1 = self.time_step * jax.nn.sigmoid(i_1 + h_1)
        step_2 = self.time_step * jax.nn.sigmoid(i_2 + h_2)
        z = (1 - step_1) * z + step_1 * jnp.tanh(i_z + h_z)
        y = (1 - step_2) * y + step_2 * jnp.tanh(i_y + product(z, hidden_kernel))
        return LEMState(y, z), y.astype(params.bias.dtype)
