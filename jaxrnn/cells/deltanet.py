"""Delta networks: a matrix memory updated by the delta rule, without and with decay."""

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
    join_chunk,
    join_heads,
    segment_sums,
    split_heads,
)
from jaxrnn.cells._triangular import solve_unit_lower


class DeltaNetParams(NamedTuple):
    """Parameters of `DeltaNet`; blocks in the order q, k, v, β."""

    input_kernel: Array  # [input, 2 * key + hidden + heads]


class GatedDeltaNetParams(NamedTuple):
    """Parameters of `GatedDeltaNet`; blocks in the order q, k, v, β, α."""

    input_kernel: Array  # [input, 2 * key + hidden + 2 * heads]
    log_rate: Array  # [heads], log A
    step_bias: Array  # [heads]


class DeltaNetState(NamedTuple):
    """State of `DeltaNet` and of `GatedDeltaNet`."""

    memory: Array  # [*batch, heads, key / heads, hidden / heads]


def _zeros(cell, dtype: Any, batch_shape: tuple[int, ...]) -> DeltaNetState:
    heads = cell.num_heads
    shape = (*batch_shape, heads, cell._key_size // heads, cell.hidden_size // heads)
    return DeltaNetState(jnp.zeros(shape, state_dtype(dtype)))


def _unit(x: Array) -> Array:
    """Scales x to unit length; shorter near zero, where the direction is undefined."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)


def _step(cell, params, state: DeltaNetState, x: Array) -> tuple[DeltaNetState, Array]:
    q, k, v, beta, log_alpha = cell._heads(params, x)
    memory = jnp.exp(log_alpha)[..., None, None] * state.memory
    error = beta[..., None] * (v - jnp.einsum("...kv,...k->...v", memory, k))
    memory = memory + k[..., None] * error[..., None, :]
    y = join_heads(jnp.einsum("...kv,...k->...v", memory, q))
    return DeltaNetState(memory), y.astype(params.input_kernel.dtype)


def _chunk(cell, params, state: DeltaNetState, xs: Array) -> tuple[DeltaNetState, Array]:
    """All steps of a chunk.

    With u_t = β_t (v_t - α_t S_(t-1)ᵀ k_t) the memory is a decayed sum of k_s u_sᵀ, and the u of a
    chunk solve a unit triangular system:

        u_t + β_t Σ_(s<t) decay(s, t) (k_t · k_s) u_s = β_t (v_t - decay(0, t) S_0ᵀ k_t)
    """
    q, k, v, beta, log_alpha = cell._heads(params, xs)
    q, k, v = (jnp.moveaxis(z, 0, -2) for z in (q, k, v))  # [*batch, heads, time, size]
    beta, log_alpha = (jnp.moveaxis(z, 0, -1) for z in (beta, log_alpha))
    memory, keys = state.memory, jnp.swapaxes(k, -1, -2)
    since = jnp.exp(segment_sums(log_alpha))
    first = jnp.exp(jnp.cumsum(log_alpha, axis=-1))[..., None]

    mixing = beta[..., None] * since * (k @ keys)
    mixing = jnp.where(causal(xs.shape[0], strict=True), mixing, jnp.zeros_like(mixing))
    wanted = beta[..., None] * (v - first * (k @ memory))
    u = solve_unit_lower(mixing, wanted)

    weights = since * (q @ keys)
    weights = jnp.where(causal(xs.shape[0]), weights, jnp.zeros_like(weights))
    ys = join_chunk(weights @ u + first * (q @ memory))
    written = (keys * since[..., -1:, :]) @ u
    final = DeltaNetState(first[..., -1:, :] * memory + written)
    return final, ys.astype(params.input_kernel.dtype)


@frozen
class DeltaNet:
    """Linear attention with the delta rule: the value stored under a key is read, then corrected.

        q, k = unit(silu(x W_q)), unit(silu(x W_k)),   v = silu(x W_v)
        β = σ(x w_β)
        S' = S + β k (v - Sᵀ k)ᵀ = (I - β k kᵀ) S + β k vᵀ
        y = S'ᵀ q                             (per head; heads concatenated)

    unit(z) is z / √(|z|² + 10⁻⁶). `chunk` runs many steps at once: one triangular system gives the
    corrections of a chunk, and the rest is matrix products.

    Args:
        hidden_size: features of the values and of the output, over all heads.
        num_heads: the number of heads, which divides ``hidden_size`` and ``key_size``; each has one
            β.
        key_size: features of the keys, over all heads; default ``hidden_size``.
        kernel_init: initializer of W and w, drawn per block; default: LeCun normal.

    Shapes:
        x ``[*batch, input]``, state ``DeltaNetState(memory)`` ``[*batch, heads, key_size / heads,
        hidden_size / heads]``, y ``[*batch, hidden_size]``.

    Raises:
        TypeError, ValueError: a size is not a positive int, or not a multiple of ``num_heads``.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.DeltaNet(hidden_size=8, num_heads=2)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> state, xs = cell.init_state(params, (5,)), jax.numpy.ones((20, 5, 3))
        >>> state, ys = cell.chunk(params, state, xs)
        >>> state.memory.shape, ys.shape
        ((5, 2, 4, 4), (20, 5, 8))

    References:
        S. Yang, B. Wang, Y. Zhang, Y. Shen and Y. Kim, "Parallelizing linear transformers with the
        delta rule over sequence length", 2024, section 2.2. Code of the authors:
        fla-org/flash-linear-attention, fla/layers/delta_net.py.

    Note:
        The memory is the transpose of the paper's. The authors' code also divides q by √d, where d
        is the number of key features per head. The short convolutions before q, k and v and the
        normalization and projection after the cell are separate layers.
    """

    hidden_size: int
    num_heads: int = 1
    key_size: int | None = None
    kernel_init: Initializer = initializers.LecunNormal()

    def __post_init__(self):
        check_heads(self.hidden_size, self._key_size, self.num_heads)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def _key_size(self) -> int:
        return self.hidden_size if self.key_size is None else self.key_size

    @property
    def _blocks(self) -> tuple[int, ...]:
        return (self._key_size, self._key_size, self.hidden_size, self.num_heads)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> DeltaNetParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        return DeltaNetParams(joined_kernel(self.kernel_init, key, input_size, self._blocks, dtype))

    def init_state(
        self, params: DeltaNetParams, batch_shape: tuple[int, ...] = ()
    ) -> DeltaNetState:
        """Returns zeros."""
        return _zeros(self, params.input_kernel.dtype, batch_shape)

    def _heads(self, params: DeltaNetParams, x: Array) -> list[Array]:
        """Q, k, v, β and log α = 0."""
        *qkv, beta = split_columns(product(x, params.input_kernel), self._blocks)
        q, k, v = (split_heads(jax.nn.silu(z), self.num_heads) for z in qkv)
        return [_unit(q), _unit(k), v, jax.nn.sigmoid(beta), jnp.zeros_like(beta)]

    def step(
        self, params: DeltaNetParams, state: DeltaNetState, x: Array
    ) -> tuple[DeltaNetState, Array]:
        """One step of the equations above."""
        return _step(self, params, state, x)

    def chunk(
        self, params: DeltaNetParams, state: DeltaNetState, xs: Array
    ) -> tuple[DeltaNetState, Array]:
        """Runs all steps of ``xs [time, *batch, input]`` at once."""
        return _chunk(self, params, state, xs)


@frozen
class GatedDeltaNet:
    """`DeltaNet` with a decay of the memory, one gate per head.

        q, k = unit(silu(x W_q)), unit(silu(x W_k)),   v = silu(x W_v)
        β = σ(x w_β),   log α = -A softplus(x w_α + b)
        S' = α (I - β k kᵀ) S + β k vᵀ
        y = S'ᵀ q                             (per head; heads concatenated)

    unit(z) is z / √(|z|² + 10⁻⁶). `chunk` runs many steps at once, as in `DeltaNet`.

    Args:
        hidden_size: features of the values and of the output, over all heads.
        num_heads: the number of heads, which divides ``hidden_size`` and ``key_size``; each has one
            β and one α.
        key_size: features of the keys, over all heads; default ``hidden_size``.
        kernel_init: initializer of W and w, drawn per block; default: LeCun normal.
        rate_init: initializer of A; default: uniform in [0.0001, 16].
        step_init: initializer of softplus(b); default: log-uniform in [0.001, 0.1].

    Shapes:
        x ``[*batch, input]``, state ``DeltaNetState(memory)`` ``[*batch, heads, key_size / heads,
        hidden_size / heads]``, y ``[*batch, hidden_size]``.

    Raises:
        TypeError, ValueError: a size is not a positive int, or not a multiple of ``num_heads``.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GatedDeltaNet(hidden_size=8, num_heads=2, key_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 5, 3)))
        >>> final.memory.shape, ys.shape
        ((5, 2, 2, 4), (7, 5, 8))

    References:
        S. Yang, J. Kautz and A. Hatamizadeh, "Gated delta networks: improving Mamba2 with delta
        rule", 2024, eq. 10.

    Note:
        As in `DeltaNet`; the output gate is a separate layer too.
    """

    hidden_size: int
    num_heads: int = 1
    key_size: int | None = None
    kernel_init: Initializer = initializers.LecunNormal()
    rate_init: Initializer = initializers.Uniform(1e-4, 16.0)
    step_init: Initializer = initializers.LogUniform(0.001, 0.1)

    def __post_init__(self):
        check_heads(self.hidden_size, self._key_size, self.num_heads)

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def _key_size(self) -> int:
        return self.hidden_size if self.key_size is None else self.key_size

    @property
    def _blocks(self) -> tuple[int, ...]:
        size, heads = self._key_size, self.num_heads
        return (size, size, self.hidden_size, heads, heads)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> GatedDeltaNetParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys, shape, wide = jax.random.split(key, 3), (self.num_heads,), state_dtype(dtype)
        rate, step = self.rate_init(keys[1], shape, wide), self.step_init(keys[2], shape, wide)
        return GatedDeltaNetParams(
            joined_kernel(self.kernel_init, keys[0], input_size, self._blocks, dtype),
            jnp.log(rate).astype(dtype),
            jnp.log(jnp.expm1(step)).astype(dtype),  # inverse softplus
        )

    def init_state(
        self, params: GatedDeltaNetParams, batch_shape: tuple[int, ...] = ()
    ) -> DeltaNetState:
        """Returns zeros."""
        return _zeros(self, params.input_kernel.dtype, batch_shape)

    def _heads(self, params: GatedDeltaNetParams, x: Array) -> list[Array]:
        """Q, k, v, β and log α."""
        *qkv, beta, gate = split_columns(product(x, params.input_kernel), self._blocks)
        q, k, v = (split_heads(jax.nn.silu(z), self.num_heads) for z in qkv)
        step = jax.nn.softplus(gate + widen(params.step_bias))
        log_alpha = -jnp.exp(widen(params.log_rate)) * step
        return [_unit(q), _unit(k), v, jax.nn.sigmoid(beta), log_alpha]

    def step(
        self, params: GatedDeltaNetParams, state: DeltaNetState, x: Array
    ) -> tuple[DeltaNetState, Array]:
        """One step of the equations above."""
        return _step(self, params, state, x)

    def chunk(
        self, params: GatedDeltaNetParams, state: DeltaNetState, xs: Array
    ) -> tuple[DeltaNetState, Array]:
        """Runs all steps of ``xs [time, *batch, input]`` at once."""
        return _chunk(self, params, state, xs)
