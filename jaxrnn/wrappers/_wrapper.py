"""The base of wrappers, and their helpers."""

from collections.abc import Callable
from typing import Any

import jax

from jaxrnn._cell import (
    Cell,
    bind_with_key,
    input_rank,
    is_affine,
    is_stochastic,
    step_with_key,
)
from jaxrnn._frozen import frozen
from jaxrnn._numerics import is_dropped
from jaxrnn._typing import Array, PyTree
from jaxrnn._validation import check_cell


@frozen
class Wrapper:
    """A cell around a cell, with the members of the wrapped cell unless a wrapper overrides them.

    Wrappers of users need not inherit from it: any cell may wrap another.
    """

    cell: Cell

    def __post_init__(self):
        check_cell(self.cell)

    @property
    def output_size(self) -> int | None:
        """The wrapped cell's."""
        return self.cell.output_size

    @property
    def input_rank(self) -> int:
        """The wrapped cell's."""
        return input_rank(self.cell)

    @property
    def stochastic(self) -> bool:
        """Whether the wrapped cell takes a key."""
        return is_stochastic(self.cell)

    @property
    def is_affine(self) -> bool:
        """Whether the wrapped cell is affine."""
        return is_affine(self.cell)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the wrapped cell's parameters."""
        return self.cell.init(key, input_size, dtype)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the wrapped cell's initial state."""
        return self.cell.init_state(params, batch_shape)

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Makes the wrapped cell's random draws of one sequence."""
        return bind_with_key(self.cell, params, key, batch_shape)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell."""
        return step_with_key(self.cell, params, state, x, key)

    def affine(self, params: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """``(a, b)`` of the wrapped cell, if it is affine."""
        return self.cell.affine(params, x)  # pyright: ignore[reportAttributeAccessIssue]

    def readout(self, params: PyTree, state: PyTree, x: PyTree) -> PyTree:
        """The output from the NEW state, if the wrapped cell is affine."""
        return self.cell.readout(params, state, x)  # pyright: ignore[reportAttributeAccessIssue]


def split_key(key: Array | None) -> tuple[Array | None, Array | None]:
    """Splits a key into one for a wrapper and one for the wrapped cell."""
    return (None, None) if key is None else tuple(jax.random.split(key))


def map_kernels(
    change: Callable[[int, Any], Any], names: tuple[str, ...], params: PyTree, what: str
) -> PyTree:
    """Maps ``change(number, leaf)`` over the leaves of the fields with these names.

    Raises:
        ValueError: no field has one of the names.
    """
    found = []

    def visit(path, leaf):
        field = path[-1] if path else None
        found.append(getattr(field, "name", getattr(field, "key", None)))
        return change(len(found), leaf) if found[-1] in names else leaf

    params = jax.tree_util.tree_map_with_path(visit, params, is_leaf=is_dropped)
    if not set(found) & set(names):
        raise ValueError(
            f"{what} must name fields of the wrapped cell's parameters, got {names!r}, but the "
            f"fields are {', '.join(map(str, dict.fromkeys(found)))}"
        )
    return params


def check_names(name: str, names: Any) -> None:
    """Raises unless ``names`` is a tuple of strings."""
    if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names) or not names:
        raise TypeError(f'{name} must be a tuple of field names, e.g. ("kernel",), got {names!r}')
