"""Arithmetic shared by cells: mixed-precision products, packed gates, dropout."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._sharding import sharded_as
from jaxrnn._typing import Array, Initializer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DroppedKernel:
    """A kernel with dropout on the features that it multiplies; it replaces a kernel in parameters.

    Each row of the batch has its own mask, which zeroed rows of one shared kernel cannot express.
    """

    kernel: Any  # Array [features, columns], or a DroppedKernel again
    mask: Array  # [*batch, features]: 0, or 1 / (1 - rate)

    __array_ufunc__ = None  # NumPy defers x @ kernel to __rmatmul__

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape

    @property
    def ndim(self) -> int:
        return self.kernel.ndim

    @property
    def dtype(self) -> Any:
        return self.kernel.dtype

    def drop(self, x: Array) -> Array:
        """Applies the mask to the features."""
        return (x.astype(self.mask.dtype) * self.mask).astype(x.dtype)

    def __rmatmul__(self, x: Array) -> Array:
        return self.drop(x) @ self.kernel


def is_dropped(leaf: Any) -> bool:
    """Whether a leaf of the parameters is a `DroppedKernel`."""
    return isinstance(leaf, DroppedKernel)


def without_dropout(params: Any) -> Any:
    """The parameters with the kernels as they were before dropout."""

    def plain(leaf):
        return plain(leaf.kernel) if is_dropped(leaf) else leaf

    return jax.tree.map(plain, params, is_leaf=is_dropped)


def state_dtype(dtype: Any) -> Any:
    """The dtype of a state for parameters of ``dtype``: at least float32."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def complex_state_dtype(dtype: Any) -> Any:
    """The dtype of a complex state: complex64, or complex128 for float64 parameters."""
    return jnp.dtype(jnp.complex64 if state_dtype(dtype) == jnp.float32 else jnp.complex128)


def widen(x: Array) -> Array:
    """Casts parameters or inputs to the dtype of states."""
    return x.astype(state_dtype(x.dtype))


def product(x: Array, kernel: Array | DroppedKernel) -> Array:
    """``x @ kernel``, multiplied in the kernel's dtype and accumulated in the state's.

    Shapes: x ``[*batch, n]``, kernel ``[n, m]`` -> ``[*batch, m]``.

    Raises:
        ValueError: ``x`` does not have as many features as ``kernel`` has rows.
        TypeError: ``x`` has neither the kernel's dtype nor that of a state for it.
    """
    if x.ndim == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"x must have {kernel.shape[0]} features on its last axis for a kernel of shape "
            f"{kernel.shape}, got shape {x.shape}; pass the number of features to init as "
            "input_size, or fix the input"
        )
    wide = state_dtype(kernel.dtype)
    if x.dtype not in (kernel.dtype, wide):
        raise TypeError(
            f"x has dtype {x.dtype} and the kernel {kernel.dtype}; they must agree, because dtypes "
            f"are not promoted implicitly: cast one, e.g. x.astype('{kernel.dtype}')"
        )
    if isinstance(kernel, DroppedKernel):
        return product(kernel.drop(x), kernel.kernel)
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=wide)


def packed_kernel(
    initializer: Initializer, key: Array, shape: tuple[int, int], gates: int, dtype: Any
) -> Array:
    """A kernel ``[rows, gates * columns]``; each block ``[rows, columns]`` is drawn separately."""
    return joined_kernel(initializer, key, shape[0], (shape[1],) * gates, dtype)


def joined_kernel(
    initializer: Initializer, key: Array, rows: int, columns: Sequence[int], dtype: Any
) -> Array:
    """A kernel ``[rows, sum(columns)]``; each block of columns is drawn separately."""
    keys = jax.random.split(key, len(columns))
    blocks = [initializer(k, (rows, n), dtype) for k, n in zip(keys, columns, strict=True)]
    return jnp.concatenate(blocks, axis=-1)


def split_columns(x: Any, columns: Sequence[int]) -> list[Any]:
    """Splits the last axis into blocks of these sizes."""
    if isinstance(x, DroppedKernel):
        return [DroppedKernel(block, x.mask) for block in split_columns(x.kernel, columns)]
    return jnp.split(x, list(itertools.accumulate(columns))[:-1], axis=-1)


def packed_bias(initializer: Initializer, key: Array, size: int, gates: int, dtype: Any) -> Array:
    """A bias ``[gates * size]``; the initializer gets the shape ``[gates, size]``."""
    return initializer(key, (gates, size), dtype).reshape(gates * size)


def dropout(key: Array | None, rate: float, x: Array) -> Array:
    """Zeroes elements with probability ``rate`` and rescales the rest; identity if key is None."""
    if key is None or rate == 0:
        return x
    keep = sharded_as(jax.random.bernoulli(key, 1 - rate, x.shape), x)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))
