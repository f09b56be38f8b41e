"""The contract of an engine."""

from typing import Any, Protocol, runtime_checkable

import jax

from jaxrnn._arguments import brief
from jaxrnn._cell import Cell
from jaxrnn._typing import PyTree


@runtime_checkable
class Engine(Protocol):
    """Runs a cell over time. A frozen dataclass of its own options.

    Engines differ in speed and in the cells they accept, never in the result: for every cell that
    it accepts, an engine returns the values and gradients of `Sequential`, up to rounding.
    """

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs [time, *batch, ...]``."""
        ...

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why this engine cannot run the work, or None if it can."""
        ...


def why_not_symbolic(xs: PyTree, what: str, *, batch: bool = False) -> str | None:
    """The reason not to run where time, or the batch too, has a symbolic size, in `jax.export`."""
    shapes = (leaf.shape for leaf in jax.tree.leaves(xs))
    sizes = (size for shape in shapes for size in (shape if batch else shape[:1]))
    symbolic = next((size for size in sizes if not isinstance(size, int)), None)
    if symbolic is None:
        return None
    axes = "time and batch of known sizes" if batch else "time of a known size"
    return f"{what} needs {axes}, got the symbolic size {symbolic}; use engines.Hoisted()"


def check_symbolic(engine: Engine, xs: PyTree, *options: str) -> None:
    """Raises where an engine has one of these options, and time has a symbolic size."""
    check_reason(engine, why_not_options(engine, xs, *options))


def why_not_options(engine: Engine, xs: PyTree, *options: str) -> str | None:
    """The reason not to run with options that depend on the number of steps."""
    for name in options:
        if getattr(engine, name) not in (None, 1):
            return why_not_symbolic(xs, f"{name}={getattr(engine, name)}")
    return None


def check_reason(engine: Engine, reason: str | None) -> None:
    """Raises if there is a reason why an engine cannot run the work."""
    if reason is not None:
        raise ValueError(f"engine={engine!r} cannot run this: {reason}")


def check_engine(engine: Any) -> None:
    """Raises unless ``engine`` is a hashable value that runs a cell over time."""
    if isinstance(engine, type):
        raise TypeError(
            f"engine must be an instance, got the class {engine.__name__}; "
            f"pass engine={engine.__name__}()"
        )
    if not all(map(callable, (engine, getattr(engine, "why_not", None)))):
        raise TypeError(
            f"engine must be a value from jaxrnn.engines, got {brief(engine)}; "
            "pass e.g. engine=jaxrnn.engines.Sequential(), or omit it"
        )
    try:
        hash(engine)
    except TypeError as error:
        raise TypeError(
            f"engine must be hashable, got {brief(engine)}; make it "
            "a frozen dataclass of its options"
        ) from error
