"""The contract of a cell.

A cell is a frozen dataclass of static hyperparameters with pure functions over pytrees; no base
class is needed.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

import jax

from jaxrnn._arguments import check_size
from jaxrnn._frozen import constructor_call, frozen
from jaxrnn._typing import Array, PyTree


class _Members(Protocol):
    """The members that every cell has."""

    @property
    def output_size(self) -> int | None:
        """The number of features of one output."""
        ...

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the parameters, a pytree of arrays of one floating-point dtype."""
        ...

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the state before the first step, leaves ``[*batch_shape, ...]``."""
        ...

    def step(self, params: PyTree, state: PyTree, x: PyTree, /) -> tuple[PyTree, PyTree]:
        """Takes one step: ``(params, state, x) -> (state, y)``."""
        ...


@runtime_checkable
class Cell(_Members, Protocol):
    """The contract of a cell: one step of a recurrence, as pure functions over pytrees.

    A cell is hashable and holds static hyperparameters only; ``params`` holds what is learned, and
    ``state`` what is remembered. ``step`` works for any number of leading batch axes.

    Optional members:

    - ``input_rank: int`` (default 1): the number of trailing, non-batch axes of every leaf of one
      step's input. 0 for tokens, 1 for feature vectors.
    - ``stochastic = True``: ``step`` takes a keyword ``key``; ``key=None`` is deterministic.
    - ``bind(params, key, batch_shape) -> params``: makes the random draws of a whole sequence.
      `unroll` calls it before the loop when it is given a key.
    - ``affine`` and ``readout``: see `AffineCell`.
    - ``chunk``: see `ChunkedCell`.

    Example:
        >>> import jaxrnn as rnn
        >>> isinstance(rnn.LSTM(8), rnn.Cell)
        True
    """


class AffineCell(_Members, Protocol):
    """A cell with an elementwise affine state update: ``state' = a * state + b``.

    Its ``step`` follows from the two functions below, and so does every schedule that is parallel
    over time. ``a`` and ``b`` have the tree structure of the state; ``a`` may broadcast.

    `is_affine` tests an instance; ``isinstance`` does not, because it sees only the class. An
    instance without an affine form, of a class that has one, has ``affine = None`` or the member
    ``is_affine = False``.
    """

    def affine(self, params: PyTree, x: PyTree, /) -> tuple[PyTree, PyTree]:
        """Returns ``(a, b)`` of ``state' = a * state + b`` for one step's input."""
        ...

    def readout(self, params: PyTree, state: PyTree, x: PyTree, /) -> PyTree:
        """Returns the output of a step from its NEW state."""
        ...


class ChunkedCell(_Members, Protocol):
    """A cell with a matrix-valued state and a closed form for a chunk of time steps.

    `is_chunked` tests an instance.
    """

    def chunk(self, params: PyTree, state: PyTree, xs: PyTree, /) -> tuple[PyTree, PyTree]:
        """Runs ``xs.shape[0]`` steps at once: ``(params, state, xs) -> (state, ys)``."""
        ...


class SpannedCell(ChunkedCell, Protocol):
    """A `ChunkedCell` whose chunks can run at the same time, on different devices.

    ``after_span(state, span(params, xs))`` is the state of ``chunk(params, state, xs)``, and the
    span, which does not depend on the state, is as small as a state. `is_spanned` tests an
    instance.
    """

    def span(self, params: PyTree, xs: PyTree, /) -> PyTree:
        """What the steps of ``xs`` do to any state, as a pytree with leaves ``[*batch, ...]``."""
        ...

    def after_span(self, state: PyTree, span: PyTree, /) -> PyTree:
        """Returns the state after a span."""
        ...


def is_affine(cell: Any) -> TypeGuard[AffineCell]:
    """Whether the cell is an `AffineCell`; a wrapper is one if the wrapped cell is.

    Example:
        >>> import jaxrnn as rnn
        >>> [rnn.is_affine(rnn.wrappers.Residual(cell)) for cell in (rnn.LRU(8), rnn.GRU(8))]
        [True, False]
    """
    return _has(cell, "affine", "readout") and getattr(cell, "is_affine", True)


def is_chunked(cell: Any) -> TypeGuard[ChunkedCell]:
    """Whether the cell is a `ChunkedCell`."""
    return _has(cell, "chunk")


def is_spanned(cell: Any) -> TypeGuard[SpannedCell]:
    """Whether the cell is a `SpannedCell`."""
    return is_chunked(cell) and _has(cell, "span", "after_span")


def can_step(cell: Any) -> TypeGuard[Cell]:
    """Whether a cell or a layer runs one step at a time, forward in time."""
    return _has(cell, "step") and getattr(cell, "can_step", True)


def _has(cell: Any, *methods: str) -> bool:
    return all(callable(getattr(cell, name, None)) for name in methods)


def input_rank(cell: Any) -> int:
    """The number of non-batch axes of every leaf of one step's input."""
    return getattr(cell, "input_rank", 1)


def is_stochastic(cell: Any) -> bool:
    """Whether the cell's step takes a key."""
    return bool(getattr(cell, "stochastic", False))


def affine_step(cell: Any, params: PyTree, state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    """The step of an `AffineCell`, from its ``affine`` and ``readout``."""
    a, b = cell.affine(params, x)
    state = jax.tree.map(lambda a, h, b: a * h + b, a, state, b)
    return state, cell.readout(params, state, x)


def step_with_key(cell: Cell, params: PyTree, state: PyTree, x: PyTree, key: Array | None):
    """One step of any cell, with the key if the cell takes one."""
    if is_stochastic(cell):
        return cell.step(params, state, x, key=key)  # pyright: ignore[reportCallIssue]
    return cell.step(params, state, x)


def bind_with_key(
    cell: Any, params: PyTree, key: Array | None, batch_shape: tuple[int, ...]
) -> PyTree:
    """The parameters after ``bind``, if the cell has one and there is a key."""
    if key is None or not hasattr(cell, "bind"):
        return params
    return cell.bind(params, key, batch_shape)


# Cells from functions ---------------------------------------------------------------------------


@frozen
class FunctionCell:
    """A cell made from functions; see `from_step`."""

    step: Callable[..., tuple[PyTree, PyTree]]
    init_state: Callable[..., PyTree]
    init: Callable[..., PyTree] | None = None
    output_size: int | None = None
    input_rank: int = 1

    def __repr__(self) -> str:
        return constructor_call(self).replace("FunctionCell(step=", "from_step(", 1)


def from_step(
    step: Callable[..., tuple[PyTree, PyTree]],
    *,
    init_state: Callable[..., PyTree],
    init: Callable[..., PyTree] | None = None,
    output_size: int | None = None,
    input_rank: int = 1,
) -> FunctionCell:
    """Makes a cell from a step function.

    Arrays that ``step`` closes over receive gradients, as they would under `jax.lax.scan`. Use
    `jax.vmap` of `unroll` for a step written for a single example. Create the cell once: two cells
    are equal if their functions are the same objects, and equal cells share one compilation.

    Args:
        step: ``(params, state, x) -> (state, y)`` for inputs with any number of batch axes.
        init_state: ``(params, batch_shape) -> state``.
        init: ``(key, input_size, dtype) -> params``, for cells that draw their parameters.
        output_size: the number of features of ``y``, for layers that stack the cell.
        input_rank: the number of non-batch axes of every leaf of ``x``.

    Returns:
        A cell for every engine and layer.

    Raises:
        TypeError: ``step``, ``init_state`` or ``init`` is not callable.
        ValueError: ``input_rank`` is negative.

    Example:
        A leaky integrator with one parameter, its rate:

        >>> import jax.numpy as jnp
        >>> import jaxrnn as rnn
        >>> def leaky(rate, state, x):
        ...     state = (1 - rate) * state + rate * x
        ...     return state, state
        >>> cell = rnn.from_step(leaky, init_state=lambda rate, batch: jnp.zeros((*batch, 1)))
        >>> final, ys = rnn.unroll(cell, jnp.array(0.5), jnp.ones((3, 1)))
        >>> print(ys[:, 0])
        [0.5   0.75  0.875]
    """
    for name, value in (("step", step), ("init_state", init_state), ("init", init)):
        if not callable(value) and not (name == "init" and value is None):
            raise TypeError(f"{name} must be a function, got {value!r}")
    if isinstance(input_rank, bool) or not isinstance(input_rank, int):
        raise TypeError(f"input_rank must be an int, got {input_rank!r}")
    if input_rank < 0:
        raise ValueError(f"input_rank must be 0 or more, got {input_rank}")
    if output_size is not None:
        check_size("output_size", output_size)
    return FunctionCell(step, init_state, init, output_size, input_rank)
