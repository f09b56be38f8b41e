"""What a learner remembers between two steps, and what `Online` needs to make it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxrnn._arguments import brief
from jaxrnn._cell import input_rank
from jaxrnn._schedule.flat_state import batch_rank, is_inexact
from jaxrnn._sharding import is_explicit, specs_of, with_automatic_axes
from jaxrnn._typing import Array, PyTree


class Stream(NamedTuple):
    """What a learner remembers between two steps; its size does not depend on their number.

    Attributes:
        count: steps taken.
        key: the key, or None.
        state: the state of the cell.
        memory: what the rule remembers: influence; for `TBPTT`, whether the state before the first
            step was the cell's own, through which parameters have influence.
        last: what `Online.gradient` reads of the last step; for `TBPTT`, of the last window.
    """

    count: Array
    key: Array | None
    state: PyTree
    memory: PyTree
    last: "Last"


class Last(NamedTuple):
    """A step taken: the state and influence before it, and the input."""

    state: PyTree
    memory: PyTree  # None where no output depends on the old state
    x: PyTree


def one(x: PyTree) -> PyTree:
    """A sequence of one step."""
    return jax.tree.map(lambda leaf: leaf[None], x)


def batch_shape(cell: Any, params: PyTree, state: PyTree) -> tuple[int, ...]:
    """The batch axes of a state."""
    leaves = jax.tree.leaves(state)
    return leaves[0].shape[: batch_rank(cell, params, state)] if leaves else ()


def input_like(cell: Any, params: PyTree, batch: tuple[int, ...], leaves: list) -> PyTree:
    """An input of the shape for which ``cell.init`` draws parameters like these."""
    if callable(getattr(cell, "init", None)) and input_rank(cell) == 1:
        shapes = [jnp.shape(leaf) for leaf in leaves]
        sizes = sorted({size for shape in shapes for size in shape})

        def fits(size: int) -> bool:
            drawn = jax.eval_shape(lambda key: cell.init(key, size), jax.random.key(0))
            return [leaf.shape for leaf in jax.tree.leaves(drawn)] == shapes

        size = next(filter(fits, sizes), None)
        if size is not None and not fits(1 + max(sizes)):  # else any size does
            dtype = next(leaf.dtype for leaf in leaves if is_inexact(leaf))
            return jax.ShapeDtypeStruct((*batch, size), dtype)
    raise ValueError(
        f"the shape of one input does not follow from the parameters of {brief(cell)}; pass an "
        "example: init(params, state, x=xs[0])"
    )


def pushed(kept: Last, empty: Array, state: PyTree, x: PyTree) -> Last:
    """The window with one step more; if it was empty, all of it is that step."""

    def push(kept, new):
        shifted = jnp.concatenate([kept[1:], new[None]])
        return jnp.where(empty, jnp.broadcast_to(new, kept.shape), shifted)

    return Last(jax.tree.map(push, kept.state, state), None, jax.tree.map(push, kept.x, x))


def pulled(function: Callable, params: PyTree, cotangents: Sequence[Array]) -> PyTree:
    """The gradient of ``params``, given cotangents of the floating-point leaves of a function."""
    leaves, structure = jax.tree.flatten(params)
    places = [n for n, leaf in enumerate(leaves) if is_inexact(leaf)]

    def of_floats(floats):
        whole = list(leaves)
        for place, value in zip(places, floats, strict=True):
            whole[place] = value
        out = function(jax.tree.unflatten(structure, whole))
        return [leaf for leaf in jax.tree.leaves(out) if is_inexact(leaf)]

    (found,) = jax.vjp(of_floats, [leaves[place] for place in places])[1](list(cotangents))
    gradient = list(map(jnp.zeros_like, leaves))
    for place, value in zip(places, found, strict=True):
        gradient[place] = value
    return jax.tree.unflatten(structure, gradient)


def automatically(function: Callable, specs: Callable, *args: Any) -> PyTree:
    """``function(*args)``, under automatic sharding if an argument is sharded explicitly.

    The rows of a batch that is sharded by its type cannot be taken one by one.

    Args:
        function: what is computed.
        specs: ``() -> specs`` of the results.
        args: the operands.
    """
    if not is_explicit(args):
        return function(*args)
    return with_automatic_axes(function, specs())(*args)


def specs_of_rows(memory: PyTree, state: PyTree, rank: int) -> PyTree:
    """The specs of a memory whose first ``rank`` axes are sharded as those of a state."""
    rows = P(*jax.tree.leaves(specs_of(state))[0][:rank])
    return jax.tree.map(lambda _: rows, memory)
