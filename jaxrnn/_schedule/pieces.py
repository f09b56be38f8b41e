"""What the loop is made of: pieces of pointwise equations, and the products between them.

A product (a matrix product or a convolution) whose kernel depends on parameters only is set apart
from its neighbours, because the gradient of its kernel is one contraction over all time steps. What
it was split into and what is added to each part belong to it.
"""

import dataclasses
import math
from typing import Any

import jax.extend.core as jex

from jaxrnn._schedule.trace import PARAMS, STATE, evaluate, is_literal, nbytes

PRODUCTS = frozenset(["dot_general", "conv_general_dilated"])


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

    @property
    def reads(self) -> tuple[Any, ...]:
        """The variables that are read, but for kernels."""
        return self.invars


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

    @property
    def reads(self) -> tuple[Any, ...]:
        """The variables that are read, but for kernels."""
        return (self.operand, *(v for v in self.addends if v is not None))


def live(eqns, outvars) -> list[jex.JaxprEqn]:
    """Drops the equations that no output and no effect needs."""
    needed, kept = set(v for v in outvars if not is_literal(v)), []
    for eqn in reversed(eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed.update(v for v in eqn.invars if not is_literal(v))
    return kept[::-1]


def read_by(eqns) -> list[Any]:
    """The variables that equations read."""
    return [v for eqn in eqns for v in eqn.invars if not is_literal(v)]


def make_piece(jaxpr: jex.Jaxpr, eqns, wanted: set[Any]) -> Piece:
    """The equations as one piece, with those of their results that somebody wants."""
    wanted_eqns = live(eqns, wanted)
    made = {v for eqn in wanted_eqns for v in eqn.outvars}
    invars = tuple(dict.fromkeys(v for v in read_by(wanted_eqns) if v not in made))
    outvars = tuple(v for eqn in wanted_eqns for v in eqn.outvars if v in wanted)
    return Piece(jaxpr, tuple(wanted_eqns), invars, outvars)


def take_apart(jaxpr: jex.Jaxpr, eqns, kind: dict[Any, int], outside) -> list[Piece | Product]:
    """The equations of the loop as pieces and products; ``outside`` is what else reads results."""
    wanted = {v for v in outside if not is_literal(v)}
    products, absorbed = _find_products(jaxpr, eqns, kind, wanted)
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
            items[number] = make_piece(jaxpr, items[number], wanted)
        wanted.update(items[number].reads)
    return items


def _find_products(jaxpr, eqns, kind, outside) -> tuple[dict[int, Product], set[int]]:
    """The products, and the splits and sums that belong to them, by the ids of equations."""
    users: dict[Any, list[Any]] = {}
    for eqn in eqns:
        for v in dict.fromkeys(read_by([eqn])):
            users.setdefault(v, []).append(eqn)
    in_loop = {v for eqn in eqns for v in eqn.outvars}

    def only_user(var):
        return users[var][0] if len(users.get(var, ())) == 1 and var not in outside else None

    def operand_and_kernel(eqn):
        lhs, rhs = eqn.invars[:2]
        for operand, kernel in ((lhs, rhs), (rhs, lhs)):
            if kind[operand] == STATE and kind[kernel] == PARAMS and kernel not in in_loop:
                return operand, kernel
        return None

    products: dict[int, Product] = {}
    absorbed: set[int] = set()
    for eqn in eqns:
        if eqn.primitive.name not in PRODUCTS or any(is_literal(v) for v in eqn.invars):
            continue
        factors = operand_and_kernel(eqn)
        if factors is None or _is_outer(eqn):
            continue
        user = only_user(eqn.outvars[0])
        split = user if user is not None and user.primitive.name == "split" else None
        parts = list(eqn.outvars if split is None else split.outvars)
        addends: list[Any] = [None] * len(parts)
        for place, part in enumerate(parts):
            total = only_user(part)
            addend = None if total is None else _addend(total, part)
            if total is None or addend is None or kind[addend] == STATE or addend in in_loop:
                continue
            addends[place], parts[place] = addend, total.outvars[0]
            absorbed.add(id(total))
        if split is not None:
            absorbed.add(id(split))
        products[id(eqn)] = Product(jaxpr, eqn, *factors, split, tuple(addends), tuple(parts))
    return products, absorbed


def _addend(total, part) -> Any:
    """What is added to a part of a product, if it is a variable that does not spread the part."""
    if total.primitive.name != "add":
        return None
    others = [v for v in total.invars if v is not part]
    if len(others) != 1 or is_literal(others[0]):
        return None
    return others[0] if total.outvars[0].aval.shape == part.aval.shape else None


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
