"""The schedule of a cell: which equations of its step run once, which for all time, which in turn.

Equations are sorted by what they depend on:

- *before*: parameters only. Once, before the loop.
- *inputs*: inputs, not the state. For all time steps at once, before the loop.
- *loop*: the state. In the loop, as pointwise pieces between *products* (matrix products and
  convolutions whose kernel depends on parameters only; an outer product counts as pointwise).
- *after*: the state, where nothing is fed back (a read-out). For all time steps at once.

What is hoisted over time must pay: products, random draws and the like are, and a cheap equation is
only where it does not add to the bytes that the loop reads at each step (an outer product of two
vectors stays in the loop, its factors are hoisted).
"""

import dataclasses
from typing import Any

import jax.extend.core as jex
import jax.numpy as jnp

from jaxrnn._schedule.pieces import Piece, Product, live, make_piece, read_by, take_apart
from jaxrnn._schedule.trace import INPUTS, PARAMS, STATE, Step, is_literal, nbytes

# Worth nothing to hoist for its own sake: done again in the loop, fused with its neighbours.
CHEAP = frozenset(
    "abs add and broadcast_in_dim ceil clamp concatenate convert_element_type copy cos div eq exp "
    "exp2 expand_dims expm1 floor ge gt imag integer_pow iota is_finite le log log1p logistic lt "
    "max min mul ne neg not or pad pow real rem reshape round rsqrt select_n sign sin slice split "
    "sqrt square squeeze stack stop_gradient sub tan tanh tile transpose unstack xor".split()
)
# A predicate that varies over time would turn both branches into work at every step.
NEVER_OVER_TIME = frozenset(["cond", "while"])


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What runs where; variables are those of the jaxpr of the step."""

    jaxpr: jex.Jaxpr
    before: Piece
    inputs: Piece
    loop: tuple[Piece | Product, ...]
    after: Piece
    constants: tuple[Any, ...]  # read by the loop, from before it; kernels are apart
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
        """The equations left in the loop; of a product, the product itself."""
        parts = [item.eqns if isinstance(item, Piece) else (item.eqn,) for item in self.loop]
        return tuple(eqn for part in parts for eqn in part)


def schedule(step: Step, state_leaves: int) -> Schedule:
    """Sorts the equations of a step."""
    jaxpr = step.jaxpr
    kind: dict[Any, int] = dict(zip(jaxpr.invars, step.kinds, strict=True))
    eqns = live(jaxpr.eqns, jaxpr.outvars)
    place: dict[int, int] = {}
    for number, eqn in enumerate(eqns):
        place[number] = max((kind[v] for v in eqn.invars if not is_literal(v)), default=PARAMS)
        if eqn.effects or (place[number] == INPUTS and eqn.primitive.name in NEVER_OVER_TIME):
            place[number] = STATE
        kind.update((v, place[number]) for v in eqn.outvars)
    _keep_what_does_not_pay(eqns, place, kind, jaxpr)

    before = [eqn for n, eqn in enumerate(eqns) if place[n] == PARAMS]
    inputs = [eqn for n, eqn in enumerate(eqns) if place[n] == INPUTS]
    rest = [eqn for n, eqn in enumerate(eqns) if place[n] == STATE]
    state_out = tuple(jaxpr.outvars[:state_leaves])
    outputs = tuple(jaxpr.outvars[state_leaves:])
    loop, after = _cut_after(rest, state_out)
    items = take_apart(jaxpr, loop, kind, [*state_out, *outputs, *read_by(after)])

    produced = {v for eqn in loop for v in eqn.outvars}
    in_loop = {v for v in jaxpr.invars if kind[v] == STATE} | produced
    wanted = [*read_by(after), *(v for v in outputs if not is_literal(v))]
    emitted = tuple(dict.fromkeys(v for v in wanted if v in in_loop))
    made = {v for item in items for v in item.outvars}
    read = dict.fromkeys(v for item in items for v in item.reads if v not in made)
    read.update((v, None) for v in state_out if not is_literal(v))
    outside = [v for v in read if v not in in_loop]
    kernels = {item.kernel for item in items if isinstance(item, Product)}
    late = {v for v in [*read_by(after), *outputs] if not is_literal(v)}
    needed_outside = {*outside, *kernels, *late}
    piece_inputs = make_piece(jaxpr, inputs, needed_outside)
    return Schedule(
        jaxpr=jaxpr,
        before=make_piece(jaxpr, before, {*needed_outside, *piece_inputs.invars}),
        inputs=piece_inputs,
        loop=tuple(items),
        after=make_piece(jaxpr, after, late),
        constants=tuple(v for v in outside if kind[v] == PARAMS),
        stacked=tuple(v for v in outside if kind[v] == INPUTS),
        state_in=tuple(v for v, k in zip(jaxpr.invars, step.kinds, strict=True) if k == STATE),
        state_out=state_out,
        emitted=emitted,
        outputs=outputs,
    )


def _keep_what_does_not_pay(eqns, place, kind, jaxpr) -> None:
    """Moves cheap hoisted equations into the loop where that saves bytes a step."""
    changed = True
    while changed:
        changed = False
        read = set(read_by(eqn for n, eqn in enumerate(eqns) if place[n] == STATE))
        outputs = {v for v in jaxpr.outvars if not is_literal(v)}
        read |= outputs
        hoisted = read_by(eqn for n, eqn in enumerate(eqns) if place[n] != STATE)
        late = outputs.union(hoisted)  # read by others too, so there is nothing to save
        for number in reversed(range(len(eqns))):
            eqn = eqns[number]
            if place[number] == STATE or eqn.primitive.name not in CHEAP:
                continue
            if late.intersection(eqn.outvars):
                continue
            kept = sum(nbytes(v) for v in eqn.outvars if v in read)
            moved = sum(nbytes(v) for v in set(read_by([eqn])) if v not in read)
            if kept > moved and not (place[number] == PARAMS and _spreads(eqn)):
                place[number] = STATE
                changed = True
                read.update(read_by([eqn]))


def _spreads(eqn) -> bool:
    """Whether this spreads floating-point numbers over the batch.

    The transpose of it is a sum over the batch: of a parameter's gradient that is done once, after
    the loop, and only what is as large as a state is added up in it.
    """
    spread = eqn.primitive.name == "broadcast_in_dim" and not is_literal(eqn.invars[0])
    return spread and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact)


def _cut_after(eqns, state_out) -> tuple[list, list]:
    """Splits off what is not fed back, if it holds a product that is worth hoisting."""
    ids = {id(eqn) for eqn in live(eqns, state_out)}
    after = [eqn for eqn in eqns if id(eqn) not in ids and not eqn.effects]
    if not any(eqn.primitive.name not in CHEAP for eqn in after):
        return list(eqns), []
    if any(eqn.primitive.name in NEVER_OVER_TIME for eqn in after):
        return list(eqns), []
    made = {v for eqn in after for v in eqn.outvars}
    looped = {v for eqn in eqns if id(eqn) in ids for v in eqn.outvars}
    for eqn in list(after):  # cheap equations at its head go back where fewer bytes then leave
        reads = set(read_by([eqn]))
        sources = looped & reads
        if eqn.primitive.name not in CHEAP or reads & made or not sources:
            continue
        others = set(read_by(other for other in after if other is not eqn))
        saved = sum(nbytes(v) for v in sources - others)
        if sum(nbytes(v) for v in eqn.outvars) <= saved:
            after.remove(eqn)
            made -= set(eqn.outvars)
            looped |= set(eqn.outvars)
    ids = {id(eqn) for eqn in after}
    return [eqn for eqn in eqns if id(eqn) not in ids], after
