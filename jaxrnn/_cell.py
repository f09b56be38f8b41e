"""The contract of a cell.

A cell is a frozen dataclass of static hyper-parameters with pure functions over pytrees; there is
nothing to inherit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from jaxrnn._arguments import check_size
from jaxrnn._typing import Array, PyTree


class _DeclaredByInstance(type(Protocol)):
    """Lets ``isinstance`` ask the instance: a method that is None there is one it does not have.

    Whether a wrapper is affine depends on the cell it wraps, and whether a layer has a step on its
    direction, not on their classes. Newer Pythons look at the class first.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        own = [name for name, member in vars(cls).items() if callable(member)]
        return super().__instancecheck__(instance) and all(
            getattr(instance, name, None) is not None for name in own if not name.startswith("_")
        )


@runtime_checkable
class Cell(Protocol, metaclass=_DeclaredByInstance):
    """What every cell has: a step of a recurrence, as pure functions over pytrees.

    A cell is hashable and holds static hyper-parameters only; what is learned is in ``params``,
    what is remembered is in ``state``. ``step`` works for any number of leading batch axes.

    Optional members, declared by the instance:

    - ``input_rank: int`` (default 1): the number of trailing, non-batch axes of every leaf of one
      step's input. 0 for tokens, 1 for feature vectors.
    - ``stochastic = True``: ``step`` takes a keyword ``key``; ``key=None`` is deterministic.
    - ``bind(params, key, batch_shape) -> params``: draws made once a sequence. `unroll` calls it
      before the loop when it is given a key.
    - ``affine`` and ``readout``: see `AffineCell`.
    - ``chunk``: see `ChunkedCell`.

    Example:
        >>> import jaxrnn as rnn
        >>> isinstance(rnn.LSTM(8), rnn.Cell)
        True
    """

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
class AffineCell(Cell, Protocol):
    """A cell whose state moves by an elementwise affine map: ``state' = a * state + b``.

    Its ``step`` follows from the two functions below, and so does every schedule that is parallel
    over time. ``a`` and ``b`` have the tree structure of the state; ``a`` may broadcast. An
    instance that has no such form, though others of its class have, holds None as ``affine``.
    """

    def affine(self, params: PyTree, x: PyTree, /) -> tuple[PyTree, PyTree]:
        """Returns ``(a, b)`` of ``state' = a * state + b`` for one step's input."""
        ...

    def readout(self, params: PyTree, state: PyTree, x: PyTree, /) -> PyTree:
        """Returns the output of a step from its NEW state."""
        ...


@runtime_checkable
class ChunkedCell(Cell, Protocol):
    """A cell with a matrix-valued state and a closed form for a whole chunk of time."""

    def chunk(self, params: PyTree, state: PyTree, xs: PyTree, /) -> tuple[PyTree, PyTree]:
        """Does ``xs.shape[0]`` steps at once: ``(params, state, xs) -> (state, ys)``."""
        ...


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
    """One step of any cell: the key is passed on to those that take one."""
    if is_stochastic(cell):
        return cell.step(params, state, x, key=key)  # pyright: ignore[reportCallIssue]
    return cell.step(params, state, x)


def bind_with_key(
    cell: Any, params: PyTree, key: Array | None, batch_shape: tuple[int, ...]
) -> PyTree:
    """What any cell draws once a sequence; without a key, or for most cells, the params as is."""
    if key is None or not hasattr(cell, "bind"):
        return params
    return cell.bind(params, key, batch_shape)


# Cells from functions ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FunctionCell:
    """A cell around bare functions; see `from_step`."""

    step: Callable[..., tuple[PyTree, PyTree]]
    init_state: Callable[..., PyTree]
    init: Callable[..., PyTree] | None = None
    output_size: int | None = None
    input_rank: int = 1


def from_step(
    step: Callable[..., tuple[PyTree, PyTree]],
    *,
    init_state: Callable[..., PyTree],
    init: Callable[..., PyTree] | None = None,
    output_size: int | None = None,
    input_rank: int = 1,
) -> FunctionCell:
    """Makes a cell of a bare step function.

    Arrays that ``step`` closes over receive gradients, as they would under `jax.lax.scan`. A step
    written for a single example is used through `jax.vmap` of `unroll`. Make the cell once and keep
    it: two cells are equal when their functions are the same objects, and equal cells share one
    compilation.

    Args:
        step: ``(params, state, x) -> (state, y)`` for inputs with any number of batch axes.
        init_state: ``(params, batch_shape) -> state``.
        init: ``(key, input_size, dtype) -> params``, where the cell should draw its own.
        output_size: the number of features of ``y``, for layers that stack the cell.
        input_rank: non-batch axes of every leaf of ``x``.

    Returns:
        A cell that every engine and layer takes.

    Raises:
        TypeError: ``step``, ``init_state`` or ``init`` is not callable.
        ValueError: ``input_rank`` is negative.

    Example:
        A leaky integrator, with its rate as the only parameter:

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
