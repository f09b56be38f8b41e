"""Another loop for values than for derivatives.

Hoisting saves work in the backward pass. Where nothing is differentiated, a product of all time
steps computes what the loop would compute, and on a CPU its result travels through memory instead
of the cache. So the values come from the plain loop, and the tangent rule is that of the schedule.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxrnn._schedule.interpret import read, run_loop
from jaxrnn._schedule.partition import CHEAP, Schedule
from jaxrnn._schedule.products import add_parts, is_plain_product, multiply, split_parts
from jaxrnn._schedule.tangents import push_nonzero, zero_tangent
from jaxrnn._schedule.trace import INPUTS


def only_plain_products_are_hoisted(plan: Schedule) -> bool:
    """Whether all that is computed for all time steps at once is products and cheap."""
    eqns = (*plan.inputs.eqns, *plan.after.eqns)
    return all(is_plain_product(eqn) or eqn.primitive.name in CHEAP for eqn in eqns)


def plain_loop(plan: Schedule, once: dict, state: list, slices: list, reverse: bool, unroll: int):
    """All equations but those of parameters only, step by step: ``(state, ys)``."""

    def product(number, operand, addends):
        item = plan.products[number]
        return add_parts(split_parts(item, multiply(item, operand, once[item.kernel])), addends)

    def body(state, slices):
        env = dict(once)
        env.update(zip(plan.step.invars(INPUTS), slices, strict=True))
        env.update(zip(plan.state_in, state, strict=True))
        plan.inputs(env)
        run_loop(plan, env, product)
        plan.after(env)
        return [read(v, env) for v in plan.state_out], [read(v, env) for v in plan.outputs]

    return jax.lax.scan(body, state, slices, reverse=reverse, unroll=unroll)


def with_derivatives_of(values: Callable, derived: Callable, *args: Any) -> Any:
    """``values(*args)``, whose derivatives of all orders are those of ``derived``.

    Both compute the same from lists of arrays.
    """

    @jax.custom_jvp
    def run(*args):
        return values(*args)

    def rule(primals, tangents):
        out, dout = push_nonzero(derived, primals, tangents)
        return out, jax.tree.map(
            lambda x, t: zero_tangent(x) if t.dtype == jax.dtypes.float0 else t, out, dout
        )

    run.defjvp(rule, symbolic_zeros=True)
    return run(*args)
