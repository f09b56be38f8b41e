"""One step of the loop and one step of its transpose, on tiles.

Both are functions ``step(multiply, constants, carry, slices) -> (carry, emitted)`` of tiles, the
body of a scan; ``multiply(number, parts)`` is the product with the number-th resident kernel, which
only the machine that runs the scan can compute, since it needs all units.

    forward:   z = a W + v,   s' = f(s, z, ...)
    backward:  z̄ from the pullback of f at the sums z that were kept,   ā = z̄ Wᵀ

The pullbacks of the pieces run in reverse order, with a product between them wherever the step has
one. Nothing is contracted over rows or time: weight gradients are formed after the loop.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn._schedule.interpret import run_loop
from jaxrnn._schedule.partition import Piece, Schedule
from jaxrnn._schedule.trace import is_literal
from jaxrnn.engines._fused.tiles import Pullback, call_on_tiles, on_tiles, pullback


class Scan(NamedTuple):
    """A scan over tiles: its step, and the variables that it reads and writes."""

    name: str
    step: Callable
    constants: tuple[Any, ...]
    carry: tuple[Any, ...]
    stacked: tuple[Any, ...]
    emitted: tuple[Any, ...]
    dtypes: tuple[Any, ...]  # of what is emitted


def forward_scan(plan: Schedule, keep: bool) -> Scan:
    """The loop of a schedule; with ``keep`` it also emits its states and sums."""
    kept = (*plan.state_in, *sums_of(plan)) if keep else ()

    def step(multiply, constants, carry, slices):
        tile = carry[0].shape
        env = _read(plan.constants, constants) | _read(plan.stacked, slices)
        env.update(zip(plan.state_in, carry, strict=True))

        def product(number, operand, addends):
            outvars = plan.products[number].outvars
            parts = multiply(number, [operand])
            parts = [
                part if addend is None else part + addend.astype(part.dtype)
                for part, addend in zip(parts, addends, strict=True)
            ]
            return [part.astype(v.aval.dtype) for v, part in zip(outvars, parts, strict=True)]

        run_loop(plan, env, product, lambda p, env: on_tiles(p.eqns, env, tile))
        new = [_value(v, env, tile) for v in plan.state_out]
        return new, [env[v] for v in (*plan.emitted, *kept)]

    emitted = (*plan.emitted, *kept)
    dtypes = tuple(v.aval.dtype for v in emitted)
    return Scan("forward", step, plan.constants, plan.state_in, plan.stacked, emitted, dtypes)


def backward_scan(plan: Schedule, pullbacks: dict[int, Pullback]) -> Scan:
    """The transpose of the loop, in which time runs in the other direction.

    It reads the constants and slices that the pieces read (`pointwise`), the states and sums that
    were kept, and the cotangents of what the loop emits. The carry holds the cotangents of the
    state, then those of the constants, summed over time. It emits the cotangents of the sums, in
    the kernels' dtype, then those of the slices.
    """
    constants, stacked = pointwise(plan)
    slopes = [v for v in constants if is_inexact(v.aval)]
    slice_slopes = [v for v in stacked if is_inexact(v.aval)]
    sums = sums_of(plan)
    kept = (*stacked, *plan.state_in, *sums)

    def step(multiply, constant_tiles, carry, slices):
        tile = carry[0].shape
        env: dict[Any, Any] = dict.fromkeys([*plan.constants, *plan.stacked])
        env |= _read(constants, constant_tiles) | _read(kept, slices[: len(kept)])
        residuals = {}

        def replay(piece, env):
            pull = pullbacks[id(piece)]
            results = call_on_tiles(pull.forward, [env[v] for v in piece.reads], tile)
            env.update(zip(piece.outvars, results, strict=False))
            residuals[id(piece)] = results[len(piece.outvars) :]

        def replayed(number, operand, addends):
            return [env[v] for v in plan.products[number].outvars]

        run_loop(plan, env, replayed, replay)
        cotangents: dict[Any, Any] = {}

        def add(variables, values):
            for v, value in zip(variables, values, strict=True):
                if not is_literal(v):
                    cotangents[v] = cotangents[v] + value if v in cotangents else value

        def take(variables):
            zeros = (jnp.zeros(tile, v.aval.dtype) for v in variables)
            return [cotangents.pop(v, zero) for v, zero in zip(variables, zeros, strict=True)]

        states = len(plan.state_in)
        add(plan.state_out, carry[:states])
        add(plan.emitted, slices[len(kept) :])
        dsums, number = {}, len(plan.products)
        for item in reversed(plan.loop):
            if isinstance(item, Piece):
                pull = pullbacks[id(item)]
                args = [*residuals[id(item)], *take(pull.outvars)]
                add(pull.reads, call_on_tiles(pull.backward, args, tile))
            else:
                number -= 1
                parts = [part.astype(item.kernel.aval.dtype) for part in take(item.outvars)]
                dsums.update(zip(item.outvars, parts, strict=True))
                (doperand,) = multiply(number, parts)
                add([item.operand], [doperand.astype(item.operand.aval.dtype)])
        dstate = take(plan.state_in)
        totals = [a + b for a, b in zip(carry[states:], take(slopes), strict=True)]
        return [*dstate, *totals], [*(dsums[v] for v in sums), *take(slice_slopes)]

    return Scan(
        "backward",
        step,
        constants,
        carry=(*plan.state_in, *slopes),
        stacked=(*kept, *plan.emitted),
        emitted=(*sums, *slice_slopes),
        dtypes=(
            *(product.kernel.aval.dtype for product in plan.products for _ in product.outvars),
            *(v.aval.dtype for v in slice_slopes),
        ),
    )


def pullbacks_of(plan: Schedule) -> dict[int, Pullback]:
    """The pullback of each piece of the loop, by its id."""
    return {id(item): pullback(item) for item in plan.loop if isinstance(item, Piece)}


def sums_of(plan: Schedule) -> tuple[Any, ...]:
    """The sums of all products."""
    return tuple(v for product in plan.products for v in product.outvars)


def pointwise(plan: Schedule) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The constants and the slices that the loop reads other than as an addend of a product."""
    read = plan.pointwise_reads | {product.operand for product in plan.products}
    read |= {*plan.emitted, *(v for v in plan.state_out if not is_literal(v))}
    constants = tuple(v for v in plan.constants if v in read)
    return constants, tuple(v for v in plan.stacked if v in read)


def _read(variables: Sequence[Any], tiles: Sequence[Any]) -> dict[Any, Any]:
    """Tiles by variable; a truth value is stored as a number."""
    return {
        v: tile != 0 if v.aval.dtype == bool else tile
        for v, tile in zip(variables, tiles, strict=True)
    }


def _value(v: Any, env: dict[Any, Any], tile: tuple[int, int]) -> Any:
    return jnp.full(tile, v.val, v.aval.dtype) if is_literal(v) else env[v]
