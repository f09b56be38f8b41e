"""The matrix LSTM of xLSTM."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init
from jaxrnn._frozen import frozen
from jaxrnn._numerics import joined_kernel, product, split_columns, state_dtype, widen
from jaxrnn._typing import Array, Initializer
from jaxrnn.cells._heads import (
    causal,
    check_heads,
    chunk_heads,
    join_chunk,
    join_heads,
    segment_sums,
    split_heads,
    sums_after,
)


class MLSTMParams(NamedTuple):
    """Parameters of `MLSTM`; blocks in the order q, k, v, o, i, f."""

    input_kernel: Array  # [input, 2 * key + 2 * hidden + 2 * heads]
    bias: Array  # [2 * key + 2 * hidden + 2 * heads]


class MLSTMState(NamedTuple):
    """State of `MLSTM`; memory and normalizer are divided by e^stabilizer."""

    memory: Array  # [*batch, heads, key / heads, hidden / heads]
    normalizer: Array  # [*batch, heads, key / heads]
    stabilizer: Array  # [*batch, heads]


class MLSTMSpan(NamedTuple):
    """What a span of steps does to any state: it decays, and something is written to it."""

    log_decay: Array  # [*batch, heads]
    written: MLSTMState


class Read(NamedTuple):
    """What a query reads, before it is normalized."""

    values: Array  # [..., value]
    weight: Array  # [...], of the query with the normalizer
    stabilizer: Array  # [...]


def memory_step(
    state: MLSTMState, q: Array, k: Array, v: Array, log_i: Array, log_f: Array
) -> tuple[MLSTMState, Read]:
    """One step of the memory, and what q reads.

    Shapes:
        q and k ``[*batch, heads, key]``, v ``[*batch, heads, value]``, gates ``[*batch, heads]``.
    """
    m = jnp.maximum(log_f + state.stabilizer, log_i)
    f = jnp.exp(log_f + state.stabilizer - m)[..., None]
    k = jnp.exp(log_i - m)[..., None] * k
    memory = f[..., None] * state.memory + k[..., None] * v[..., None, :]
    n = f * state.normalizer + k
    values = jnp.einsum("...kv,...k->...v", memory, q)
    return MLSTMState(memory, n, m), Read(values, jnp.sum(n * q, axis=-1), m)


def memory_chunk(
    state: MLSTMState, q: Array, k: Array, v: Array, log_i: Array, log_f: Array
) -> tuple[MLSTMState, Read]:
    """All steps of a chunk at once, and what each q reads.

    Shapes:
        q and k ``[*batch, heads, time, key]``, v ``[*batch, heads, time, value]``, gates
        ``[*batch, heads, time]``.
    """
    # Logarithms of the decay of the first state until t, and of the weight of step s ≤ t.
    log_first = jnp.cumsum(log_f, axis=-1) + state.stabilizer[..., None]
    log_written = segment_sums(log_f) + log_i[..., None, :]
    log_written = jnp.where(causal(q.shape[-2]), log_written, -jnp.inf)
    m = jnp.maximum(log_first, jnp.max(log_written, axis=-1))
    first = jnp.exp(log_first - m)[..., None]
    written = jnp.exp(log_written - m[..., None])

    weights = (q @ jnp.swapaxes(k, -1, -2)) * written
    values = weights @ v + first * (q @ state.memory)
    weight = jnp.sum(weights, axis=-1)
    weight = weight + jnp.sum(first * q * state.normalizer[..., None, :], axis=-1)

    k = k * written[..., -1, :, None]
    last = first[..., -1, :]
    final = MLSTMState(
        last[..., None] * state.memory + jnp.swapaxes(k, -1, -2) @ v,
        last * state.normalizer + jnp.sum(k, axis=-2),
        m[..., -1],
    )
    return final, Read(values, weight, m)


def normalized(read: Read, epsilon: float = 0.0) -> Array:
    """The values / (max(|weight|, e^-stabilizer) + epsilon), ``[..., value]``."""
    # Where e^-m would overflow, values / e^-m has vanished; the derivative needs a finite divisor.
    smallest = -0.9 * math.log(jnp.finfo(read.values.dtype).max)
    floor = jnp.exp(-jnp.maximum(read.stabilizer, smallest))
    return read.values / (jnp.maximum(jnp.abs(read.weight), floor) + epsilon)[..., None]


@frozen
class MLSTM:
    """The LSTM with a matrix memory (mLSTM): exponential input gate and a normalizer.

        q, k, v = x W_q + b_q, (x W_k + b_k) / √d, x W_v + b_v    (d features of a head's key)
        i = exp(x w_i + b_i),   f = σ(x w_f + b_f),   o = σ(x W_o + b_o)
        C' = f C + i k vᵀ
        n' = f n + i k
        y = o (C'ᵀ q) / max(|n'ᵀ q|, 1)       (per head; heads concatenated)

    The exponential is kept in range by a running maximum, which cancels in y:

        m' = max(log f + m, log i)
        f and i become exp(log f + m - m') and exp(log i - m'), and 1 becomes e^(-m')

    `chunk` runs many steps at once with matrix products and the same maxima.

    Args:
        hidden_size: features of the values and of the output, over all heads.
        num_heads: the number of heads, which divides ``hidden_size`` and ``key_size``; each has one
            input and one forget gate.
        key_size: features of the keys, over all heads; default ``hidden_size``.
        kernel_init: initializer of W of q, k, v and o; default: LeCun normal, times √(2/5).
        gate_kernel_init: initializer of w of i and f; default: zeros.
        bias_init: initializer of the biases of q, k, v and o; default: zeros.
        input_bias_init: initializer of b_i; default: normal with standard deviation 0.1.
        forget_bias_init: initializer of b_f; default: 3 to 6 over the heads.

    Shapes:
        x ``[*batch, input]``, state ``MLSTMState(memory, normalizer, stabilizer)`` ``[*batch,
        heads, key, value]``, ``[*batch, heads, key]`` and ``[*batch, heads]``,
        y ``[*batch, hidden_size]``.

    Raises:
        TypeError, ValueError: a size is not a positive int, or not a multiple of ``num_heads``.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.MLSTM(hidden_size=8, num_heads=2)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> state, xs = cell.init_state(params, (5,)), jax.numpy.ones((20, 5, 3))
        >>> state, ys = cell.chunk(params, state, xs)
        >>> state.memory.shape, ys.shape
        ((5, 2, 4, 4), (20, 5, 8))

    References:
        M. Beck et al., "xLSTM: extended long short-term memory", 2024, eqs. 19 to 27,
        and 15 to 17 for m (first version).

    Note:
        The paper also allows an exponential forget gate; its code has a logistic one, as here. Its
        code also scales the bias of k, as here, and adds 1e-6 to the denominator, which is omitted
        here. In its blocks the gates see q, k and v; here they see x, as in the paper's equations.
        The memory is the transpose of the paper's.
    """

    hidden_size: int
    num_heads: int = 1
    key_size: int | None = None
    kernel_init: Initializer = initializers.LecunNormal(math.sqrt(0.4))
    gate_kernel_init: Initializer = initializers.Constant()
    bias_init: Initializer = initializers.Constant()
    input_bias_init: Initializer = initializers.Normal(0.1)
    forget_bias_init: Initializer = initializers.Linspace(3.0, 6.0)

    def __post_init__(self):
        check_heads(self.hidden_size, self._key_size, self.num_heads)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def _key_size(self) -> int:
        return self.hidden_size if self.key_size is None else self.key_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> MLSTMParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys, heads = jax.random.split(key, 5), self.num_heads
        dense = (self._key_size, self._key_size, self.hidden_size, self.hidden_size)
        kernels = (
            joined_kernel(self.kernel_init, keys[0], input_size, dense, dtype),
            joined_kernel(self.gate_kernel_init, keys[1], input_size, (heads, heads), dtype),
        )
        biases = (
            self.bias_init(keys[2], (sum(dense),), dtype),
            self.input_bias_init(keys[3], (heads,), dtype),
            self.forget_bias_init(keys[4], (heads,), dtype),
        )
        return MLSTMParams(jnp.concatenate(kernels, axis=-1), jnp.concatenate(biases))

    def init_state(self, params: MLSTMParams, batch_shape: tuple[int, ...] = ()) -> MLSTMState:
        """Returns zeros."""
        heads, dtype = self.num_heads, state_dtype(params.bias.dtype)
        size, width = self._key_size // heads, self.hidden_size // heads
        shapes = ((heads, size, width), (heads, size), (heads,))
        return MLSTMState(*(jnp.zeros((*batch_shape, *shape), dtype) for shape in shapes))

    def _blocks(self, params: MLSTMParams, x: Array) -> list[Array]:
        """Q, k, v, σ(o), log i and log f over all heads."""
        size, hidden, heads = self._key_size, self.hidden_size, self.num_heads
        z = product(x, params.input_kernel) + widen(params.bias)
        q, k, v, o, i, f = split_columns(z, (size, size, hidden, hidden, heads, heads))
        k = k / math.sqrt(size // heads)
        return [q, k, v, jax.nn.sigmoid(o), i, jax.nn.log_sigmoid(f)]

    def step(self, params: MLSTMParams, state: MLSTMState, x: Array) -> tuple[MLSTMState, Array]:
        """One step of the equations above."""
        q, k, v, o, log_i, log_f = self._blocks(params, x)
        q, k, v = (split_heads(z, self.num_heads) for z in (q, k, v))
        state, read = memory_step(state, q, k, v, log_i, log_f)
        y = o * join_heads(normalized(read))
        return state, y.astype(params.bias.dtype)

    def chunk(self, params: MLSTMParams, state: MLSTMState, xs: Array) -> tuple[MLSTMState, Array]:
        """Runs all steps of ``xs [time, *batch, input]`` at once."""
        q, k, v, o, log_i, log_f = self._blocks(params, xs)
        q, k, v = (chunk_heads(z, self.num_heads) for z in (q, k, v))
        log_i, log_f = (jnp.moveaxis(z, 0, -1) for z in (log_i, log_f))  # [*batch, heads, time]
        state, read = memory_chunk(state, q, k, v, log_i, log_f)
        ys = o * join_chunk(normalized(read))
        return state, ys.astype(params.bias.dtype)

    def span(self, params: MLSTMParams, xs: Array) -> MLSTMSpan:
        """Returns what all steps of ``xs [time, *batch, input]`` do to any state."""
        _, k, v, _, log_i, log_f = self._blocks(params, xs)
        k, v = (chunk_heads(z, self.num_heads) for z in (k, v))
        log_i, log_f = (jnp.moveaxis(z, 0, -1) for z in (log_i, log_f))  # [*batch, heads, time]
        log_written = log_i + sums_after(log_f)
        m = jnp.max(log_written, axis=-1)
        k = k * jnp.exp(log_written - m[..., None])[..., None]
        written = MLSTMState(jnp.swapaxes(k, -1, -2) @ v, jnp.sum(k, axis=-2), m)
        return MLSTMSpan(jnp.sum(log_f, axis=-1), written)

    def after_span(self, state: MLSTMState, span: MLSTMSpan) -> MLSTMState:
        """Returns the state after a span."""
        log_kept, written = span.log_decay + state.stabilizer, span.written
        m = jnp.maximum(log_kept, written.stabilizer)
        old, new = jnp.exp(log_kept - m)[..., None], jnp.exp(written.stabilizer - m)[..., None]
        return MLSTMState(
            old[..., None] * state.memory + new[..., None] * written.memory,
            old * state.normalizer + new * written.normalizer,
            m,
        )
