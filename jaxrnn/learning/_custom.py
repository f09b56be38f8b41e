"""A gradient of one's own: the value of one function, the cotangents of another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._cell import from_step
from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._sharding import equally_varying
from jaxrnn._typing import Array, PyTree
from jaxrnn.learning._real_step import evaluate_closed


class Work(NamedTuple):
    """What a learning rule differentiates, and what it reads."""

    arrays: list[Any]  # constants and parameters of one row's step
    constants: list[Any]  # those of the whole batch's step
    state: list[Any]
    xs: list[Any]
    key: Array | None


class Wanted(NamedTuple):
    """Which leaves of a `Work` need a cotangent."""

    arrays: tuple[bool, ...]
    state: bool
    xs: tuple[bool, ...]

    def as_residual(self) -> "Wanted":
        """The flags as shapes of empty arrays, from forward to backward pass.

        JAX keeps one tree structure of residuals for all uses of a trace, so that static data in
        it would be those of the latest use.
        """
        return jax.tree.map(lambda flag: jnp.zeros((0, int(flag))), self)

    @classmethod
    def of_residual(cls, residual: "Wanted") -> "Wanted":
        """The inverse of `as_residual`."""
        return jax.tree.map(lambda array: bool(array.shape[1]), residual)


def with_gradient(
    value: Callable[[Work], PyTree],
    gradient: Callable[[Work, Wanted, PyTree], tuple[list, list, list]],
    work: Work,
) -> PyTree:
    """``value(work)``, differentiated by ``gradient``.

    Args:
        value: what is computed.
        gradient: ``(work, wanted, cotangents) -> (arrays, state, xs)``, cotangents of the leaves or
            None; the cotangents of integers are None.
        work: the operands.
    """
    run = jax.custom_vjp(value)

    def forward(work):
        flags = jax.tree.map(lambda leaf: leaf.perturbed, work, is_leaf=_is_primal)
        values = jax.tree.map(lambda leaf: leaf.value, work, is_leaf=_is_primal)
        moves = [list(map(is_inexact, leaves)) for leaves in (values.arrays, values.xs)]
        wanted = Wanted(
            tuple(f and m for f, m in zip(flags.arrays, moves[0], strict=True)),
            any(flags.state),
            tuple(f and m for f, m in zip(flags.xs, moves[1], strict=True)),
        )
        return value(values), (values, wanted.as_residual())

    def backward(residuals, cotangents):
        values, wanted = residuals[0], Wanted.of_residual(residuals[1])
        cotangents = jax.tree.map(_instantiated, cotangents, is_leaf=_is_zero)
        cotangents, _ = equally_varying((cotangents, values))

        @jax.custom_jvp
        def once(values, cotangents):
            return gradient(values, wanted, cotangents)

        @once.defjvp
        def refuse(primals, tangents):
            raise TypeError(
                "a learning rule has first derivatives only, and its gradient was differentiated; "
                "use engine=jaxrnn.engines.Hoisted() for derivatives of higher order"
            )

        arrays, state, xs = once(values, cotangents)
        return (Work(arrays, [None] * len(values.constants), state, xs, None),)

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(work)


def _is_primal(node: Any) -> bool:
    return hasattr(node, "perturbed")


def _is_zero(node: Any) -> bool:
    return isinstance(node, jax.custom_derivatives.SymbolicZero)


def _instantiated(cotangent: Any) -> Any:
    if cotangent.dtype == jax.dtypes.float0:
        return None
    if not _is_zero(cotangent):
        return cotangent
    zeros, sharding = jnp.zeros(cotangent.shape, cotangent.dtype), cotangent.aval.sharding
    return jax.reshard(zeros, sharding) if any(sharding.spec) else zeros


def explicit(cell: Any, params: PyTree, state: PyTree, xs: PyTree) -> tuple[Any, list[Any]]:
    """The cell with its closed-over arrays as parameters ``(arrays, params)``, and the arrays."""
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    closed, shape = jax.make_jaxpr(cell.step, return_shape=True)(params, state, x)
    structure = jax.tree.structure(shape)

    def step(params, state, x):
        results = evaluate_closed(closed, [*params[0], *jax.tree.leaves((params[1], state, x))])
        return jax.tree.unflatten(structure, results)

    def init_state(params, batch_shape=()):
        return cell.init_state(params[1], batch_shape)

    return from_step(step, init_state=init_state), list(closed.consts)
