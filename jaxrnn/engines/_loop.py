"""The loop of a schedule as a scan, and its derivative.

The derivative is a tangent rule, from which JAX derives all others by transposing and repeating it:

    for each product z = a W + v:   ε = a dW + dv        at all time steps at once
    dz[t] = da[t] W + ε[t]                               in a scan that is linear in the tangents

The pointwise part is recomputed from the sums z, which the primal keeps as residuals, so no product
is computed twice. The transposed scan runs backwards and yields the cotangents ε̄, and the first
line becomes dW = Σₜ a[t]ᵀ ε̄[t]: one contraction over time and batch, after the loop.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._schedule.interpret import Operands, run_step
from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.products import (
    Product,
    join_parts,
    linear_multiply,
    multiply_and_add,
    split_parts,
    transposed_kernel,
    whole_over_time,
)
from jaxrnn._schedule.tangents import dense_tangents, nonzero_tangent, with_zeros
from jaxrnn._schedule.trace import all_eqns, is_literal


class Residuals(NamedTuple):
    """What the primal keeps for the derivative, stacked over time."""

    states: tuple[Any, ...]  # before each step
    sums: tuple[tuple[Any, ...], ...]  # of each product, part by part


class Window(NamedTuple):
    """What a loop over tangents reads, of all time steps, of which it reads its own."""

    kernels: tuple[Any, ...]  # from `transposed_kernel`
    kept: tuple[Residuals, tuple[Any, ...]]  # and the stacked operands
    start: Any  # the first time step of the loop


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """Runs a schedule's loop: ``loop(operands, state) -> (state, emitted)``."""

    schedule: Schedule
    time: int
    reverse: bool
    unroll: int

    def __call__(self, operands: Operands, state: tuple) -> tuple[tuple, tuple]:
        """Returns the final state and the stacked values that the steps emit."""
        derived = has_tangent_rules(self.schedule.loop_eqns)
        run = self._differentiable(keep=False) if derived else self._primal
        return run(operands, state)[:2]

    def replay(
        self,
        operands: Operands,
        state: tuple,
        residuals: Residuals,
        emitted: tuple,
        window: Window,
    ) -> tuple[tuple, tuple]:
        """Has the tangents of a call whose residuals and emitted values are known.

        The loop over the tangents reads what it needs from the window. The state is returned as it
        came: only its tangent is that of the final state.
        """

        @jax.custom_jvp
        def run(operands: Operands, state: tuple):
            return state, emitted

        def rule(primals, tangents):
            (operands, state), (doperands, dstate) = primals, tangents
            dfinal, (demitted, _) = self._tangent(
                operands, state, doperands, dstate, residuals, keep=False, window=window
            )
            out = state, emitted
            return out, with_zeros(out, (dfinal, demitted))

        run.defjvp(rule, symbolic_zeros=True)
        return run(operands, state)

    def _differentiable(self, keep: bool):
        @jax.custom_jvp
        def run(operands: Operands, state: tuple):
            return self._primal(operands, state, keep)

        def rule(primals, tangents):
            # The residuals come from the differentiable function, not from the scan inside it, so
            # that higher derivatives follow this rule again.
            (operands, state), (doperands, dstate) = primals, tangents
            residuals: Any
            final, emitted, residuals = self._differentiable(keep=True)(operands, state)
            dfinal, (demitted, dresiduals) = self._tangent(
                operands, state, doperands, dstate, residuals, keep
            )
            out = (final, emitted, residuals if keep else ())
            return out, with_zeros(out, (dfinal, demitted, dresiduals))

        run.defjvp(rule, symbolic_zeros=True)
        return run

    def _scan(self, body, carry, xs):
        # The number of steps may be symbolic, which a scan takes from what it slices only.
        def counted(carry, slices):
            return body(carry, slices[1])

        steps = () if jax.tree.leaves(xs) else jnp.arange(self.time)
        return jax.lax.scan(counted, carry, (steps, xs), reverse=self.reverse, unroll=self.unroll)

    def transposed(self, kernels: Sequence[Any]) -> tuple[Any, ...]:
        """The kernels in the layout that the loop over tangents takes."""
        both = zip(self.schedule.products, kernels, strict=True)
        return tuple(transposed_kernel(product, kernel) for product, kernel in both)

    def _primal(self, operands: Operands, state: tuple, keep: bool = False):
        plan = self.schedule

        def body(state, slices):
            sums = []

            def product(number, operand, addends):
                kernel = operands.kernels[number]
                sums.append(multiply_and_add(plan.products[number], operand, kernel, addends))
                return sums[-1]

            new, emitted = run_step(plan, operands._replace(stacked=slices), state, product)
            return new, (emitted, Residuals(state, tuple(sums)) if keep else ())

        state, (emitted, residuals) = self._scan(body, state, operands.stacked)
        return state, emitted, residuals

    @property
    def reads(self) -> set[Any]:
        """The variables that the loop reads other than as the addend of a product."""
        plan = self.schedule
        read = plan.pointwise_reads | {*(product.operand for product in plan.products)}
        return read | {*plan.emitted, *(v for v in plan.state_out if not is_literal(v))}

    def _product_operands(self, operands: Operands, residuals: Residuals) -> list[Any]:
        """The operand of each product at all time steps."""

        def replay(state, slices, sums):
            found = []

            def product(number, operand, addends):
                found.append(operand)
                return sums[number]

            run_step(self.schedule, operands._replace(stacked=slices), state, product)
            return found

        return jax.vmap(replay)(residuals.states, operands.stacked, residuals.sums)

    def _increments(self, operands: Operands, tangents: Operands, residuals: Residuals):
        """The ε of every product at all time steps, its parts joined; None where it is zero.

        Joined, because the product of the transposed loop needs its cotangents so: they are joined
        once, in the loop, and stacked as one array.
        """
        plan, increments, inputs = self.schedule, [], None
        addend_tangents = dict(zip(plan.stacked, tangents.stacked, strict=True))
        for v, tangent in zip(plan.constants, tangents.constants, strict=True):
            addend_tangents[v] = None if tangent is None else tangent[None]
        for number, product in enumerate(plan.products):
            increment, dkernel = None, tangents.kernels[number]
            if dkernel is not None:
                inputs = inputs or self._product_operands(operands, residuals)
                increment = whole_over_time(product, inputs[number], dkernel)
            dvs = [addend_tangents.get(v) for v in product.addends]
            if any(dv is not None for dv in dvs):
                parts = [
                    jnp.zeros_like(z) if dv is None else dv + jnp.zeros_like(z)  # as z is sharded
                    for dv, z in zip(dvs, residuals.sums[number], strict=True)
                ]
                joined = join_parts(product, parts, leading=1)
                increment = joined if increment is None else joined + increment
            increments.append(increment)
        return tuple(increments)

    def _tangent(
        self,
        operands: Operands,
        state: tuple,
        doperands: Operands,
        dstate: tuple,
        residuals: Residuals,
        keep: bool,
        window: Window | None = None,
    ):
        """The tangents of the results of `_primal`, None for integers."""
        plan = self.schedule
        doperands = Operands(*(tuple(map(nonzero_tangent, group)) for group in doperands))
        increments = self._increments(operands, doperands, residuals)
        # The tangents of pure addends are part of ε already.
        read = self.reads

        def where_read(variables, values):
            return tuple(x if v in read else None for v, x in zip(variables, values, strict=True))

        dconstants = where_read(plan.constants, doperands.constants)
        dstacked = where_read(plan.stacked, doperands.stacked)
        stacked = where_read(plan.stacked, operands.stacked)
        kernels = self.transposed(operands.kernels) if window is None else window.kernels

        def linear(dstate, slices):
            kept, dslices, increments = slices
            if window is not None:
                kept = jax.tree.map(
                    lambda x: jax.lax.dynamic_index_in_dim(x, kept, 0, False), window.kept
                )
            (states, sums), stacked = kept

            def step(state, constants, inputs, offsets):
                state = _merge(states, state)
                replayed = []

                def product(number, operand, addends):
                    item = plan.products[number]
                    factors = operand, kernels[number]
                    replayed.append(_replay(item, sums[number], *factors, offsets[number]))
                    return replayed[-1]

                values = Operands(
                    operands.kernels,
                    _merge(operands.constants, constants),
                    _merge(stacked, inputs),
                )
                new, emitted = run_step(plan, values, state, product)
                again = Residuals(state, tuple(replayed)) if keep else ()
                return _inexact(new), _inexact((emitted, again))

            primals = (
                _inexact(states),
                _where_given(operands.constants, dconstants),
                _where_given(stacked, dslices),
                jax.tree.map(jnp.zeros_like, increments),
            )
            return jax.jvp(step, primals, (dstate, dconstants, dslices, increments))[1]

        dstate = tuple(dense_tangents(state, dstate))
        kept = (residuals, stacked) if window is None else window.start + jnp.arange(self.time)
        slices = (kept, dstacked, increments)
        # The intermediate values of the replay are recomputed, not kept.
        return self._scan(jax.checkpoint(linear, prevent_cse=False), dstate, slices)


def has_tangent_rules(eqns) -> bool:
    """Whether JAX can differentiate equations forwards, and then transpose or batch the result.

    A function under `jax.custom_vjp` has no tangent. A `cond` under `jax.vmap` becomes a `select`
    whose tangent JAX cannot transpose.
    """
    names = [eqn.primitive.name for eqn in all_eqns(eqns)]
    return not any(name == "cond" or name.startswith("custom_vjp") for name in names)


def _replay(product: Product, sums, operand, kernel, offset):
    """The sums from the residuals, with the derivative of ``split(operand @ kernel + offset)``."""

    @jax.custom_jvp
    def replay(operand, offset):
        return sums

    @replay.defjvp
    def rule(_, tangents):
        doperand, doffset = tangents
        whole = linear_multiply(product, doperand, kernel)
        return sums, split_parts(product, whole if doffset is None else whole + doffset)

    return replay(operand, offset)


# Trees with None where there is no tangent --------------------------------------------------------


def _inexact(tree):
    return jax.tree.map(lambda leaf: leaf if is_inexact(leaf) else None, tree)


def _merge(values, replacements) -> tuple:
    return tuple(v if r is None else r for v, r in zip(values, replacements, strict=True))


def _where_given(values, tangents) -> tuple:
    return tuple(None if t is None else v for v, t in zip(values, tangents, strict=True))
