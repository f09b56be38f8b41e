"""Gated linear attention."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn._arguments import check_init, check_size
from jaxrnn._cell import affine_step
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

_BLOCK = 16  # steps of a block, within which decays are computed per channel


class GatedLinearAttentionParams(NamedTuple):
    """Parameters of `GatedLinearAttention`."""

    input_kernel: Array  # [input, key + key + hidden + rank], of q, k, v and the gate
    gate_kernel: Array  # [rank, key]
    gate_bias: Array  # [key]


class GatedLinearAttentionState(NamedTuple):
    """State of `GatedLinearAttention`."""

    memory: Array  # [*batch, heads, key / heads, hidden / heads]


class GatedLinearAttentionSpan(NamedTuple):
    """What a span of steps does to any state: S' = Diag(decay) S + written."""

    decay: Array  # [*batch, heads, key / heads]
    written: Array  # [*batch, heads, key / heads, hidden / heads]


@frozen
class GatedLinearAttention:
    """Gated linear attention: a key-value memory with one decay for each key feature.

        q, k, v = x W_q, x W_k, x W_v
        α = σ((x W_1) W_2 + b)^(1/τ)
        S' = diag(α) S + k vᵀ
        y = S'ᵀ q                             (per head; heads concatenated)

    `chunk` runs many steps at once with matrix products. It sums logarithms of decays, which are
    never positive, so it never divides by a vanishing decay.

    Args:
        hidden_size: features of the values and of the output, over all heads.
        num_heads: the number of heads, which divides ``hidden_size`` and ``key_size``.
        key_size: features of the keys, over all heads; default ``hidden_size``. The paper uses half
            as many.
        gate_rank: rank of the map from x to the gate.
        gate_temperature: τ; a larger value means slower forgetting.
        kernel_init: initializer of all kernels, drawn per block; default: Glorot uniform, times
            2^(-5/2).
        gate_bias_init: initializer of b; default: zeros.

    Shapes:
        x ``[*batch, input]``, state ``GatedLinearAttentionState(memory)`` ``[*batch, heads,
        key_size / heads, hidden_size / heads]``, y ``[*batch, hidden_size]``.

    Raises:
        TypeError, ValueError: a size is not a positive int, or not a multiple of ``num_heads``.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GatedLinearAttention(hidden_size=8, num_heads=2, key_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> state, xs = cell.init_state(params, (5,)), jax.numpy.ones((20, 5, 3))
        >>> state, ys = cell.chunk(params, state, xs)
        >>> state.memory.shape, ys.shape
        ((5, 2, 2, 4), (20, 5, 8))

    References:
        S. Yang, B. Wang, Y. Shen, R. Panda and Y. Kim, "Gated linear attention transformers with
        hardware-efficient training", 2023, eq. 3, and section 4.4 for the gate and the heads.

    Note:
        The recurrence is the paper's; the authors' code also divides q by √d. The normalization,
        the output gate and the projection after the cell are separate layers.
    """

    hidden_size: int
    num_heads: int = 1
    key_size: int | None = None
    gate_rank: int = 16
    gate_temperature: float = 16.0
    kernel_init: Initializer = initializers.GlorotUniform(2**-2.5)
    gate_bias_init: Initializer = initializers.Constant()

    def __post_init__(self):
        check_heads(self.hidden_size, self._key_size, self.num_heads)
        check_size("gate_rank", self.gate_rank)
        if not self.gate_temperature > 0:
            raise ValueError(f"gate_temperature must be positive, got {self.gate_temperature!r}")

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    @property
    def _key_size(self) -> int:
        return self.hidden_size if self.key_size is None else self.key_size

    def init(self, key: Array, input_size: int, dtype: Any = None) -> GatedLinearAttentionParams:
        """Draws the parameters."""
        dtype = check_init(key, input_size, dtype)
        keys, size, rank = jax.random.split(key, 3), self._key_size, self.gate_rank
        blocks = (size, size, self.hidden_size, rank)
        return GatedLinearAttentionParams(
            joined_kernel(self.kernel_init, keys[0], input_size, blocks, dtype),
            self.kernel_init(keys[1], (rank, size), dtype),
            self.gate_bias_init(keys[2], (size,), dtype),
        )

    def init_state(
        self, params: GatedLinearAttentionParams, batch_shape: tuple[int, ...] = ()
    ) -> GatedLinearAttentionState:
        """Returns zeros."""
        heads, dtype = self.num_heads, state_dtype(params.gate_bias.dtype)
        shape = (*batch_shape, heads, self._key_size // heads, self.hidden_size // heads)
        return GatedLinearAttentionState(jnp.zeros(shape, dtype))

    def _write(self, params: GatedLinearAttentionParams, x: Array) -> tuple[Array, Array, Array]:
        """k, v and log α over all heads."""
        sizes = (self._key_size, self.hidden_size, self.gate_rank)
        _, kernel = split_columns(params.input_kernel, (self._key_size, sum(sizes)))
        k, v, low_rank = split_columns(product(x, kernel), sizes)
        gate = product(low_rank, params.gate_kernel) + widen(params.gate_bias)
        return k, v, jax.nn.log_sigmoid(gate) / self.gate_temperature

    def _query(self, params: GatedLinearAttentionParams, x: Array) -> Array:
        rest = params.input_kernel.shape[1] - self._key_size
        return product(x, split_columns(params.input_kernel, (self._key_size, rest))[0])

    def affine(
        self, params: GatedLinearAttentionParams, x: Array
    ) -> tuple[GatedLinearAttentionState, GatedLinearAttentionState]:
        """Returns α for the rows of the memory, and k vᵀ."""
        k, v, log_alpha = (split_heads(z, self.num_heads) for z in self._write(params, x))
        a, b = jnp.exp(log_alpha)[..., None], k[..., None] * v[..., None, :]
        return GatedLinearAttentionState(a), GatedLinearAttentionState(b)

    def readout(
        self, params: GatedLinearAttentionParams, state: GatedLinearAttentionState, x: Array
    ) -> Array:
        """Returns S'ᵀ q."""
        q = split_heads(self._query(params, x), self.num_heads)
        y = jnp.einsum("...kv,...k->...v", state.memory, q)
        return join_heads(y).astype(params.gate_bias.dtype)

    def step(
        self, params: GatedLinearAttentionParams, state: GatedLinearAttentionState, x: Array
    ) -> tuple[GatedLinearAttentionState, Array]:
        """One step of the equations above."""
        return affine_step(self, params, state, x)

    def chunk(
        self, params: GatedLinearAttentionParams, state: GatedLinearAttentionState, xs: Array
    ) -> tuple[GatedLinearAttentionState, Array]:
        """Runs all steps of ``xs [time, *batch, input]`` at once."""
        time, block = xs.shape[0], min(xs.shape[0], _BLOCK)

        def blocks(z: Array) -> Array:
            """``[time, *batch, features]`` -> ``[*batch, heads, blocks, block, size]``."""
            z = chunk_heads(z, self.num_heads)
            padding = [(0, 0)] * (z.ndim - 2) + [(0, -time % block), (0, 0)]
            return jnp.pad(z, padding).reshape(*z.shape[:-2], -1, block, z.shape[-1])

        k, v, log_alpha = map(blocks, self._write(params, xs))
        q = blocks(self._query(params, xs))

        # Within a block: the contribution of each s ≤ t to t. The last row of the decays takes
        # each key to the end of the block.
        since = jnp.exp(jnp.moveaxis(segment_sums(jnp.moveaxis(log_alpha, -1, -2)), -3, -1))
        weights = jnp.sum(q[..., :, None, :] * k[..., None, :, :] * since, axis=-1)
        inside = jnp.where(causal(block), weights, jnp.zeros_like(weights)) @ v

        # Across blocks: the memory at the start of each block, decayed to t.
        written = jnp.swapaxes(k * since[..., -1, :, :], -1, -2) @ v
        decays = jnp.exp(jnp.cumsum(log_alpha, axis=-2))

        def across(memory: Array, block_of: tuple[Array, Array]):
            decay, new = block_of
            return decay[..., None] * memory + new, memory

        per_block = (jnp.moveaxis(decays[..., -1, :], -2, 0), jnp.moveaxis(written, -3, 0))
        memory, before = jax.lax.scan(across, state.memory, per_block)
        outputs = inside + (q * decays) @ jnp.moveaxis(before, 0, -3)

        outputs = outputs.reshape(*outputs.shape[:-3], -1, outputs.shape[-1])[..., :time, :]
        ys = join_chunk(outputs).astype(params.gate_bias.dtype)
        return GatedLinearAttentionState(memory), ys

    def span(self, params: GatedLinearAttentionParams, xs: Array) -> GatedLinearAttentionSpan:
        """Returns what all steps of ``xs [time, *batch, input]`` do to any state."""
        k, v, log_alpha = (chunk_heads(z, self.num_heads) for z in self._write(params, xs))
        log_alpha = jnp.swapaxes(log_alpha, -1, -2)
        kept = jnp.exp(sums_after(log_alpha))
        written = (jnp.swapaxes(k, -1, -2) * kept) @ v
        return GatedLinearAttentionSpan(jnp.exp(jnp.sum(log_alpha, axis=-1)), written)

    def after_span(
        self, state: GatedLinearAttentionState, span: GatedLinearAttentionSpan
    ) -> GatedLinearAttentionState:
        """Returns the state after a span."""
        return GatedLinearAttentionState(span.decay[..., None] * state.memory + span.written)
