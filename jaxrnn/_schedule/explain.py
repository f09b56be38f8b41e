"""`explain`, which describes the schedule of a cell."""

import dataclasses
import math
from collections import Counter
from typing import Any

from jaxrnn._arguments import brief
from jaxrnn._cell import Cell
from jaxrnn._platform import kind_of
from jaxrnn._schedule.partition import Schedule, schedule_cell
from jaxrnn._schedule.products import PRODUCTS, Product
from jaxrnn._schedule.trace import is_literal, var_bytes
from jaxrnn._typing import PyTree
from jaxrnn._validation import prepare

# Data movement without arithmetic.
MOVES = frozenset(
    "broadcast_in_dim concatenate copy reshape slice split squeeze stack tile transpose "
    "unstack".split()
)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The schedule of a cell; ``print`` it.

    Attributes:
        before: operations that run once, as ``{operation: count}``; so do their gradients.
        inputs: operations that run for all time steps at once, before the loop.
        loop: operations in the loop, products and pointwise ones.
        after: operations that run for all time steps at once, after the loop.
        products: the products in the loop, e.g. ``[32, 256] @ [256, 1024]``, without outer
            products; the gradient of each kernel is one contraction over time and batch.
        stacked_bytes: bytes of hoisted values and inputs that the loop reads at each step.
        kept_bytes: bytes of residuals that each step keeps for the backward pass.
        operations: floating-point operations of one step in the loop (a product of [m, k] and
            [k, n] counts 2 m k n, a pointwise operation 1 per element).
        hoisted_operations: floating-point operations of one step that are hoisted.
        influence: what a learning rule keeps and does at each step, or None without a rule.
        engine: what an engine does, or why it refuses, or None without an engine.
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
    influence: str | None = None
    engine: str | None = None

    def __str__(self) -> str:
        """The explanation as a table."""

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
        if self.influence is not None:
            lines.append(f"  {'learning rule':<34}{self.influence}")
        if self.engine is not None:
            lines.append(f"  {'engine':<34}{self.engine}")
        return "\n".join(lines)


def explain(
    cell: Cell,
    params: PyTree,
    xs: PyTree,
    state: PyTree = None,
    *,
    rule: Any = None,
    engine: Any = None,
) -> Explanation:
    """Describes the schedule that `engines.Hoisted` uses for a cell on the platform of its arrays.

    Args:
        cell: the cell; wrap it in `wrappers.Masked` for the schedule under a mask.
        params: its parameters.
        xs: inputs ``[time, *batch, ...]``; only their shapes matter.
        state: the initial state; None is ``cell.init_state``.
        rule: a rule from `jaxrnn.learning`, whose influence is described too.
        engine: an engine, of which is said what it does, or why it cannot run the cell.

    Returns:
        An `Explanation`, whose ``str`` is a table.

    Raises:
        TypeError, ValueError: as `unroll` does.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.GRU(8)
        >>> params = cell.init(jax.random.key(0), input_size=4)
        >>> page = rnn.explain(cell, params, jnp.zeros((10, 2, 4)))
        >>> page.products
        ('[2, 8] @ [8, 24]',)
        >>> page = rnn.explain(cell, params, jnp.zeros((10, 2, 4)), rule=rnn.learning.RTRL())
        >>> page.influence
        'RTRL(): 5,120 numbers (... bytes), 97,280 operations a step'
    """
    params, xs, state, time, _ = prepare(cell, params, xs, state)
    if time == 0:
        raise ValueError("xs must have at least one time step to explain, got 0")
    plan = schedule_cell(cell, params, state, xs, kind_of(params, state, xs))
    found = _describe(repr(cell), plan)
    if engine is not None:
        found = dataclasses.replace(found, engine=_engine(engine, cell, params, state, xs))
    if rule is None:
        return found
    if not callable(getattr(rule, "cost", None)):
        raise TypeError(
            f"rule must be a rule from jaxrnn.learning, got {brief(rule)}; pass e.g. "
            "rule=jaxrnn.learning.RTRL()"
        )
    elements, size, operations = rule.cost(cell, params, state, xs)
    text = f"{rule!r}: {elements:,} numbers ({size:,} bytes), {operations:,} operations a step"
    return dataclasses.replace(found, influence=text)


def _engine(engine: Any, *work: Any) -> str:
    reason = engine.why_not(*work)
    does = "" if not hasattr(engine, "describe") else engine.describe(*work)
    return ": ".join(filter(None, (repr(engine), does, reason)))


def _describe(name: str, plan: Schedule) -> Explanation:
    sums = [v for product in plan.products for v in product.outvars]
    addends = {v for product in plan.products for v in product.addends}
    replayed = [v for v in plan.stacked if v in plan.pointwise_reads or v not in addends]
    return Explanation(
        cell=name,
        before=_count(plan.before.eqns),
        inputs=_count(plan.inputs.eqns),
        loop=_count(plan.loop_eqns),
        after=_count(plan.after.eqns),
        products=tuple(_shapes(product) for product in plan.products),
        stacked_bytes=sum(map(var_bytes, plan.stacked)),
        kept_bytes=sum(map(var_bytes, [*plan.state_in, *sums, *replayed])),
        operations=sum(map(_operations, plan.loop_eqns)),
        hoisted_operations=sum(map(_operations, (*plan.inputs.eqns, *plan.after.eqns))),
    )


def _count(eqns: Any) -> dict[str, int]:
    """The number of occurrences of each operation, products first."""
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
