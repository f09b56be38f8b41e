"""What an engine is."""

from typing import Any, Protocol, runtime_checkable

from jaxrnn._arguments import brief
from jaxrnn._cell import Cell
from jaxrnn._typing import PyTree


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


def check_engine(engine: Any) -> None:
    """Raises unless ``engine`` is a hashable value that runs a cell over time."""
    if isinstance(engine, type):
        raise TypeError(
            f"engine must be an instance, got the class {engine.__name__}; "
            f"write engine={engine.__name__}()"
        )
    if not all(map(callable, (engine, getattr(engine, "why_not", None)))):
        raise TypeError(
            f"engine must be a value from jaxrnn.engines, got {brief(engine)}; "
            "write e.g. engine=jaxrnn.engines.Sequential(), or leave it out"
        )
    try:
        hash(engine)
    except TypeError as error:
        raise TypeError(
            f"engine must be hashable, got {brief(engine)}; make it "
            "a frozen dataclass of its options"
        ) from error
