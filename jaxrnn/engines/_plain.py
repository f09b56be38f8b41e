"""A plain loop for values, and its tangents from the schedule, chunk by chunk.

Hoisting saves work in the backward pass. In a forward pass on a CPU, a product of all time steps
computes what the loop would compute, and its result travels through memory instead of the cache. So
one loop over all steps computes the values, and keeps what their derivatives need. The tangents run
in chunks of time, so that the products of a chunk stay in the cache:

    for each product z = a W + v of a chunk:   ε = a dW + dv      at all its time steps at once
    dz[t] = da[t] W + ε[t]                                        in a loop linear in the tangents

That loop reads what was kept at its place among all time steps. Cut into chunks, it would be copied
from one loop to the other.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._schedule.interpret import read, run_after, run_inputs, run_loop
from jaxrnn._schedule.partition import CHEAP, Schedule
from jaxrnn._schedule.products import is_plain_product, multiply_and_add
from jaxrnn._schedule.tangents import (
    dense_tangents,
    nonzero_tangent,
    push,
    push_nonzero,
    with_zeros,
)
from jaxrnn._schedule.trace import INPUTS
from jaxrnn._typing import Array
from jaxrnn.engines._chunks import in_chunks
from jaxrnn.engines._loop import Loop, Residuals, Window


def only_plain_products_are_hoisted(plan: Schedule) -> bool:
    """Whether all that is computed for all time steps at once is products and cheap."""
    eqns = (*plan.inputs.eqns, *plan.after.eqns)
    return all(is_plain_product(eqn) or eqn.primitive.name in CHEAP for eqn in eqns)


class Kept(NamedTuple):
    """What the loop keeps for the derivative, stacked over time."""

    residuals: Residuals
    stacked: tuple[Array | None, ...]  # what the loop reads, other than as an addend
    emitted: tuple[Array, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class PlainLoop:
    """All equations but those of parameters only, step by step; see `values`.

    Args:
        plan: the schedule.
        names: the variables of the values of parameters only.
        reverse: whether the loop runs backward in time.
        unroll: steps in one iteration.
    """

    plan: Schedule
    names: tuple[Any, ...]
    reverse: bool
    unroll: int

    def values(self, once: list, state: list, slices: list) -> tuple[list, list]:
        """``(state, ys)`` from the values of parameters only, the state and the inputs."""
        return self._run(once, state, slices, keep=False)[:2]

    def differentiable(self, every: int) -> Callable[[list, list, list], tuple[list, list]]:
        """`values`, with tangents in chunks of `every` steps."""
        run = jax.custom_jvp(self.values)

        def rule(primals, tangents):
            final, ys, kept = self._run(*primals, keep=True)
            out = final, ys
            return out, with_zeros(out, self._tangents(primals, tangents, kept, every))

        run.defjvp(rule, symbolic_zeros=True)
        return run

    def _loop(self, time: int) -> Loop:
        return Loop(self.plan, time, self.reverse, self.unroll)

    def _run(self, once: list, state: list, slices: list, keep: bool):
        plan, known = self.plan, dict(zip(self.names, once, strict=True))
        reads = self._loop(0).reads

        def body(state, slices):
            env, sums = dict(known), []
            env.update(zip(plan.step.invars(INPUTS), slices, strict=True))
            env.update(zip(plan.state_in, state, strict=True))

            def product(number, operand, addends):
                item = plan.products[number]
                sums.append(multiply_and_add(item, operand, env[item.kernel], addends))
                return sums[-1]

            plan.inputs(env)
            run_loop(plan, env, product)
            plan.after(env)
            kept = Kept(
                Residuals(tuple(state), tuple(sums)),
                tuple(env[v] if v in reads else None for v in plan.stacked),
                tuple(env[v] for v in plan.emitted),
            )
            ys = [read(v, env) for v in plan.outputs]
            return [read(v, env) for v in plan.state_out], (ys, kept if keep else ())

        final, (ys, kept) = jax.lax.scan(
            body, state, slices, reverse=self.reverse, unroll=self.unroll
        )
        return final, ys, kept

    def _tangents(self, primals, tangents, kept: Any, every: int) -> tuple[list, list]:
        """The tangents of `values`, None for integers."""
        once, state, slices = primals
        donce, dslices = ([nonzero_tangent(t) for t in tangents[group]] for group in (0, 2))
        dstate = dense_tangents(state, tangents[1])

        env = dict(zip(self.names, once, strict=True))
        kernels = self._loop(every).transposed(
            [env[product.kernel] for product in self.plan.products]
        )

        def chunk(donce, dstate, here):
            times, here, slices, dslices = here
            state = [states[-1 if self.reverse else 0] for states in here.residuals.states]

            def values(once, state, slices):
                window = Window(kernels, (kept.residuals, kept.stacked), times[0])
                return self._chunk(once, state, slices, here, window)

            moving = (donce, dstate, dslices)
            out, tangents = push(values, (once, state, slices), moving)
            return jax.tree.map(lambda x, t: t if is_inexact(x) else None, out, tangents)

        # What does not depend on tangents is computed again in the backward pass, not kept.
        chunk = jax.checkpoint(chunk, prevent_cse=False)
        times = jnp.arange(slices[0].shape[0])
        work = (times, kept, slices, dslices)
        return in_chunks(chunk, donce, dstate, work, every, self.reverse, checkpoint=False)

    def _chunk(self, once: list, state: list, slices: list, kept: Kept, window: Window):
        """A chunk by the schedule, for its tangents: where values are kept, it computes none."""
        env, time = dict(zip(self.names, once, strict=True)), slices[0].shape[0]
        operands, stacked = run_inputs(self.plan, env, slices)
        known = (
            x if value is None else _known(value, x)
            for value, x in zip(kept.stacked, operands.stacked, strict=True)
        )
        operands = operands._replace(stacked=tuple(known))
        final, emitted = self._loop(time).replay(
            operands, tuple(state), kept.residuals, kept.emitted, window
        )
        stacked.update(zip(self.plan.emitted, emitted, strict=True))
        return list(final), run_after(self.plan, env, stacked, time)


def _known(value: Array, computed: Array) -> Array:
    """A value that was kept, with the tangent of its computation."""

    @jax.custom_jvp
    def known(computed):
        return value

    known.defjvp(lambda _, tangents: (value, tangents[0]))
    return known(computed)


def with_derivatives_of(values: Callable, derived: Callable, *args: Any) -> Any:
    """``values(*args)``, whose derivatives of all orders are those of ``derived``.

    Both compute the same from lists of arrays.
    """

    @jax.custom_jvp
    def run(*args):
        return values(*args)

    def rule(primals, tangents):
        out, dout = push_nonzero(derived, primals, tangents)
        nonzero = jax.tree.map(lambda t: None if t.dtype == jax.dtypes.float0 else t, dout)
        return out, with_zeros(out, nonzero)

    run.defjvp(rule, symbolic_zeros=True)
    return run(*args)
