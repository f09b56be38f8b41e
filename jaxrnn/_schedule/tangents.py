"""Tangents in rules of `jax.custom_jvp` with symbolic zeros: None stands for no tangent."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._typing import Array, PyTree


def nonzero_tangent(tangent: Any) -> Any:
    """The tangent, or None if it is a symbolic zero or that of an integer."""
    zero = isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    return None if zero or tangent.dtype == jax.dtypes.float0 else tangent


def zero_tangent(primal: Array) -> Any:
    """The symbolic zero that is the tangent of a value, integers included."""
    return jax.custom_derivatives.zero_from_primal(primal, symbolic_zeros=True)


def dense_tangents(values: Sequence[Array], tangents: Sequence[Any]) -> list[Array | None]:
    """The tangents of these values, zeros included; None of integers."""
    return [
        (jnp.zeros_like(x) if nonzero_tangent(t) is None else t) if is_inexact(x) else None
        for x, t in zip(values, tangents, strict=True)
    ]


def with_zeros(primals: PyTree, tangents: PyTree) -> PyTree:
    """The tangents of these values, where None is a symbolic zero."""
    return jax.tree.map(lambda p, t: zero_tangent(p) if t is None else t, primals, tangents)


def push(function: Callable[..., Any], primals: tuple, tangents: PyTree) -> tuple[Any, Any]:
    """`jax.jvp` in those leaves of the arguments whose tangent is not None: ``(out, tangents)``."""
    leaves, structure = jax.tree.flatten(primals)
    moving = jax.tree.leaves(tangents, is_leaf=lambda t: t is None)

    def moved(replacements):
        both = zip(leaves, replacements, strict=True)
        return function(*structure.unflatten(x if r is None else r for x, r in both))

    given = [None if t is None else x for x, t in zip(leaves, moving, strict=True)]
    return jax.jvp(moved, (given,), (moving,))


def push_nonzero(function: Callable[..., Any], primals: tuple, tangents: PyTree) -> tuple[Any, Any]:
    """`push`, with the tangents of a rule of `jax.custom_jvp` with symbolic zeros."""
    return push(function, primals, jax.tree.map(nonzero_tangent, tangents))
