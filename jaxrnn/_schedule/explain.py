"""`explain`: the schedule of a cell, in words and numbers."""

import dataclasses
import math
from collections import Counter
from typing import Any

import jax

from jaxrnn import _validation as checks
from jaxrnn._cell import Cell, input_rank
from jaxrnn._schedule.partition import Schedule, schedule
from jaxrnn._schedule.pieces import PRODUCTS, Piece, Product
from jaxrnn._schedule.trace import canonical_step, is_literal, nbytes
from jaxrnn._typing import PyTree

# Data in another order: no arithmetic.
MOVES = frozenset(
    "broadcast_in_dim concatenate copy reshape slice split squeeze stack tile transpose "
    "unstack".split()
)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The schedule of a cell; ``print`` it.

    Attributes:
        before: what runs once, as ``{operation: count}``; its gradient, too, is taken once.
        inputs: what runs for all time steps at once, before the loop.
        loop: what is left in the loop, products and pointwise operations.
        after: what runs for all time steps at once, after the loop.
        products: the products in the loop, e.g. ``[32, 256] @ [256, 1024]``, but for outer ones;
            the gradient of each kernel is one contraction over time and batch.
        stacked_bytes: bytes that the loop reads of hoisted values and inputs at each step.
        kept_bytes: bytes kept of each step for the backward pass.
        operations: floating-point operations of one step in the loop (a product of [m, k] and
            [k, n] counts 2 m k n, a pointwise operation 1 an element).
        hoisted_operations: those of one step that were taken out of the loop.
    """

    cell: str
    before: dict[str, int]
    inputs: dict[str, int]
    loop: dict[str, int]
    after: dict[str, int]
    products: tuple[str, ...]
    stacked_bytes: int
    kept_bytes: int
    operations: int
    hoisted_operations: int

    def __str__(self) -> str:
        """The explanation as a page."""

        def row(title: str, counts: dict[str, int]) -> str:
            words = ", ".join(
                name if count == 1 else f"{name} ×{count}" for name, count in counts.items()
            )
            return f"  {title:<34}{words or '-'}"

        lines = [
            self.cell,
            row("once, before the loop", self.before),
            row("all time at once, before the loop", self.inputs),
            row("in the loop", self.loop),
            row("all time at once, after the loop", self.after),
            f"  {'products in the loop':<34}{'; '.join(self.products) or '-'}",
            f"  {'operations a step':<34}{self.operations:,} in the loop, "
            f"{self.hoisted_operations:,} hoisted",
            f"  {'bytes a step':<34}{self.stacked_bytes:,} read, "
            f"{self.kept_bytes:,} kept for the backward pass",
        ]
        return "\n".join(lines)


def explain(cell: Cell, params: PyTree, xs: PyTree, state: PyTree = None) -> Explanation:
    """Shows the schedule that `engines.Hoisted` finds for a cell on this backend.

    Args:
        cell: the cell; wrap it as `unroll` would to see the schedule under a mask.
        params: its parameters.
        xs: inputs ``[time, *batch, ...]``, of which the shapes matter only.
        state: the state before the first step; None is ``cell.init_state``.

    Returns:
        An `Explanation`, whose ``str`` is a page.

    Raises:
        TypeError, ValueError: as `unroll` does.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.GRU(8)
        >>> params = cell.init(jax.random.key(0), input_size=4)
        >>> page = rnn.explain(cell, params, jnp.zeros((10, 2, 4)))
        >>> page.products
        ('[2, 8] @ [8, 24]',)
    """
    checks.check_cell(cell)
    params, xs = checks.as_arrays("params", params), checks.as_arrays("xs", xs)
    state = checks.as_arrays("state", state)
    time, batch_shape = checks.leading_shape(xs, input_rank(cell))
    if time == 0:
        raise ValueError("xs must have at least one time step to explain, got 0")
    state = checks.check_state(cell, params, state, xs, batch_shape)
    checks.check_step(cell, params, state, xs)
    from jaxrnn._schedule.trace import separates_gates

    x = jax.tree.map(lambda leaf: leaf[0], xs)
    step = canonical_step(cell.step, params, state, x, separate=separates_gates())
    return _describe(repr(cell), schedule(step, len(jax.tree.leaves(state))))


def _describe(name: str, plan: Schedule) -> Explanation:
    sums = [v for product in plan.products for v in product.outvars]
    addends = {v for product in plan.products for v in product.addends}
    read = {v for item in plan.loop if isinstance(item, Piece) for v in item.invars}
    replayed = [v for v in plan.stacked if v in read or v not in addends]
    return Explanation(
        cell=name,
        before=_count(plan.before.eqns),
        inputs=_count(plan.inputs.eqns),
        loop=_count(plan.loop_eqns),
        after=_count(plan.after.eqns),
        products=tuple(_shapes(product) for product in plan.products),
        stacked_bytes=sum(map(nbytes, plan.stacked)),
        kept_bytes=sum(map(nbytes, [*plan.state_in, *sums, *replayed])),
        operations=sum(map(_operations, plan.loop_eqns)),
        hoisted_operations=sum(map(_operations, (*plan.inputs.eqns, *plan.after.eqns))),
    )


def _count(eqns: Any) -> dict[str, int]:
    """How often each operation occurs, the most telling first."""
    counts = Counter(eqn.primitive.name for eqn in eqns)
    return dict(sorted(counts.items(), key=lambda item: (item[0] not in PRODUCTS, item[0])))


def _shapes(product: Product) -> str:
    sign = "@" if product.eqn.primitive.name == "dot_general" else "*"
    lhs, rhs = (list(v.aval.shape) for v in product.eqn.invars[:2])
    return f"{lhs} {sign} {rhs}"


def _operations(eqn: Any) -> int:
    out = sum(math.prod(v.aval.shape) for v in eqn.outvars)
    if eqn.primitive.name == "dot_general":
        (contract, _), _ = eqn.params["dimension_numbers"]
        return 2 * out * math.prod(eqn.invars[0].aval.shape[d] for d in contract)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * out * (math.prod(kernel) // features)
    if not all(is_literal(v) or hasattr(v.aval, "shape") for v in eqn.invars):
        return 0
    return 0 if eqn.primitive.name in MOVES else out
