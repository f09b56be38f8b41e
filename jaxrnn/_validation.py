"""Checks of the arguments of `unroll` and its relatives.

Errors name the argument, what was passed, what was expected and what to do. The checks use Python
values, shapes and dtypes only, so that a mistake is reported before JAX traces anything.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._arguments import brief
from jaxrnn._cell import Cell, can_step, input_rank
from jaxrnn._numerics import without_dropout
from jaxrnn._typing import Array, PyTree


class Arguments(NamedTuple):
    """The checked arguments of a call over a sequence."""

    params: PyTree
    xs: PyTree
    state: PyTree
    time: int
    batch_shape: tuple[int, ...]


def check_sequence(cell: Cell, params: PyTree, xs: PyTree, state: PyTree) -> Arguments:
    """Checks the arguments that can be checked without tracing the cell."""
    check_cell(cell)
    params, xs = as_arrays("params", params), as_arrays("xs", xs)
    state = as_arrays("state", state)
    time, batch_shape = leading_shape(xs, input_rank(cell))
    check_one_float_dtype(params, xs)
    return Arguments(params, xs, state, time, batch_shape)


def prepare(cell: Cell, params: PyTree, xs: PyTree, state: PyTree) -> Arguments:
    """Checks the arguments of a run, one step of the cell included; a state of None is built."""
    given = check_sequence(cell, params, xs, state)
    state = check_state(cell, given.params, given.state, given.xs, given.batch_shape)
    check_step(cell, given.params, state, given.xs)
    return given._replace(state=state)


def check_cell(cell: Any) -> None:
    """Raises unless ``cell`` is a hashable instance with ``step`` and ``init_state``."""
    if isinstance(cell, type):
        raise TypeError(
            f"cell must be an instance, got the class {cell.__name__}; "
            f"create one, e.g. {cell.__name__}(hidden_size=128)"
        )
    has = {"step": can_step(cell), "init_state": callable(getattr(cell, "init_state", None))}
    missing = [name for name, there in has.items() if not there]
    if missing:
        raise TypeError(
            f"cell must have the methods step and init_state, got {brief(cell)}, which lacks "
            f"{' and '.join(missing)}; for a bare step function use jaxrnn.from_step, for a layer "
            "call its apply"
        )
    try:
        hash(cell)
    except TypeError as error:
        raise TypeError(
            f"cell must be hashable, but hash({type(cell).__name__}) failed: {error}; a cell is a "
            "frozen dataclass of static hyper-parameters; move arrays to its params"
        ) from error


def as_array(name: str, value: Any) -> Array:
    """Converts a value to an array; raises TypeError if that is not possible."""
    if isinstance(value, jax.Array):
        return value
    message = f"{name} must be an array, got {type(value).__name__}: {brief(value)}"
    if isinstance(value, str | bytes):  # NumPy would parse it as a dtype
        raise TypeError(message)
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(message) from error


def as_arrays(name: str, tree: PyTree) -> PyTree:
    """Converts every leaf to an array; the error names the leaf that is not convertible."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: as_array(f"{name}{jax.tree_util.keystr(path)}", leaf), tree
    )


def leading_shape(xs: PyTree, rank: int) -> tuple[int, tuple[int, ...]]:
    """The number of steps and the batch shape that all leaves of xs agree on."""
    leaves = jax.tree_util.tree_leaves_with_path(xs)
    if not leaves:
        raise ValueError(f"xs must hold at least one array [time, *batch, features], got {xs!r}")
    seen = None
    for path, leaf in leaves:
        name = f"xs{jax.tree_util.keystr(path)}"
        if leaf.ndim < 1 + rank:
            raise ValueError(
                f"{name} must have shape [time, *batch{', features' * (rank > 0)}], at least "
                f"{1 + rank} axes, got shape {leaf.shape}; time is the first axis; for a single "
                "step call cell.step"
            )
        leading = leaf.shape[: leaf.ndim - rank]
        if seen is not None and leading != seen[1]:
            raise ValueError(
                f"the arrays of xs must agree on their time and batch axes, but {name} has "
                f"{leading} (shape {leaf.shape}) and {seen[0]} has {seen[1]}; the last {rank} "
                "axes of each are features (cell.input_rank)"
            )
        seen = seen or (name, leading)
    return leading[0], leading[1:]


def check_one_float_dtype(params: PyTree, xs: PyTree) -> None:
    """Raises unless all floating-point parameters and inputs share one dtype."""
    first = None
    for name, tree in (("params", params), ("xs", xs)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                continue
            where = f"{name}{jax.tree_util.keystr(path)}"
            dtype = jnp.finfo(leaf.dtype).dtype  # float32 for complex64
            first = first or (where, dtype)
            if dtype != first[1]:
                cast = f"{where}.astype('{first[1]}')"
                raise TypeError(
                    f"{where} has dtype {leaf.dtype}, but {first[0]} has {first[1]}; parameters "
                    "and inputs must share one floating-point dtype, because dtypes are not "
                    f"promoted implicitly: cast one, e.g. {cast}"
                )


def check_lengths(lengths: Any, time: int, batch_shape: tuple[int, ...]) -> Array:
    """Checks lengths ``[*batch]``, and their range if they are not traced."""
    lengths = as_array("lengths", lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(
            f"lengths must be an array of integers, got {lengths.dtype}; for booleans pass mask "
            "instead"
        )
    if lengths.shape != batch_shape:
        raise ValueError(
            f"lengths must have the batch shape {batch_shape} of xs, got shape {lengths.shape}; "
            "lengths are not broadcast: pass one length for every row"
        )
    try:
        values = np.asarray(lengths)
    except jax.errors.TracerArrayConversionError:
        return lengths
    if values.size and (values.min() < 0 or values.max() > time):
        invalid = values.max() if values.max() > time else values.min()
        raise ValueError(
            f"lengths must lie between 0 and the {time} steps of xs, got {invalid}; time is the "
            "first axis of xs"
        )
    return lengths


def check_flags(name: str, flags: Any, shape: tuple[int, ...]) -> Array | None:
    """Checks a mask or starts, bool ``[time, *batch]``."""
    if flags is None:
        return None
    flags = as_array(name, flags)
    if flags.dtype != jnp.bool_:
        raise TypeError(
            f"{name} must be an array of booleans, got {flags.dtype}; write e.g. {name} != 0"
        )
    if flags.shape != shape:
        raise ValueError(
            f"{name} must have the shape {shape} of the time and batch axes of xs, got "
            f"{flags.shape}; there is no broadcasting, and time comes first"
        )
    return flags


def check_state(
    cell: Cell, params: PyTree, state: PyTree, xs: PyTree, batch_shape: tuple[int, ...]
) -> PyTree:
    """Returns the initial state, checked against ``cell.init_state``."""
    name = f"{_name(cell)}.init_state(params, {batch_shape})"
    try:
        wanted = jax.eval_shape(lambda p: cell.init_state(p, batch_shape), params)
    except (TypeError, ValueError, AttributeError) as error:
        _check_params(cell, params, xs)
        raise ValueError(f"{name} failed: {error}; are params those of this cell?") from error
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        if leaf.shape[: len(batch_shape)] != batch_shape:
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} must have shape [*batch_shape, ...], got "
                f"{leaf.shape}; write e.g. jnp.zeros((*batch_shape, size)) in init_state"
            )
    if state is None:
        return cell.init_state(params, batch_shape)
    remedy = "create it with cell.init_state(params, batch_shape), or cast it"
    check_same("state", state, wanted, f"as {name} returns it", remedy)
    return state


def check_step(cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> PyTree:
    """Raises unless one step accepts the state and inputs; returns the types of the new state."""
    name = f"{_name(cell)}.step"

    def first_step(params: PyTree, state: PyTree, xs: PyTree):
        return cell.step(params, state, jax.tree.map(lambda leaf: leaf[0], xs))

    def at_least_one(leaf: Array):
        return leaf if leaf.shape[0] else jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype)

    try:
        results = jax.eval_shape(first_step, params, state, jax.tree.map(at_least_one, xs))
    except (TypeError, ValueError, AttributeError) as error:
        _check_params(cell, params, xs)
        shapes = jax.tree.map(lambda leaf: leaf.shape[1:], xs)
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} failed on one step of xs, shape {shapes}: {error}") from error
    if not isinstance(results, tuple) or len(results) != 2:
        raise TypeError(
            f"{name} must return a pair (state, y), got {_layout(results)}; a cell whose output is "
            "its state returns (state, state)"
        )
    before = jax.eval_shape(lambda state: state, state)
    because = f"the type of the state passed to {name}, which must return the same"
    check_same("state", results[0], before, because, "fix step or init_state")
    return results[0]


def _check_params(cell: Cell, params: PyTree, xs: PyTree) -> None:
    """After a failure in the cell: raises if ``init`` would have returned other parameters."""
    leaf = jax.tree.leaves(xs)[0]
    size = leaf.shape[-1] if leaf.ndim else 0
    try:
        wanted = jax.eval_shape(lambda key: cell.init(key, size), jax.random.key(0))
    except (TypeError, ValueError, AttributeError):
        return
    because = f"as {_name(cell)}.init returns it for the {size} features of xs"
    remedy = f"create params with init(key, input_size={size}), or fix the features of xs"
    check_same("params", without_dropout(params), wanted, because, remedy, dtypes=False)


def _name(cell: Any) -> str:
    """The class name of the innermost cell, without wrappers."""
    while hasattr(cell, "cell"):
        cell = cell.cell
    return type(cell).__name__


def _layout(tree: PyTree) -> str:
    """The structure of a pytree with its names and * for each leaf."""
    return repr(jax.tree.map(lambda _: _Leaf(), tree))


class _Leaf:
    def __repr__(self) -> str:
        return "*"


def check_same(
    name: str, tree: PyTree, wanted: PyTree, because: str, remedy: str, *, dtypes: bool = True
) -> None:
    """Raises unless a pytree has the structure, shapes and (by default) dtypes of another."""
    if jax.tree.structure(tree) != jax.tree.structure(wanted):
        raise TypeError(
            f"{name} must have the structure {_layout(wanted)} ({because}), got {_layout(tree)}; "
            f"{remedy}"
        )
    for (path, leaf), aim in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(wanted), strict=True
    ):
        where = f"{name}{jax.tree_util.keystr(path)}"
        if leaf.shape != aim.shape:
            raise ValueError(
                f"{where} must have shape {aim.shape} ({because}), got {leaf.shape}; {remedy}"
            )
        if dtypes and leaf.dtype != aim.dtype:
            raise TypeError(
                f"{where} must have dtype {aim.dtype} ({because}), got {leaf.dtype}; {remedy}"
            )
