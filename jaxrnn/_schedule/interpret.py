"""Evaluates a schedule: the one interpreter of steps that all engines share.

An engine decides how the loop runs, step by step or at all time steps at once, and how a product in
it is computed; the rest is the same for every engine.
"""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._schedule.partition import Piece, Schedule
from jaxrnn._schedule.products import is_plain_product, multiply_plain_over_time
from jaxrnn._schedule.trace import INPUTS, PARAMS, evaluate, is_literal
from jaxrnn._typing import Array, PyTree


class Operands(NamedTuple):
    """What the loop reads in addition to the state, in the order of the schedule's fields."""

    kernels: tuple[Any, ...]  # one for each product
    constants: tuple[Any, ...]
    stacked: tuple[Any, ...]  # [time, ...]; of one step, [...]


def run_before(plan: Schedule, params: PyTree) -> dict[Any, Array]:
    """The loop-invariant values: parameters and what depends on them only."""
    values = [*plan.step.constants, *jax.tree.leaves(params)]
    env = dict(zip(plan.step.invars(PARAMS), values, strict=True))
    plan.before(env)
    return env


def run_inputs(plan: Schedule, once: dict, xs: PyTree) -> tuple[Operands, dict[Any, Array]]:
    """What the loop reads, and all values of the inputs at all time steps.

    Adds to ``once``, the values from `run_before`.
    """
    stacked = dict(zip(plan.step.invars(INPUTS), jax.tree.leaves(xs), strict=True))
    over_time(plan.inputs, once, stacked)
    operands = Operands(
        kernels=tuple(once[product.kernel] for product in plan.products),
        constants=tuple(once[v] for v in plan.constants),
        stacked=tuple(stacked[v] for v in plan.stacked),
    )
    return operands, stacked


def run_step(
    plan: Schedule, operands: Operands, state: Sequence[Array], product: Callable
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """One step of the loop: ``(state, emitted)``; for ``product`` see `run_loop`."""
    env = dict(zip(plan.constants, operands.constants, strict=True))
    env.update(zip(plan.state_in, state, strict=True))
    env.update(zip(plan.stacked, operands.stacked, strict=True))
    run_loop(plan, env, product)
    return tuple(read(v, env) for v in plan.state_out), tuple(env[v] for v in plan.emitted)


def run_loop(
    plan: Schedule,
    env: MutableMapping[Any, Array],
    product: Callable[[int, Array, list[Array | None]], Sequence[Array]],
    piece: Callable[[Piece, Any], None] = Piece.__call__,
) -> None:
    """Evaluates the equations of the loop in order and adds their results to ``env``.

    Args:
        plan: the schedule.
        env: the values of the variables that the loop reads.
        product: ``(number, operand, addends) -> sums``, how the n-th product is computed.
        piece: ``(piece, env) -> None``, how a piece is evaluated.
    """
    number = 0
    for item in plan.loop:
        if isinstance(item, Piece):
            piece(item, env)
            continue
        addends = [None if v is None else env[v] for v in item.addends]
        sums = product(number, env[item.operand], addends)
        env.update(zip(item.outvars, sums, strict=True))
        number += 1


def run_after(plan: Schedule, once: dict, stacked: dict, time: int) -> list[Array]:
    """The outputs at all time steps, given the emitted values in ``stacked``."""
    over_time(plan.after, once, stacked)
    return [read_over_time(v, once, stacked, time) for v in plan.outputs]


def over_time(piece: Piece, once: dict, stacked: dict) -> None:
    """Evaluates a piece at all time steps; results that do not vary over time go to ``once``."""
    for eqn in piece.eqns:
        free = list(dict.fromkeys(v for v in eqn.invars if not is_literal(v)))
        args = [stacked[v] if v in stacked else once[v] for v in free]
        if is_plain_product(eqn) and eqn.invars[0] in stacked and eqn.invars[1] in once:
            results = [multiply_plain_over_time(eqn, *args)]
            stacked.update(zip(eqn.outvars, results, strict=True))
            continue

        def step(*args, eqn=eqn, free=free):
            return evaluate(piece.jaxpr, [eqn], free, eqn.outvars, args)

        axes = [0 if v in stacked else None for v in free]
        if 0 in axes:
            stacked.update(zip(eqn.outvars, jax.vmap(step, axes)(*args), strict=True))
        else:
            once.update(zip(eqn.outvars, step(*args), strict=True))


def read(v: Any, env: MutableMapping[Any, Array]) -> Array:
    """The value of a variable or literal."""
    return jnp.asarray(v.val, v.aval.dtype) if is_literal(v) else env[v]


def read_over_time(v: Any, once: dict, stacked: dict, time: int) -> Array:
    """The value of a variable or literal at all time steps, broadcast if it does not vary."""
    if not is_literal(v) and v in stacked:
        return stacked[v]
    value = read(v, once)
    return jnp.broadcast_to(value, (time, *value.shape))
