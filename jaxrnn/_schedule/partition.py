"""The schedule of a cell: which equations of its step run inside the loop over time.

Equations are sorted by what they depend on:

- *before*: parameters only. Computed once, before the loop.
- *inputs*: inputs, not the state. Computed for all time steps at once, before the loop.
- *loop*: the state. Computed step by step, as pointwise pieces between *products* (matrix products
  and convolutions whose kernel depends on parameters only; an outer product counts as pointwise).
- *after*: the state, where the result is not fed back (an output layer). Computed for all time
  steps at once, after the loop.

An equation is hoisted only if that pays: products, random draws and other expensive operations
always are; a cheap equation is only where it does not add to the bytes that the loop reads at each
step (an outer product of two vectors stays in the loop, its factors are hoisted).
"""

import dataclasses
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._schedule.products import Product, find_products, read_by
from jaxrnn._schedule.trace import (
    INPUTS,
    PARAMS,
    STATE,
    Step,
    canonical_step,
    evaluate,
    is_literal,
    separates_gates,
    var_bytes,
)
from jaxrnn._typing import PyTree

# Not worth hoisting on their own: recomputed in the loop, fused with their neighbors.
CHEAP = frozenset(
    "abs add and broadcast_in_dim ceil clamp concatenate convert_element_type copy cos div eq exp "
    "exp2 expand_dims expm1 floor ge gt imag integer_pow iota is_finite le log log1p logistic lt "
    "max min mul ne neg not or pad pow real rem reshape round rsqrt select_n sign sin slice split "
    "sqrt square squeeze stack stop_gradient sub tan tanh tile transpose unstack xor".split()
)
# A predicate that varies over time would execute both branches at every step.
NEVER_OVER_TIME = frozenset(["cond", "while"])


@dataclasses.dataclass(frozen=True)
class Piece:
    """Equations that are evaluated together: ``reads -> outvars``."""

    jaxpr: jex.Jaxpr
    eqns: tuple[jex.JaxprEqn, ...]
    reads: tuple[Any, ...]
    outvars: tuple[Any, ...]

    def __call__(self, env: dict[Any, Any]) -> None:
        """Reads the inputs from an environment and adds the outputs to it."""
        args = [env[v] for v in self.reads]
        results = evaluate(self.jaxpr, self.eqns, self.reads, self.outvars, args)
        env.update(zip(self.outvars, results, strict=True))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The partition of a step; variables are those of the step's jaxpr."""

    step: Step
    before: Piece
    inputs: Piece
    loop: tuple[Piece | Product, ...]
    after: Piece
    constants: tuple[Any, ...]  # loop-invariant values that the loop reads, except kernels
    stacked: tuple[Any, ...]  # read by the loop, one slice a step
    state_in: tuple[Any, ...]
    state_out: tuple[Any, ...]
    emitted: tuple[Any, ...]  # written by the loop, one slice a step
    outputs: tuple[Any, ...]

    @property
    def products(self) -> tuple[Product, ...]:
        """The products in the loop."""
        return tuple(item for item in self.loop if isinstance(item, Product))

    @property
    def loop_eqns(self) -> tuple[jex.JaxprEqn, ...]:
        """The equations in the loop, without the splits and sums of products."""
        parts = [item.eqns if isinstance(item, Piece) else (item.eqn,) for item in self.loop]
        return tuple(eqn for part in parts for eqn in part)

    @property
    def pointwise_reads(self) -> set[Any]:
        """The variables that the pieces of the loop read."""
        return {v for item in self.loop if isinstance(item, Piece) for v in item.reads}


def schedule_cell(cell: Cell, params: PyTree, state: PyTree, xs: PyTree, platform: str) -> Schedule:
    """The schedule of a cell for a kind of platform, from inputs ``[time, *batch, ...]``."""
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    step = canonical_step(cell.step, params, state, x, separate=separates_gates(platform))
    return schedule(step)


def schedule(step: Step) -> Schedule:
    """Partitions the equations of a step."""
    jaxpr = step.jaxpr
    kind: dict[Any, int] = dict(zip(jaxpr.invars, step.kinds, strict=True))
    eqns = live(jaxpr.eqns, jaxpr.outvars)
    place: dict[int, int] = {}
    for number, eqn in enumerate(eqns):
        place[number] = max((kind[v] for v in eqn.invars if not is_literal(v)), default=PARAMS)
        if eqn.effects or (place[number] == INPUTS and eqn.primitive.name in NEVER_OVER_TIME):
            place[number] = STATE
        kind.update((v, place[number]) for v in eqn.outvars)
    _move_cheap_into_loop(eqns, place, jaxpr)

    before = [eqn for n, eqn in enumerate(eqns) if place[n] == PARAMS]
    inputs = [eqn for n, eqn in enumerate(eqns) if place[n] == INPUTS]
    rest = [eqn for n, eqn in enumerate(eqns) if place[n] == STATE]
    state_in = tuple(step.invars(STATE))
    state_out = tuple(jaxpr.outvars[: len(state_in)])
    outputs = tuple(jaxpr.outvars[len(state_in) :])
    loop, after = _split_off_after(rest, state_out)
    read_after = {v for v in [*read_by(after), *outputs] if not is_literal(v)}
    items = _separate_products(jaxpr, loop, kind, [*state_out, *read_after])

    in_loop = {*state_in, *(v for eqn in loop for v in eqn.outvars)}
    wanted = [*read_by(after), *(v for v in outputs if not is_literal(v))]
    made = {v for item in items for v in item.outvars}
    read = dict.fromkeys(v for item in items for v in item.reads if v not in made)
    read.update((v, None) for v in state_out if not is_literal(v))
    outside = [v for v in read if v not in in_loop]
    kernels = {item.kernel for item in items if isinstance(item, Product)}
    needed = {*outside, *kernels, *read_after}
    piece_inputs = _make_piece(jaxpr, inputs, needed)
    return Schedule(
        step=step,
        before=_make_piece(jaxpr, before, {*needed, *piece_inputs.reads}),
        inputs=piece_inputs,
        loop=tuple(items),
        after=_make_piece(jaxpr, after, read_after),
        constants=tuple(v for v in outside if kind[v] == PARAMS),
        stacked=tuple(v for v in outside if kind[v] == INPUTS),
        state_in=state_in,
        state_out=state_out,
        emitted=tuple(dict.fromkeys(v for v in wanted if v in in_loop)),
        outputs=outputs,
    )


def live(eqns, outvars) -> list[jex.JaxprEqn]:
    """Removes the equations that no output and no effect needs."""
    needed, kept = set(v for v in outvars if not is_literal(v)), []
    for eqn in reversed(eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed.update(v for v in eqn.invars if not is_literal(v))
    return kept[::-1]


def _make_piece(jaxpr: jex.Jaxpr, eqns, wanted: set[Any]) -> Piece:
    """The equations as one piece that returns the wanted results among its own."""
    wanted_eqns = live(eqns, wanted)
    made = {v for eqn in wanted_eqns for v in eqn.outvars}
    reads = tuple(dict.fromkeys(v for v in read_by(wanted_eqns) if v not in made))
    outvars = tuple(v for eqn in wanted_eqns for v in eqn.outvars if v in wanted)
    return Piece(jaxpr, tuple(wanted_eqns), reads, outvars)


def _separate_products(jaxpr, eqns, kind: dict[Any, int], outside) -> list[Piece | Product]:
    """The equations of the loop as pieces and products; ``outside`` are the results read later."""
    wanted = {v for v in outside if not is_literal(v)}
    products, absorbed = find_products(jaxpr, eqns, kind, wanted)
    items: list[Any] = []
    group: list[jex.JaxprEqn] | None = None
    for eqn in eqns:
        if id(eqn) in products:
            items.append(products[id(eqn)])
            group = None
        elif id(eqn) not in absorbed:
            if group is None:
                items.append(group := [])
            group.append(eqn)
    for number in reversed(range(len(items))):
        if not isinstance(items[number], Product):
            items[number] = _make_piece(jaxpr, items[number], wanted)
        wanted.update(items[number].reads)
    return items


def _move_cheap_into_loop(eqns, place, jaxpr) -> None:
    """Moves cheap hoisted equations into the loop where that reduces the bytes read per step."""
    changed = True
    while changed:
        changed = False
        read = set(read_by(eqn for n, eqn in enumerate(eqns) if place[n] == STATE))
        outputs = {v for v in jaxpr.outvars if not is_literal(v)}
        read |= outputs
        hoisted = read_by(eqn for n, eqn in enumerate(eqns) if place[n] != STATE)
        shared = outputs.union(hoisted)  # read outside the loop too, so nothing is saved
        for number in reversed(range(len(eqns))):
            eqn = eqns[number]
            if place[number] == STATE or eqn.primitive.name not in CHEAP:
                continue
            if shared.intersection(eqn.outvars):
                continue
            kept = sum(var_bytes(v) for v in eqn.outvars if v in read)
            moved = sum(var_bytes(v) for v in set(read_by([eqn])) if v not in read)
            if kept > moved and not (place[number] == PARAMS and _broadcasts_floats(eqn)):
                place[number] = STATE
                changed = True
                read.update(read_by([eqn]))


def _broadcasts_floats(eqn) -> bool:
    """Whether an equation broadcasts floating-point numbers over the batch.

    Its transpose is a sum over the batch. For the gradient of a parameter that sum is taken once,
    after the loop, and the loop accumulates an array as large as a state.
    """
    broadcasts = eqn.primitive.name == "broadcast_in_dim" and not is_literal(eqn.invars[0])
    return broadcasts and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact)


def _split_off_after(eqns, state_out) -> tuple[list, list]:
    """Splits off the equations that are not fed back, if one of them is worth hoisting."""
    ids = {id(eqn) for eqn in live(eqns, state_out)}
    after = [eqn for eqn in eqns if id(eqn) not in ids and not eqn.effects]
    if not any(eqn.primitive.name not in CHEAP for eqn in after):
        return list(eqns), []
    if any(eqn.primitive.name in NEVER_OVER_TIME for eqn in after):
        return list(eqns), []
    made = {v for eqn in after for v in eqn.outvars}
    looped = {v for eqn in eqns if id(eqn) in ids for v in eqn.outvars}
    for eqn in list(after):  # leading cheap equations stay in the loop if that emits fewer bytes
        reads = set(read_by([eqn]))
        sources = looped & reads
        if eqn.primitive.name not in CHEAP or reads & made or not sources:
            continue
        others = set(read_by(other for other in after if other is not eqn))
        saved = sum(var_bytes(v) for v in sources - others)
        if sum(var_bytes(v) for v in eqn.outvars) <= saved:
            after.remove(eqn)
            made -= set(eqn.outvars)
            looped |= set(eqn.outvars)
    ids = {id(eqn) for eqn in after}
    return [eqn for eqn in eqns if id(eqn) not in ids], after
