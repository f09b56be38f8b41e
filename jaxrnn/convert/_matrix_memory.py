"""The mLSTM of the xlstm package's blocks."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._frozen import frozen
from jaxrnn._numerics import state_dtype, widen
from jaxrnn._typing import Array
from jaxrnn.cells._heads import (
    chunk_heads,
    join_chunk,
    join_heads,
    split_heads,
)
from jaxrnn.cells.mlstm import MLSTMState, memory_chunk, memory_step, normalized
from jaxrnn.convert._modules import block_dense, normalize

_EPSILON = 1e-5  # of the normalization
_DENOMINATOR = 1e-6  # added to the denominator


class MatrixMemoryParams(NamedTuple):
    """Parameters of `MatrixMemory`; q, k, v in this order."""

    kernels: Array  # [3, blocks, block, block]
    biases: Array | None  # [3, hidden]
    gate_kernel: Array  # [3 * hidden, 2 * heads], for the inputs q, k, v and the gates i, f
    gate_bias: Array  # [2 * heads]
    scale: Array  # [hidden], of the normalization
    skip: Array  # [hidden]


@frozen
class MatrixMemory:
    """The mLSTM of the xlstm package's blocks, between its convolution and its output layer.

        q, k, v = c W_q + b_q, c W_k + b_k, u W_v + b_v     for the input [c, u, z]
        i, f = [q, k, v] w + b
        m' = max(log σ(f) + m, i)
        C' = exp(log σ(f) + m - m') C + exp(i - m') (k / √d) vᵀ
        n' = exp(log σ(f) + m - m') n + exp(i - m') k / √d
        y = (s N(C'ᵀ q / (max(|n'ᵀ q|, e^(-m')) + 10⁻⁶)) + α c) silu(z)

    N normalizes the d features of each head. It differs from `MLSTM` in the inputs of the gates,
    in the place of the output gate, and in the 10⁻⁶ that the package adds. `chunk` runs many steps
    at once with matrix products.

    Args:
        hidden_size: features of c, of u, of z and of the output.
        num_heads: the number of heads, a divisor of ``hidden_size``.

    Shapes:
        x ``[*batch, 3 * hidden_size]``, state `MLSTMState`, y ``[*batch, hidden_size]``.

    Note:
        It has no ``init``: the parameters come from `from_xlstm`.
    """

    hidden_size: int
    num_heads: int

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init_state(
        self, params: MatrixMemoryParams, batch_shape: tuple[int, ...] = ()
    ) -> MLSTMState:
        """Returns zeros."""
        heads, size = self.num_heads, self.hidden_size // self.num_heads
        dtype = state_dtype(params.scale.dtype)
        shapes = ((heads, size, size), (heads, size), (heads,))
        return MLSTMState(*(jnp.zeros((*batch_shape, *shape), dtype) for shape in shapes))

    def _inputs(self, params: MatrixMemoryParams, x: Array) -> list[Array]:
        """Q, k / √d, v, log i, log f of all heads, and c and z."""
        c, u, z = jnp.split(x, 3, axis=-1)
        biases = [None] * 3 if params.biases is None else params.biases
        blocks = [block_dense(*ab) for ab in zip(params.kernels, biases, (c, c, u), strict=True)]
        gates = jnp.concatenate(blocks, axis=-1) @ widen(params.gate_kernel)
        log_i, f = jnp.split(gates + widen(params.gate_bias), 2, axis=-1)
        q, k, v = blocks
        k = k / math.sqrt(self.hidden_size // self.num_heads)
        return [q, k, v, log_i, jax.nn.log_sigmoid(f), c, z]

    def _outputs(self, params: MatrixMemoryParams, values: Array, c: Array, z: Array) -> Array:
        """The output from the values read from the memory, ``[..., hidden]``."""
        values = widen(params.scale) * normalize(values, _EPSILON, self.num_heads)
        y = (values + widen(params.skip) * widen(c)) * jax.nn.silu(widen(z))
        return y.astype(params.scale.dtype)

    def step(
        self, params: MatrixMemoryParams, state: MLSTMState, x: Array
    ) -> tuple[MLSTMState, Array]:
        """One step of the equations above."""
        q, k, v, log_i, log_f, c, z = self._inputs(params, x)
        q, k, v = (split_heads(block, self.num_heads) for block in (q, k, v))
        state, read = memory_step(state, q, k, v, log_i, log_f)
        values = join_heads(normalized(read, _DENOMINATOR))
        return state, self._outputs(params, values, c, z)

    def chunk(
        self, params: MatrixMemoryParams, state: MLSTMState, xs: Array
    ) -> tuple[MLSTMState, Array]:
        """Runs all steps of ``xs [time, *batch, 3 * hidden]`` at once."""
        q, k, v, log_i, log_f, c, z = self._inputs(params, xs)
        q, k, v = (chunk_heads(block, self.num_heads) for block in (q, k, v))
        log_i, log_f = (jnp.moveaxis(gate, 0, -1) for gate in (log_i, log_f))
        state, read = memory_chunk(state, q, k, v, log_i, log_f)
        values = join_chunk(normalized(read, _DENOMINATOR))
        return state, self._outputs(params, values, c, z)
