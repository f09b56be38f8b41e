"""What a rule that accumulates influence forward in time consists of."""

from typing import Any, NamedTuple, Protocol

from jaxrnn._typing import Array, PyTree
from jaxrnn.learning._real_step import Learned, Reals, RealStep, State


class Cost(NamedTuple):
    """What a rule keeps and does, of all rows of a batch.

    Attributes:
        elements: numbers that the rule remembers.
        nbytes: the bytes of these.
        operations: floating-point operations that each step takes in addition to its own.
    """

    elements: int
    nbytes: int
    operations: int


class Sample(NamedTuple):
    """A step with values of one time step, from which the structure of influence is found.

    Attributes:
        step: the step.
        arrays: what it reads.
        learned: which of the arrays are learned.
        state: a state of the whole batch.
        x: an input of the whole batch.
        from_start: whether the initial state has influence too.
    """

    step: RealStep
    arrays: list[Any]
    learned: Learned
    state: State
    x: PyTree
    from_start: bool


class Tracker(Protocol):
    """What a rule remembers of the past instead of the past itself."""

    step: RealStep
    learned: Learned

    def nothing(self, batch: tuple[int, ...], key: Any, arrays: list[Any]) -> PyTree:
        """The memory before the first step."""
        ...

    def of_initial_state(self, arrays: list[Any], key: Any) -> PyTree:
        """The memory of a row that begins with ``cell.init_state``."""
        ...

    def advance(
        self, memory: PyTree, arrays: list[Any], state: State, x: PyTree, key: Any
    ) -> PyTree:
        """The memory after a step from ``state``."""
        ...

    def contract(self, memory: PyTree, cotangent: Array) -> tuple[Reals, Array | None]:
        """The gradients of the learned arrays and of the initial state (or None)."""
        ...

    def cost(self, batch: tuple[int, ...]) -> Cost:
        """What the tracker keeps and does."""
        ...
