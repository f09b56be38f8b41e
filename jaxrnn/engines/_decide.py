"""A branch that is taken for a whole batch."""

from collections.abc import Callable
from typing import Any

import jax

from jaxrnn._typing import Array


def cond_for_all(
    predicate: Array, on_true: Callable[..., Any], on_false: Callable[..., Any], *operands: Any
) -> Any:
    """`jax.lax.cond`, true where the predicate is true for all that `jax.vmap` maps over.

    Under `jax.vmap` a `jax.lax.cond` with a mapped predicate computes both branches and selects.
    Here the predicate is reduced first, so that a branch that is not taken costs nothing; the
    branches must be right for all whenever they are taken for one.
    """

    @jax.custom_batching.custom_vmap
    def decide(predicate, *operands):
        return jax.lax.cond(predicate, on_true, on_false, *operands)

    @decide.def_vmap
    def mapped(axis_size, is_mapped, predicate, *operands):
        axes = jax.tree.map(lambda mapped: 0 if mapped else None, tuple(is_mapped[1:]))
        if is_mapped[0]:
            predicate = predicate.all()
        branches = (
            jax.vmap(branch, in_axes=axes, axis_size=axis_size) for branch in (on_true, on_false)
        )
        out = cond_for_all(predicate, *branches, *operands)
        return out, jax.tree.map(lambda _: True, out)

    return decide(predicate, *operands)
