"""Liquid networks: units with input-dependent time constants, for irregularly sampled sequences.

The input of a step is x, or ``(x, dt)`` with the time dt since the previous step, which is 1 by
default.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, widen
from jaxrnn._typing import Array, Initializer, PyTree
from jaxrnn.cells._dense import zeros


class LTCParams(NamedTuple):
    """Parameters of `LTC`."""

    input_kernel: Array  # [input, hidden], γ
    recurrent_kernel: Array  # [hidden, hidden], γ_r
    bias: Array  # [hidden], μ
    log_time_constant: Array  # [hidden], log τ
    target: Array  # [hidden], A, towards which f drives the state


class CfCParams(NamedTuple):
    """Parameters of `CfC`; heads on the last axis in the order 1, 2, a, b."""

    input_kernel: Array  # [input, backbone]
    recurrent_kernel: Array  # [hidden, backbone]
    bias: Array  # [backbone]
    head_kernel: Array  # [backbone, 4 * hidden]
    head_bias: Array  # [4 * hidden]


class LiquidState(NamedTuple):
    """State of `LTC` and `CfC`."""

    hidden: Array  # [*batch, hidden]


def _features_and_time(x: PyTree) -> tuple[Array, Any]:
    """The features of one step's input and the time since the previous step, [*batch, 1] or 1."""
    if not isinstance(x, tuple | list):
        return x, 1.0
    if len(x) != 2:
        raise ValueError(f"x must be an array or a pair (x, dt), got {len(x)} arrays")
    features, dt = x
    if dt.shape != (*features.shape[:-1], 1):
        raise ValueError(
            f"dt must have shape {(*features.shape[:-1], 1)}, the batch axes of x and one feature, "
            f"got {dt.shape}; write e.g. dt[..., None]"
        )
    return features, widen(dt)


@frozen
class LTC:
    """The liquid time-constant network, integrated by the fused solver.

        f = σ(x γ + μ + h γ_r)
        h ← (h + δ f A) / (1 + δ (1 / τ + f))      ``unfolds`` times, with δ = dt / unfolds

    A step of dh/dt = -(1 / τ + f) h + f A, implicit in the linear terms: every unit stays between 0
    and its A for any input.

    Args:
        hidden_size: features of the state and of the output.
        unfolds: solver steps per time step.
        kernel_init: initializer of γ; default: Glorot uniform.
        recurrent_init: initializer of γ_r; default: orthogonal.
        bias_init: initializer of μ as ``[1, hidden]``; default: zeros.
        log_time_constant_init: initializer of log τ as ``[1, hidden]``; default: zeros.
        target_init: initializer of A as ``[1, hidden]``; default: uniform in ±1.

    Shapes:
        x ``[*batch, input]``, or ``(x, dt)`` with dt ``[*batch, 1]``, not negative; state
        ``LiquidState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` or ``unfolds`` is not a positive int.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.LTC(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, (jnp.ones((7, 2, 3)), jnp.full((7, 2, 1), 0.5)))
        >>> ys.shape
        (7, 2, 4)

    References:
        R. Hasani, M. Lechner, A. Amini, D. Rus and R. Grosu, "Liquid time-constant networks", 2021,
        eqs. 1 and 3, algorithm 1.

    Note:
        The paper leaves the nonlinearity of f open, with tanh as an example; the logistic function
        here is that of its bounds (theorems 1 and 2). τ is parametrized by its logarithm, which
        keeps it positive; the authors clip it after each update. Their code implements the
        biological form, with a logistic function, a conductance and a reversal potential per
        synapse.
    """

    hidden_size: int
    unfolds: int = 6
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer = initializers.Constant()
    log_time_constant_init: Initializer = initializers.Constant()
    target_init: Initializer = initializers.Uniform(-1.0, 1.0)

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("unfolds", self.unfolds)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LTCParams:
        """Draws the parameters; ``input_size`` counts the features of x, without dt."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 5)
        hidden = self.hidden_size
        return LTCParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, hidden), 1, dtype),
            packed_kernel(self.recurrent_init, keys[1], (hidden, hidden), 1, dtype),
            packed_bias(self.bias_init, keys[2], hidden, 1, dtype),
            packed_bias(self.log_time_constant_init, keys[3], hidden, 1, dtype),
            packed_bias(self.target_init, keys[4], hidden, 1, dtype),
        )

    def init_state(self, params: LTCParams, batch_shape: tuple[int, ...] = ()) -> LiquidState:
        """Returns zeros."""
        return LiquidState(*zeros(params, batch_shape, self.hidden_size))

    def step(
        self, params: LTCParams, state: LiquidState, x: Array | tuple[Array, Array]
    ) -> tuple[LiquidState, Array]:
        """One step of the equations above."""
        x, dt = _features_and_time(x)
        h = state.hidden
        delta = dt / self.unfolds
        leak = jnp.exp(-widen(params.log_time_constant))
        from_input = product(x, params.input_kernel) + widen(params.bias)
        for _ in range(self.unfolds):
            f = jax.nn.sigmoid(from_input + product(h, params.recurrent_kernel))
            h = (h + delta * f * widen(params.target)) / (1 + delta * (leak + f))
        return LiquidState(h), h.astype(params.bias.dtype)


@frozen
class CfC:
    """The closed-form continuous-time network: a gate on elapsed time mixes two candidates.

        z = 1.7159 tanh(0.666 (x W + b + h U))        (the backbone)
        f₁, f₂ = tanh(z V + v)                        (the heads 1, 2)
        t_a, t_b = z V + v                            (the heads a, b)
        s = σ(t_a dt + t_b)
        h' = (1 - s) f₁ + s f₂

    A closed-form approximation to the solution of `LTC`'s differential equation.

    Args:
        hidden_size: features of the state and of the output.
        backbone_size: units of the layer shared by the four heads; default ``hidden_size``.
        kernel_init: initializer of W, and of V drawn per head; default: Glorot uniform.
        recurrent_init: initializer of U; default: Glorot uniform.
        bias_init: initializer of b as ``[1, backbone]`` and of v as ``[4, hidden]``; default:
            zeros.

    Shapes:
        x ``[*batch, input]``, or ``(x, dt)`` with dt ``[*batch, 1]``; state
        ``LiquidState(hidden)`` and y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` or ``backbone_size`` is not a positive int.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.CfC(hidden_size=4, backbone_size=16)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, (jnp.ones((7, 2, 3)), jnp.full((7, 2, 1), 0.5)))
        >>> ys.shape, params.head_kernel.shape
        ((7, 2, 4), (16, 16))

    References:
        R. Hasani et al., "Closed-form continuous-time neural networks", Nature Machine Intelligence
        4, 2022. Code of the authors: raminmh/CfC, torch_cfc.py.

    Note:
        The paper's gate is σ(-f dt) on the first candidate; the offset t_b, the backbone's
        activation (one of several in the authors' code, which also offers several layers) and the
        tanh of the candidates follow the authors' code.
    """

    hidden_size: int
    backbone_size: int | None = None
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.GlorotUniform()
    bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        if self.backbone_size is not None:
            check_size("backbone_size", self.backbone_size)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> CfCParams:
        """Draws the parameters; ``input_size`` counts the features of x, without dt."""
        dtype = check_init(key, input_size, dtype)
        keys = jax.random.split(key, 5)
        hidden = self.hidden_size
        backbone = self.backbone_size or hidden
        return CfCParams(
            packed_kernel(self.kernel_init, keys[0], (input_size, backbone), 1, dtype),
            packed_kernel(self.recurrent_init, keys[1], (hidden, backbone), 1, dtype),
            packed_bias(self.bias_init, keys[2], backbone, 1, dtype),
            packed_kernel(self.kernel_init, keys[3], (backbone, hidden), 4, dtype),
            packed_bias(self.bias_init, keys[4], hidden, 4, dtype),
        )

    def init_state(self, params: CfCParams, batch_shape: tuple[int, ...] = ()) -> LiquidState:
        """Returns zeros."""
        return LiquidState(*zeros(params, batch_shape, self.hidden_size))

    def step(
        self, params: CfCParams, state: LiquidState, x: Array | tuple[Array, Array]
    ) -> tuple[LiquidState, Array]:
        """One step of the equations above."""
        x, dt = _features_and_time(x)
        from_input = product(x, params.input_kernel) + widen(params.bias)
        from_state = product(state.hidden, params.recurrent_kernel)
        backbone = 1.7159 * jnp.tanh(0.666 * (from_input + from_state))
        heads = widen(params.head_bias) + product(backbone, params.head_kernel)
        f_1, f_2, t_a, t_b = jnp.split(heads, 4, axis=-1)
        s = jax.nn.sigmoid(t_a * dt + t_b)
        h = (1 - s) * jnp.tanh(f_1) + s * jnp.tanh(f_2)
        return LiquidState(h), h.astype(params.bias.dtype)
