"""The selective state space model of Mamba, S6."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
from jaxrnn._frozen import frozen
from jaxrnn._numerics import joined_kernel, product, split_columns, state_dtype, widen
from jaxrnn._typing import Array, Initializer


class SelectiveSSMParams(NamedTuple):
    """Parameters of `SelectiveSSM`."""

    input_kernel: Array  # [input, rank + 2 * state], of Δ, B and C; + hidden to project x
    step_kernel: Array  # [rank, hidden]
    step_bias: Array  # [hidden]
    log_rate: Array  # [hidden, state], log(-A)
    feedthrough: Array  # [hidden], D


class SelectiveSSMState(NamedTuple):
    """State of `SelectiveSSM`."""

    hidden: Array  # [*batch, hidden, state]


@frozen
class SelectiveSSM:
    """The selective state space model (S6): each feature has its own diagonal system.

        Δ = softplus((x W_Δ) V + b_Δ),   B = x W_B,   C = x W_C
        h'_dn = exp(Δ_d A_dn) h_dn + Δ_d B_n x_d,     A = -exp(log_rate)
        y_d = Σ_n C_n h'_dn + D_d x_d

    The step size Δ depends on the input and controls how much of the past is kept and how much of x
    is written. If input and state differ in size, x in the last two equations is x W_x, with W_x as
    the last block of the kernel.

    Args:
        hidden_size: features d of the state and of the output.
        state_size: the size n of the state of each feature.
        rank: rank of the map from x to Δ; default ``hidden_size`` / 16, rounded up.
        kernel_init: initializer of W, drawn per block; default: LeCun normal.
        step_kernel_init: initializer of V; default: uniform in ±1/√rank.
        step_init: initializer of softplus(b_Δ); default: log-uniform in [0.001, 0.1].
        rate_init: initializer of -A as ``[hidden, state]``; default: 1, 2, ..., ``state_size`` in
            each row.
        feedthrough_init: initializer of D; default: ones.

    Shapes:
        x ``[*batch, input]``, state ``SelectiveSSMState(hidden)`` ``[*batch, hidden, state]``,
        y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: a size is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.SelectiveSSM(hidden_size=8, state_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=8)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 8)))
        >>> final.hidden.shape, ys.shape
        ((2, 8, 4), (7, 2, 8))

    References:
        A. Gu and T. Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023,
        algorithm 2.

    Note:
        B is discretized as Δ B, as in the authors' code and weights, instead of by the zero-order
        hold of the paper's eq. 4. Mamba's convolution and gate are separate layers.
    """

    hidden_size: int
    state_size: int = 16
    rank: int | None = None
    kernel_init: Initializer = initializers.LecunNormal()
    step_kernel_init: Initializer | None = None
    step_init: Initializer = initializers.LogUniform(0.001, 0.1)
    rate_init: Initializer | None = None
    feedthrough_init: Initializer = initializers.Constant(1.0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("state_size", self.state_size)
        check_size("rank", self._rank)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def _rank(self) -> int:
        return math.ceil(self.hidden_size / 16) if self.rank is None else self.rank

    def init(self, key: Array, input_size: int, dtype: Any = None) -> SelectiveSSMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        wide, hidden, state = state_dtype(dtype), self.hidden_size, self.state_size
        keys = jax.random.split(key, 5)
        blocks = (self._rank, state, state) + (hidden,) * (input_size != hidden)
        bound = self._rank**-0.5
        step_kernel_init = self.step_kernel_init or initializers.Uniform(-bound, bound)
        rate_init = self.rate_init or initializers.Linspace(1, state)
        step = self.step_init(keys[2], (hidden,), wide)
        return SelectiveSSMParams(
            joined_kernel(self.kernel_init, keys[0], input_size, blocks, dtype),
            step_kernel_init(keys[1], (self._rank, hidden), dtype),
            jnp.log(jnp.expm1(step)).astype(dtype),  # inverse softplus
            jnp.log(rate_init(keys[3], (hidden, state), wide)).astype(dtype),
            self.feedthrough_init(keys[4], (hidden,), dtype),
        )

    def init_state(
        self, params: SelectiveSSMParams, batch_shape: tuple[int, ...] = ()
    ) -> SelectiveSSMState:
        """Returns zeros."""
        shape = (*batch_shape, self.hidden_size, self.state_size)
        return SelectiveSSMState(jnp.zeros(shape, state_dtype(params.step_bias.dtype)))

    def _blocks(self, params: SelectiveSSMParams) -> list[Array]:
        """W_Δ with W_B, W_C, and W_x, which has no columns where x is not projected."""
        first, state = self._rank + self.state_size, self.state_size
        rest = params.input_kernel.shape[1] - first - state
        return split_columns(params.input_kernel, (first, state, rest))

    def affine(
        self, params: SelectiveSSMParams, x: Array
    ) -> tuple[SelectiveSSMState, SelectiveSSMState]:
        """Returns exp(Δ A) and Δ B x."""
        kernel, _, projection = self._blocks(params)
        low_rank, b = jnp.split(product(x, kernel), [self._rank], axis=-1)
        step = jax.nn.softplus(product(low_rank, params.step_kernel) + widen(params.step_bias))
        value = product(x, projection) if projection.shape[1] else widen(x)
        a = jnp.exp(-step[..., None] * jnp.exp(widen(params.log_rate)))
        return SelectiveSSMState(a), SelectiveSSMState((step * value)[..., None] * b[..., None, :])

    def readout(self, params: SelectiveSSMParams, state: SelectiveSSMState, x: Array) -> Array:
        """Returns C h' + D x."""
        _, kernel, projection = self._blocks(params)
        c = product(x, kernel)
        value = product(x, projection) if projection.shape[1] else widen(x)
        y = jnp.sum(state.hidden * c[..., None, :], axis=-1) + widen(params.feedthrough) * value
        return y.astype(params.feedthrough.dtype)

    def step(
        self, params: SelectiveSSMParams, state: SelectiveSSMState, x: Array
    ) -> tuple[SelectiveSSMState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)
