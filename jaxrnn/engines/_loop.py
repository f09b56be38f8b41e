"""The loop of a schedule, and its derivative: the part that cannot leave time's order.

The primal is a scan. Its derivative is written as a tangent rule, from which JAX makes every other
derivative by transposing and repeating it:

    for each product z = a W + v:   ε = a dW + dv        for all time steps at once
    dz[t] = da[t] W + ε[t]                               in a scan that is linear in the tangents

where the pointwise rest is replayed from the sums z that the primal kept, so that no product is
done twice. Transposed, the scan runs backwards and yields the gradients ε̄, and the first line
becomes dW = Σₜ a[t]ᵀ ε̄[t]: one contraction over time and batch, after the loop.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._schedule import products as _products
from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.pieces import Piece, Product
from jaxrnn._schedule.trace import is_literal, nested_jaxprs


class Operands(NamedTuple):
    """What the loop reads, in the order of the schedule's fields."""

    kernels: tuple[Any, ...]  # one for each product
    constants: tuple[Any, ...]
    state: tuple[Any, ...]
    stacked: tuple[Any, ...]  # [time, ...]


class Kept(NamedTuple):
    """What the primal keeps for the derivative, stacked over time."""

    states: tuple[Any, ...]  # before each step
    sums: tuple[tuple[Any, ...], ...]  # of each product, part by part


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """Runs a schedule's loop: ``loop(operands) -> (state, emitted)``."""

    schedule: Schedule
    time: int
    reverse: bool
    unroll: int

    def __call__(self, operands: Operands) -> tuple[tuple, tuple]:
        """Returns the final state and what the steps emit, stacked."""
        if any(has_no_tangent_rule(eqn) for eqn in self.schedule.loop_eqns):
            state, emitted, _ = self._primal(operands, keep=False)  # differentiated as JAX does it
        else:
            state, emitted, _ = self._differentiable(keep=False)(operands)
        return state, emitted

    def _differentiable(self, keep: bool):
        @jax.custom_jvp
        def run(operands: Operands):
            return self._primal(operands, keep)

        def rule(primals, tangents):
            # Asking the function that keeps for its values, and not the scan below it, is what
            # makes the second and all further derivatives right.
            (operands,), (moved,) = primals, tangents
            kept: Any
            state, emitted, kept = self._differentiable(keep=True)(operands)
            dstate, (demitted, dkept) = self._tangent(operands, moved, kept, keep)
            out = (state, emitted, kept if keep else ())
            return out, _with_integers(out, (dstate, demitted, dkept))

        run.defjvp(rule, symbolic_zeros=True)
        return run

    def _scan(self, body, carry, xs):
        return jax.lax.scan(
            body, carry, xs, length=self.time, reverse=self.reverse, unroll=self.unroll
        )

    def _step(self, constants, state, slices, product) -> tuple[tuple, tuple]:
        """One step; ``product(number, operand, addends)`` gives the sums of a product."""
        plan, number = self.schedule, 0
        env = dict(zip(plan.constants, constants, strict=True))
        env.update(zip(plan.state_in, state, strict=True))
        env.update(zip(plan.stacked, slices, strict=True))
        for item in plan.loop:
            if isinstance(item, Piece):
                item(env)
            else:
                addends = [None if v is None else env[v] for v in item.addends]
                sums = product(number, env[item.operand], addends)
                env.update(zip(item.outvars, sums, strict=True))
                number += 1
        state = tuple(
            jnp.asarray(v.val, v.aval.dtype) if is_literal(v) else env[v] for v in plan.state_out
        )
        return state, tuple(env[v] for v in plan.emitted)

    def _primal(self, operands: Operands, keep: bool):
        products = self.schedule.products

        def body(state, slices):
            kept = []

            def product(number, operand, addends):
                whole = _products.multiply(products[number], operand, operands.kernels[number])
                parts = _products.cut(products[number], whole)
                kept.append(
                    tuple(
                        part if addend is None else addend + part
                        for part, addend in zip(parts, addends, strict=True)
                    )
                )
                return kept[-1]

            new, emitted = self._step(operands.constants, state, slices, product)
            return new, (emitted, Kept(state, tuple(kept)) if keep else ())

        state, (emitted, kept) = self._scan(body, operands.state, operands.stacked)
        return state, emitted, kept

    def _read(self) -> set[Any]:
        """What the loop reads other than as the addend of a product."""
        plan = self.schedule
        read = {v for item in plan.loop if isinstance(item, Piece) for v in item.invars}
        read |= {*(product.operand for product in plan.products), *plan.emitted}
        return read | {v for v in plan.state_out if not is_literal(v)}

    def _multiplied(self, operands: Operands, kept: Kept) -> list[Any]:
        """What each product was applied to, for all time steps at once."""

        def replay(state, slices, sums):
            found = []

            def product(number, operand, addends):
                found.append(operand)
                return sums[number]

            self._step(operands.constants, state, slices, product)
            return found

        return jax.vmap(replay)(kept.states, operands.stacked, kept.sums)

    def _forced(self, operands: Operands, tangents: Operands, kept: Kept):
        """The ε of every product, part by part, for all time steps at once; None where zero."""
        plan, forced, inputs = self.schedule, [], None
        addend_tangents = dict(zip(plan.stacked, tangents.stacked, strict=True))
        for v, tangent in zip(plan.constants, tangents.constants, strict=True):
            addend_tangents[v] = None if tangent is None else tangent[None]
        for number, product in enumerate(plan.products):
            parts = [None] * len(product.outvars)
            dkernel = tangents.kernels[number]
            if dkernel is not None:
                inputs = inputs or self._multiplied(operands, kept)
                parts = _products.for_all_time(product, inputs[number], dkernel)
            dvs = [addend_tangents.get(v) for v in product.addends]
            forced.append(
                tuple(
                    part
                    if dv is None
                    else jnp.broadcast_to(dv, z.shape) + (0 if part is None else part)
                    for part, dv, z in zip(parts, dvs, kept.sums[number], strict=True)
                )
            )
        return tuple(forced)

    def _tangent(self, operands: Operands, tangents: Operands, kept: Kept, keep: bool):
        """The tangents of what `_primal` returns, None for integers."""
        plan, products = self.schedule, self.schedule.products
        tangents = Operands(*(tuple(map(_nonzero, group)) for group in tangents))
        forced = self._forced(operands, tangents, kept)
        # What only serves as an addend has done its part in ε.
        read = self._read()
        dconstants = tuple(
            t if v in read else None
            for v, t in zip(plan.constants, tangents.constants, strict=True)
        )
        dstacked = tuple(
            t if v in read else None for v, t in zip(plan.stacked, tangents.stacked, strict=True)
        )
        stacked = tuple(
            x if v in read else None for v, x in zip(plan.stacked, operands.stacked, strict=True)
        )
        kernels = [
            _products.transposed(product, kernel)
            for product, kernel in zip(products, operands.kernels, strict=True)
        ]

        def linear(dstate, slices):
            (states, sums), stacked, dslices, dsums = slices

            def step(state, constants, inputs, sums):
                state = _merge(states, state)
                replayed = []

                def product(number, operand, addends):
                    replayed.append(
                        _replay(products[number], sums[number], operand, kernels[number])
                    )
                    return replayed[-1]

                new, emitted = self._step(
                    _merge(operands.constants, constants), state, _merge(stacked, inputs), product
                )
                again = Kept(state, tuple(replayed)) if keep else ()
                return _inexact(new), _inexact((emitted, again))

            primals = (
                _inexact(states),
                _where_given(operands.constants, dconstants),
                _where_given(stacked, dslices),
                _inexact(sums),
            )
            dsums = jax.tree.map(lambda z, d: jnp.zeros_like(z) if d is None else d, sums, dsums)
            return jax.jvp(step, primals, (dstate, dconstants, dslices, dsums))[1]

        dstate = tuple(
            (jnp.zeros_like(a) if t is None else t) if _is_inexact(a) else None
            for a, t in zip(operands.state, tangents.state, strict=True)
        )
        slices = (kept, stacked, dstacked, forced)
        # The replay's own intermediate values are not worth their memory.
        return self._scan(jax.checkpoint(linear, prevent_cse=False), dstate, slices)


def has_no_tangent_rule(eqn: Any) -> bool:
    """Whether JAX cannot take an equation's tangent for us, and then transpose or batch it.

    A function under `jax.custom_vjp` has no tangent. A `cond` under `jax.vmap` turns into a
    selection whose tangent JAX cannot transpose.
    """
    name = eqn.primitive.name
    return (
        name == "cond"
        or name.startswith("custom_vjp")
        or any(has_no_tangent_rule(inner) for jaxpr in nested_jaxprs(eqn) for inner in jaxpr.eqns)
    )


def _replay(product: Product, sums, operand, kernel):
    """The sums that were kept, with the derivative of the product that they hold."""

    @jax.custom_jvp
    def replay(sums, operand, kernel):
        return sums

    @replay.defjvp
    def rule(primals, tangents):
        sums, _, kernel = primals
        dsums, doperand, _ = tangents
        parts = _products.cut(product, _products.linear_multiply(product, doperand, kernel))
        return sums, tuple(d + part for d, part in zip(dsums, parts, strict=True))

    return replay(sums, operand, kernel)


# Trees with holes: None stands where there is no tangent -----------------------------------------


def _is_inexact(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _nonzero(tangent):
    zero = isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    return None if zero or tangent.dtype == jax.dtypes.float0 else tangent


def _inexact(tree):
    return jax.tree.map(lambda leaf: leaf if _is_inexact(leaf) else None, tree)


def _merge(whole, some) -> tuple:
    return tuple(w if s is None else s for w, s in zip(whole, some, strict=True))


def _where_given(whole, tangents) -> tuple:
    return tuple(None if t is None else w for w, t in zip(whole, tangents, strict=True))


def _with_integers(primals, tangents):
    """Fills the holes of a tangent with the zeros that JAX wants for integers."""
    return jax.tree.map(
        lambda p, t: np.zeros(p.shape, jax.dtypes.float0) if t is None else t, primals, tangents
    )
