"""The contract of a cell, and the conventions that cells share.

A cell is a frozen dataclass of static hyper-parameters with pure functions over pytrees; there is
nothing to inherit. Everything in this file is either the contract itself or the few lines of
arithmetic (mixed-precision products, packed gates) that every cell would otherwise write again.
"""

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

import jax
import jax.numpy as jnp

from jaxrnn._dropout import DroppedKernel

Array = jax.Array
PyTree = Any
Initializer = Callable[..., Array]


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


# Arithmetic -------------------------------------------------------------------------------------


def state_dtype(dtype: Any) -> Any:
    """The dtype of a state beside parameters of ``dtype``: at least float32."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def complex_state_dtype(dtype: Any) -> Any:
    """The dtype of a complex state: complex64, and complex128 beside float64."""
    return jnp.dtype(jnp.complex64 if state_dtype(dtype) == jnp.float32 else jnp.complex128)


def widen(x: Array) -> Array:
    """Casts parameters or inputs to the dtype in which states are kept."""
    return x.astype(state_dtype(x.dtype))


def product(x: Array, kernel: Array | DroppedKernel) -> Array:
    """``x @ kernel``, taken in the kernel's dtype and accumulated in the state's.

    Shapes: x ``[*batch, n]``, kernel ``[n, m]`` -> ``[*batch, m]``.

    Raises:
        ValueError: ``x`` does not have as many features as ``kernel`` has rows.
        TypeError: ``x`` has neither the kernel's dtype nor the state's beside it.
    """
    if x.ndim == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"x has shape {x.shape}, but its last axis must hold the {kernel.shape[0]} features "
            f"that a kernel of shape {kernel.shape} takes; pass the input's width to init as "
            "input_size, or mend the input"
        )
    wide = state_dtype(kernel.dtype)
    if x.dtype not in (kernel.dtype, wide):
        raise TypeError(
            f"x has dtype {x.dtype}, the kernel {kernel.dtype}; they must agree, because nothing "
            f"is promoted silently: cast one of them, e.g. x.astype('{kernel.dtype}')"
        )
    if isinstance(kernel, DroppedKernel):
        return product(kernel.drop(x), kernel.kernel)
    return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=wide)


# Construction -----------------------------------------------------------------------------------


def check_size(name: str, value: Any) -> None:
    """Raises unless ``value`` is a positive integer."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a positive int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be a positive int, got {value!r}")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a real number, and no bool; type checkers may call it a float."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_positive(name: str, value: Any) -> None:
    """Raises unless ``value`` is a positive real number."""
    if not is_number(value):
        raise TypeError(f"{name} must be a positive number, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def check_key(key: Any, name: str = "key") -> None:
    """Raises unless ``key`` is one JAX random key (new style, or uint32 of shape [2])."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        is_key = key.ndim == 0
    else:
        is_key = dtype == jnp.uint32 and key.shape == (2,)
    if not is_key:
        what = f"{dtype}{list(key.shape)}" if dtype is not None else repr(key)
        raise TypeError(f"{name} must be one JAX random key, e.g. jax.random.key(0), got {what}")


def float_dtype(dtype: Any) -> Any:
    """The dtype of new parameters; None is JAX's default floating-point dtype."""
    if dtype is None:
        return jnp.result_type(float)
    try:
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError as error:
        raise TypeError(
            f"dtype must be a floating-point dtype, e.g. jnp.float32, got {dtype!r}"
        ) from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"dtype must be a floating-point dtype, e.g. jnp.float32 (complex parameters are kept "
            f"as real pairs), got {dtype}"
        )
    return dtype


def check_init(key: Any, input_size: Any, dtype: Any) -> Any:
    """Checks the arguments of a cell's ``init`` and returns the dtype of its parameters."""
    check_key(key)
    check_size("input_size", input_size)
    return float_dtype(dtype)


def packed_kernel(
    initializer: Initializer, key: Array, shape: tuple[int, int], gates: int, dtype: Any
) -> Array:
    """A kernel ``[rows, gates * columns]``, each gate's block ``[rows, columns]`` drawn alone."""
    return joined_kernel(initializer, key, shape[0], (shape[1],) * gates, dtype)


def joined_kernel(
    initializer: Initializer, key: Array, rows: int, columns: Sequence[int], dtype: Any
) -> Array:
    """A kernel ``[rows, sum(columns)]``, each block of so many columns drawn alone."""
    keys = jax.random.split(key, len(columns))
    blocks = [initializer(k, (rows, n), dtype) for k, n in zip(keys, columns, strict=True)]
    return jnp.concatenate(blocks, axis=-1)


def split_columns(x: Any, columns: Sequence[int]) -> list[Any]:
    """Splits the last axis into blocks of so many columns."""
    if isinstance(x, DroppedKernel):
        return [DroppedKernel(block, x.mask) for block in split_columns(x.kernel, columns)]
    return jnp.split(x, list(itertools.accumulate(columns))[:-1], axis=-1)


def packed_bias(initializer: Initializer, key: Array, size: int, gates: int, dtype: Any) -> Array:
    """A bias ``[gates * size]``; the initializer sees ``[gates, size]``, a row a gate."""
    return initializer(key, (gates, size), dtype).reshape(gates * size)


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
