"""A state as one real vector per batch row: the form in which its Jacobians are matrices."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._typing import Array, PyTree


@dataclasses.dataclass(frozen=True)
class FlatState:
    """The layout of the floating-point leaves of a state in one vector, leaf after leaf.

    A complex leaf is its real parts, then its imaginary parts.

    Args:
        shapes: the shape of each leaf without the batch axes.
        dtypes: the dtype of each leaf.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]

    @classmethod
    def of(cls, leaves: Sequence[Any], batch_rank: int) -> "FlatState":
        """The layout of leaves ``[*batch, ...]``."""
        shapes = tuple(tuple(leaf.shape[batch_rank:]) for leaf in leaves)
        return cls(shapes, tuple(jnp.dtype(leaf.dtype) for leaf in leaves))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of real numbers of each leaf."""
        return tuple(
            math.prod(shape) * (2 if _is_complex(dtype) else 1)
            for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        )

    @property
    def size(self) -> int:
        """The number of real numbers of a state."""
        return sum(self.sizes)

    @property
    def dtype(self) -> Any:
        """The dtype of the vector: the widest of the leaves' real dtypes."""
        reals = [jnp.finfo(dtype).dtype for dtype in self.dtypes]
        return max(reals, key=lambda dtype: jnp.finfo(dtype).bits)

    def pack(self, leaves: Sequence[Array]) -> Array:
        """Leaves ``[*leading, ...]`` as one array ``[*leading, size]``."""
        parts = []
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            leading = leaf.shape[: leaf.ndim - len(shape)]
            pieces = (leaf.real, leaf.imag) if _is_complex(leaf.dtype) else (leaf,)
            flat = (*leading, math.prod(shape))
            parts += [piece.astype(self.dtype).reshape(flat) for piece in pieces]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    def unpack(self, vector: Array) -> list[Array]:
        """The inverse of `pack`."""
        leaves, begin, leading = [], 0, vector.shape[:-1]
        for shape, dtype, size in zip(self.shapes, self.dtypes, self.sizes, strict=True):
            part = jax.lax.slice_in_dim(vector, begin, begin + size, axis=-1)
            begin += size
            if _is_complex(dtype):
                re, im = jnp.split(part.astype(jnp.finfo(dtype).dtype), 2, axis=-1)
                part = jax.lax.complex(re, im)
            leaves.append(part.astype(dtype).reshape(*leading, *shape))
        return leaves


def flatten_state(state: PyTree, batch_rank: int) -> tuple[Array, Callable[[Array], PyTree]]:
    """The floating-point leaves of a state as a vector ``[*batch, n]``, and the inverse.

    The inverse restores the other leaves.
    """
    leaves, structure = jax.tree.flatten(state)
    floats = [leaf for leaf in leaves if is_inexact(leaf)]
    flat = FlatState.of(floats, batch_rank)

    def unflatten(vector: Array) -> PyTree:
        unpacked = iter(flat.unpack(vector))
        return structure.unflatten(next(unpacked) if is_inexact(x) else x for x in leaves)

    return flat.pack(floats), unflatten


def is_inexact(leaf: Array) -> bool:
    """Whether a leaf is floating-point or complex."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def batch_rank(cell: Cell, params: PyTree, state: PyTree) -> int:
    """The number of batch axes of a state, compared with the cell's own state without any."""
    alone = jax.eval_shape(lambda params: cell.init_state(params, ()), params)
    leaves, own = jax.tree.leaves(state), jax.tree.leaves(alone)
    return jnp.ndim(leaves[0]) - own[0].ndim if leaves else 0


def _is_complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)
