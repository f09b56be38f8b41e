"""Parameters and zero states of cells with dense gates."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_init
from jaxrnn._numerics import packed_bias, packed_kernel, state_dtype
from jaxrnn._typing import Array, Initializer


def dense_params(
    cell: Any,
    key: Array,
    input_size: int,
    dtype: Any,
    gates: tuple[int, int, int],
    *,
    recurrent_size: int | None = None,
    bias_init: Initializer | None = None,
) -> tuple[Array, Array, Array]:
    """Draws an input kernel, a recurrent kernel and a bias with the given numbers of gates."""
    dtype = check_init(key, input_size, dtype)
    keys, hidden = jax.random.split(key, 3), cell.hidden_size
    return (
        packed_kernel(cell.kernel_init, keys[0], (input_size, hidden), gates[0], dtype),
        packed_kernel(
            cell.recurrent_init, keys[1], (recurrent_size or hidden, hidden), gates[1], dtype
        ),
        packed_bias(bias_init or cell.bias_init, keys[2], hidden, gates[2], dtype),
    )


def zeros(params: Any, batch_shape: tuple[int, ...], *sizes: int) -> list[Array]:
    """Arrays ``[*batch, size]`` of zeros in the dtype of a state, one for each size."""
    dtype = state_dtype(params[0].dtype)
    return [jnp.zeros((*batch_shape, size), dtype) for size in sizes]
