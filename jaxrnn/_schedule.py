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
import math
from typing import Any

import jax.extend.core as jex
import jax.numpy as jnp

from jaxrnn._canonical import INPUTS, PARAMS, STATE, Step, evaluate, is_literal, nbytes

# Worth nothing to hoist for its own sake: done again in the loop, fused with its neighbours.
CHEAP = frozenset(
    "abs add and broadcast_in_dim ceil clamp concatenate convert_element_type copy cos div eq exp "
    "exp2 expand_dims expm1 floor ge gt imag integer_pow iota is_finite le log log1p logistic lt "
    "max min mul ne neg not or pad pow real rem reshape round rsqrt select_n sign sin slice split "
    "sqrt square squeeze stack stop_gradient sub tan tanh tile transpose unstack xor".split()
)
PRODUCTS = frozenset(["dot_general", "conv_general_dilated"])
# A predicate that varies over time would turn both branches into work at every step.
NEVER_OVER_TIME = frozenset(["cond", "while"])


@dataclasses.dataclass(frozen=True)
class Piece:
    """Equations that are evaluated together: ``invars -> outvars``."""

    jaxpr: jex.Jaxpr
    eqns: tuple[jex.JaxprEqn, ...]
    invars: tuple[Any, ...]
    outvars: tuple[Any, ...]

    def __call__(self, env: dict[Any, Any]) -> None:
        """Reads the piece's inputs from an environment, and writes its outputs there."""
        args = [env[v] for v in self.invars]
        env.update(
            zip(
                self.outvars,
                evaluate(self.jaxpr, self.eqns, self.invars, self.outvars, args),
                strict=True,
            )
        )


@dataclasses.dataclass(frozen=True)
class Product:
    """A product in the loop, ``z = split(operand @ kernel) + addends``, part by part.

    An addend is a value from before the loop (or None). The sum, not the product, is what the
    backward pass needs and what is kept.
    """

    jaxpr: jex.Jaxpr
    eqn: Any  # a jex.JaxprEqn, whose type does not tell the shapes of its operands
    operand: Any
    kernel: Any
    split: jex.JaxprEqn | None
    addends: tuple[Any, ...]
    outvars: tuple[Any, ...]


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
    eqns = _live(jaxpr.eqns, jaxpr.outvars)
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
    items = _find_products(jaxpr, loop, kind, [*state_out, *outputs, *_reads(after)])

    produced = {v for eqn in loop for v in eqn.outvars}
    in_loop = {v for v in jaxpr.invars if kind[v] == STATE} | produced
    wanted = [*_reads(after), *(v for v in outputs if not is_literal(v))]
    emitted = tuple(dict.fromkeys(v for v in wanted if v in in_loop))
    made = {v for item in items for v in item.outvars}
    read = dict.fromkeys(v for v in _item_reads(items) if v not in made)
    read.update((v, None) for v in state_out if not is_literal(v))
    outside = [v for v in read if v not in in_loop]
    kernels = {item.kernel for item in items if isinstance(item, Product)}
    late = {v for v in [*_reads(after), *outputs] if not is_literal(v)}
    needed_outside = {*outside, *kernels, *late}
    piece_inputs = _piece(jaxpr, inputs, needed_outside)
    return Schedule(
        jaxpr=jaxpr,
        before=_piece(jaxpr, before, {*needed_outside, *piece_inputs.invars}),
        inputs=piece_inputs,
        loop=tuple(items),
        after=_piece(jaxpr, after, late),
        constants=tuple(v for v in outside if kind[v] == PARAMS),
        stacked=tuple(v for v in outside if kind[v] == INPUTS),
        state_in=tuple(v for v, k in zip(jaxpr.invars, step.kinds, strict=True) if k == STATE),
        state_out=state_out,
        emitted=emitted,
        outputs=outputs,
    )


def _live(eqns, outvars) -> list[jex.JaxprEqn]:
    """Drops the equations that no output and no effect needs."""
    needed, kept = set(v for v in outvars if not is_literal(v)), []
    for eqn in reversed(eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed.update(v for v in eqn.invars if not is_literal(v))
    return kept[::-1]


def _reads(eqns) -> list[Any]:
    return [v for eqn in eqns for v in eqn.invars if not is_literal(v)]


def _item_reads(items) -> list[Any]:
    reads = []
    for item in items:
        if isinstance(item, Piece):
            reads += item.invars
        else:
            reads += [item.operand, *(v for v in item.addends if v is not None)]
    return reads


def _piece(jaxpr: jex.Jaxpr, eqns, wanted: set[Any]) -> Piece:
    """The equations as one piece, with those of their results that somebody wants."""
    wanted_eqns = _live(eqns, wanted)
    made = {v for eqn in wanted_eqns for v in eqn.outvars}
    invars = tuple(dict.fromkeys(v for v in _reads(wanted_eqns) if v not in made))
    outvars = tuple(v for eqn in wanted_eqns for v in eqn.outvars if v in wanted)
    return Piece(jaxpr, tuple(wanted_eqns), invars, outvars)


def _keep_what_does_not_pay(eqns, place, kind, jaxpr) -> None:
    """Moves cheap hoisted equations into the loop where that saves bytes a step."""
    changed = True
    while changed:
        changed = False
        read = set(_reads(eqn for n, eqn in enumerate(eqns) if place[n] == STATE))
        outputs = {v for v in jaxpr.outvars if not is_literal(v)}
        read |= outputs
        for number in reversed(range(len(eqns))):
            eqn = eqns[number]
            if place[number] == STATE or eqn.primitive.name not in CHEAP:
                continue
            if outputs.intersection(eqn.outvars):
                continue
            kept = sum(nbytes(v) for v in eqn.outvars if v in read)
            moved = sum(nbytes(v) for v in set(_reads([eqn])) if v not in read)
            if kept > moved and not (place[number] == PARAMS and _spreads(eqn)):
                place[number] = STATE
                changed = True
                read.update(_reads([eqn]))


def _spreads(eqn) -> bool:
    """Whether this spreads floating-point numbers over the batch.

    The transpose of it is a sum over the batch: of a parameter's gradient that is done once, after
    the loop, and only what is as large as a state is added up in it.
    """
    spread = eqn.primitive.name == "broadcast_in_dim" and not is_literal(eqn.invars[0])
    return spread and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact)


def _cut_after(eqns, state_out) -> tuple[list, list]:
    """Splits off what is not fed back, if it holds a product that is worth hoisting."""
    ids = {id(eqn) for eqn in _live(eqns, state_out)}
    after = [eqn for eqn in eqns if id(eqn) not in ids and not eqn.effects]
    if not any(eqn.primitive.name not in CHEAP for eqn in after):
        return list(eqns), []
    if any(eqn.primitive.name in NEVER_OVER_TIME for eqn in after):
        return list(eqns), []
    made = {v for eqn in after for v in eqn.outvars}
    looped = {v for eqn in eqns if id(eqn) in ids for v in eqn.outvars}
    for eqn in list(after):  # cheap equations at its head go back where fewer bytes then leave
        reads = set(_reads([eqn]))
        sources = looped & reads
        if eqn.primitive.name not in CHEAP or reads & made or not sources:
            continue
        others = set(_reads(other for other in after if other is not eqn))
        saved = sum(nbytes(v) for v in sources - others)
        if sum(nbytes(v) for v in eqn.outvars) <= saved:
            after.remove(eqn)
            made -= set(eqn.outvars)
            looped |= set(eqn.outvars)
    ids = {id(eqn) for eqn in after}
    return [eqn for eqn in eqns if id(eqn) not in ids], after


def _is_outer(eqn) -> bool:
    """Whether a product sums over one number only, and gives more than it is made of.

    To keep such a result for the gradient, and to lay up the cotangent of each step for one
    contraction after the loop, costs more than to do it again and to add up a gradient as small as
    the kernel. Not in 16 bits: a sum over time must not be rounded at every step.
    """
    if eqn.primitive.name != "dot_general":
        return False
    (contracted, _), _ = eqn.params["dimension_numbers"]
    operands = [v.aval for v in eqn.invars]
    if not contracted or math.prod(operands[0].shape[axis] for axis in contracted) != 1:
        return False
    if not all(x.dtype.itemsize >= 4 for x in operands):
        return False
    return nbytes(eqn.outvars[0]) > sum(map(nbytes, eqn.invars))


def _find_products(jaxpr, eqns, kind, outside) -> list[Piece | Product]:
    """Finds the products, with the splits and sums that belong to them; the rest are pieces."""
    users: dict[Any, list[Any]] = {}
    for eqn in eqns:
        for v in dict.fromkeys(_reads([eqn])):
            users.setdefault(v, []).append(eqn)
    in_loop = {v for eqn in eqns for v in eqn.outvars}
    outside = {v for v in outside if not is_literal(v)}

    def only_user(var):
        return users[var][0] if len(users.get(var, ())) == 1 and var not in outside else None

    products: dict[int, Product] = {}
    absorbed: set[int] = set()
    for eqn in eqns:
        if eqn.primitive.name not in PRODUCTS or any(is_literal(v) for v in eqn.invars):
            continue
        if _is_outer(eqn):
            continue
        lhs, rhs = eqn.invars[:2]
        if kind[rhs] == PARAMS and kind[lhs] == STATE and rhs not in in_loop:
            operand, kernel = lhs, rhs
        elif kind[lhs] == PARAMS and kind[rhs] == STATE and lhs not in in_loop:
            operand, kernel = rhs, lhs
        else:
            continue
        out = eqn.outvars[0]
        user = only_user(out)
        split = user if user is not None and user.primitive.name == "split" else None
        parts = list(split.outvars) if split is not None else [out]
        addends = []
        for place, part in enumerate(parts):
            total, addend = only_user(part), None
            if total is not None and total.primitive.name == "add":
                other = [v for v in total.invars if v is not part]
                if (
                    len(other) == 1
                    and not is_literal(other[0])
                    and kind[other[0]] != STATE
                    and other[0] not in in_loop
                    and total.outvars[0].aval.shape == part.aval.shape
                ):
                    addend, parts[place] = other[0], total.outvars[0]
                    absorbed.add(id(total))
            addends.append(addend)
        if split is not None:
            absorbed.add(id(split))
        products[id(eqn)] = Product(
            jaxpr, eqn, operand, kernel, split, tuple(addends), tuple(parts)
        )

    items: list[Any] = []
    group: list[jex.JaxprEqn] = []
    rest = [eqn for eqn in eqns if id(eqn) not in absorbed]
    for eqn in rest:
        if id(eqn) in products:
            if group:
                items.append(group)
            items.append(products[id(eqn)])
            group = []
        else:
            group.append(eqn)
    if group:
        items.append(group)

    pieces: list[Piece | Product] = []
    for number, item in enumerate(items):
        if isinstance(item, Product):
            pieces.append(item)
            continue
        wanted = set(outside)
        for later in items[number + 1 :]:
            if isinstance(later, Product):
                wanted.add(later.operand)
            else:
                wanted.update(_reads(later))
        pieces.append(_piece(jaxpr, item, wanted))
    return pieces
