"""What an engine is."""

from typing import Protocol, runtime_checkable

from jaxrnn._cell import Cell, PyTree


@runtime_checkable
class Engine(Protocol):
    """Runs a cell over time. A frozen dataclass that holds its own options and nothing else.

    Engines differ in speed and in the cells they accept, never in the result: for every cell that
    it accepts, an engine agrees with `Sequential`, values and gradients.
    """

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs [time, *batch, ...]``."""
        ...

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Says why this engine refuses the work, or None if it takes it."""
        ...
