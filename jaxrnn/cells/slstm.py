"""The scalar LSTM of xLSTM: exponential gates, a normalizer, and memory mixing by heads."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._frozen import frozen
from jaxrnn._numerics import packed_bias, packed_kernel, product, state_dtype, widen
from jaxrnn._typing import Array, Initializer

# Far below any log gate, but finite: 0 times infinity is NaN in a derivative.
_NOTHING_WRITTEN = -1e30


class SLSTMParams(NamedTuple):
    """Parameters of `SLSTM`; gates on the last axis in the order i, f, z, o."""

    input_kernel: Array  # [input, 4 * hidden]
    recurrent_kernel: Array  # [num_heads, head, 4 * head], head = hidden / num_heads
    bias: Array  # [4 * hidden]


class SLSTMState(NamedTuple):
    """State of `SLSTM`; cell and normalizer are those of the equations times exp(-stabilizer)."""

    hidden: Array  # [*batch, hidden], h
    cell: Array  # [*batch, hidden], c
    normalizer: Array  # [*batch, hidden], n
    stabilizer: Array  # [*batch, hidden], m


@frozen
class SLSTM:
    """The scalar LSTM of xLSTM (sLSTM): exponential input gate and a normalizer.

        ĩ, f̃, z̃, õ = x W + b + h R
        m' = max(log σ(f̃) + m, ĩ)
        i = exp(ĩ - m'),   f = exp(log σ(f̃) + m - m')
        c' = f c + i tanh(z̃)
        n' = f n + i
        h' = σ(õ) c' / n'

    R is block-diagonal: units mix within their head. m stabilizes the exponentials and does not
    change h. Initially h = c = n = 0, and m is -1e30 instead of -∞, so that n is at least 1 from
    the first step on.

    Args:
        hidden_size: features of each part of the state, and of the output.
        num_heads: the number of blocks of R, a divisor of ``hidden_size``.
        forget_bias: the initial bias of the forget gate; other biases are zero.
        kernel_init: initializer of W, drawn per gate; default: Glorot uniform.
        recurrent_init: initializer of R ``[head, head]``, drawn per gate and head; default:
            orthogonal.
        bias_init: initializer of b as ``[4, hidden]``, overriding ``forget_bias``.

    Shapes:
        x ``[*batch, input]``, state ``SLSTMState(hidden, cell, normalizer, stabilizer)``, each
        ``[*batch, hidden]``, y ``[*batch, hidden]``.

    Raises:
        TypeError, ValueError: ``hidden_size`` or ``num_heads`` is not a positive int, or
            ``num_heads`` does not divide ``hidden_size``.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.SLSTM(hidden_size=8, num_heads=2)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 5, 3)))
        >>> params.recurrent_kernel.shape, bool((final.normalizer >= 1).all())
        ((2, 4, 16), True)

    References:
        M. Beck et al., "xLSTM: extended long short-term memory", 2024, eqs. 8 to 17
        (first version).

    Note:
        The forget gate is logistic, as in the authors' code; the paper allows an exponential one.
        The authors initialize R to zero and the bias of f by a power law over each head. The
        convolution, normalization and projections of their block are separate layers.
    """

    hidden_size: int
    num_heads: int = 1
    forget_bias: float = 1.0
    kernel_init: Initializer = initializers.GlorotUniform()
    recurrent_init: Initializer = initializers.Orthogonal()
    bias_init: Initializer | None = None

    def __post_init__(self):
        check_size("hidden_size", self.hidden_size)
        check_size("num_heads", self.num_heads)
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads must divide hidden_size, got {self.num_heads} heads of "
                f"{self.hidden_size} features"
            )

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> SLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
        bias_init = self.bias_init or initializers.ForgetBias(self.forget_bias)
        hidden, head = self.hidden_size, self.hidden_size // self.num_heads
        return SLSTMParams(
            packed_kernel(self.kernel_init, kernel_key, (input_size, hidden), 4, dtype),
            jnp.stack(
                [
                    packed_kernel(self.recurrent_init, key, (head, head), 4, dtype)
                    for key in jax.random.split(recurrent_key, self.num_heads)
                ]
            ),
            packed_bias(bias_init, bias_key, hidden, 4, dtype),
        )

    def init_state(self, params: SLSTMParams, batch_shape: tuple[int, ...] = ()) -> SLSTMState:
        """Returns zeros, and a stabilizer of -1e30: nothing is written."""
        shape, dtype = (*batch_shape, self.hidden_size), state_dtype(params.bias.dtype)
        zeros = jnp.zeros(shape, dtype)
        return SLSTMState(zeros, zeros, zeros, jnp.full(shape, _NOTHING_WRITTEN, dtype))

    def _recurrent_product(self, hidden: Array, kernel: Array) -> Array:
        """``h R`` with R block-diagonal, its columns in the order of the input's gates."""
        heads, head, _ = kernel.shape
        blocks = jnp.einsum(
            "...hi,higj->...ghj",
            hidden.astype(kernel.dtype).reshape(*hidden.shape[:-1], heads, head),
            kernel.reshape(heads, head, 4, head),
            preferred_element_type=state_dtype(kernel.dtype),
        )
        return blocks.reshape(*hidden.shape[:-1], 4 * self.hidden_size)

    def step(self, params: SLSTMParams, state: SLSTMState, x: Array) -> tuple[SLSTMState, Array]:
        """One step of the equations above."""
        h, c, n, m = state
        from_input = product(x, params.input_kernel) + widen(params.bias)
        from_state = self._recurrent_product(h, params.recurrent_kernel)
        i, f, z, o = jnp.split(from_input + from_state, 4, axis=-1)
        kept = jax.nn.log_sigmoid(f) + m
        m = jnp.maximum(kept, i)
        i = jnp.exp(i - m)
        f = jnp.exp(kept - m)
        c = f * c + i * jnp.tanh(z)
        n = f * n + i
        h = jax.nn.sigmoid(o) * c / n
        return SLSTMState(h, c, n, m), h.astype(params.bias.dtype)
