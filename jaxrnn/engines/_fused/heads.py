"""Products whose kernel is block-diagonal, one block for each head.

A cell with heads writes its product as a batch of small ones, and moves axes on the way:

    z[b, g, h, j] = Σᵢ a[b, h, i] W[h, i, g, j]          b: rows, h: heads, g: gates

As a product of matrices that is ``[*batch, H] -> gates · H`` with a kernel that is zero where heads
differ, so `with_dense_kernels` rewrites it to one, and the rest of the engine has one kind of
product. A machine takes the blocks out of the kernel again (`blocks_of`), and runs each head as
rows of its own (`heads_as_rows`): the pieces are local, so heads never meet.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.trace import INPUTS, PARAMS, STATE, all_eqns, evaluate, is_literal
from jaxrnn.engines._platforms import Function


class BlockDiagonal(Function):
    """``[heads, n, gates, n] -> [heads · n, gates · heads · n]``, zero where heads differ."""


def _expand(blocks):
    heads, n, gates, _ = blocks.shape
    dense = jnp.eye(heads, dtype=blocks.dtype)[:, None, None, :, None] * blocks[:, :, :, None]
    return [dense.reshape(heads * n, gates * heads * n)]


def heads_of(plan: Schedule) -> int:
    """The number of blocks on the diagonal of every kernel; 1 if kernels differ in it."""
    made: dict[Any, int] = {}
    eqn: Any
    for eqn in plan.before.eqns:
        if isinstance(eqn.params.get("function"), BlockDiagonal):
            made[eqn.outvars[0]] = eqn.invars[0].aval.shape[0]
    counts = {made.get(product.kernel, 1) for product in plan.products}
    return counts.pop() if len(counts) == 1 else 1


def blocks_of(kernel: Any, gates: int, heads: int) -> Any:
    """The blocks of a kernel ``[H, gates * H]`` as ``[heads, n, gates, n]``."""
    n = kernel.shape[0] // heads
    kernel = kernel.reshape(heads, n, gates, heads, n)
    return jnp.stack([kernel[h, :, :, h] for h in range(heads)])


def heads_as_rows(x: Any, heads: int, height: int, width: int) -> Any:
    """``[..., rows, heads * n] -> [..., heads * height, width]``, padded.

    Edges are repeated: whatever a step computes there is as harmless as its neighbor.
    """
    *lead, rows, hidden = x.shape
    x = x.reshape(*lead, rows, heads, hidden // heads).swapaxes(-3, -2)
    widths = [(0, 0)] * (x.ndim - 2) + [(0, height - rows), (0, width - hidden // heads)]
    x = jnp.pad(x, widths, mode="edge") if any(map(sum, widths)) else x
    return x.reshape(*lead, heads * height, width)


def rows_as_heads(x: Any, heads: int, rows: int, hidden: int) -> Any:
    """The inverse of `heads_as_rows`."""
    *lead, _, width = x.shape
    x = x.reshape(*lead, heads, -1, width)[..., :rows, : hidden // heads]
    return x.swapaxes(-3, -2).reshape(*lead, rows, hidden)


# The rewrite --------------------------------------------------------------------------------------


class _View:
    """The elements of an array in some order; in the array's own order it is the array itself."""

    def __init__(self, base: Any, arrange: Callable | None = None, make: Callable | None = None):
        self.base, self._arrange, self._make = base, arrange, make

    @functools.cached_property
    def index(self) -> Any:
        """The positions in the base, in the shape of the view."""
        positions = _positions(self.base)
        return positions if self._arrange is None else self._arrange(positions)

    def array(self) -> Any:
        """The view as an array."""
        if self._make is None or np.array_equal(self.index, _positions(self.base)):
            return self.base
        return self._make()

    def rearranged(self, arrange: Callable) -> "_View":
        """The view after transposes and reshapes."""
        return _View(self.base, lambda _: arrange(self.index), lambda: arrange(self.array()))


def _positions(x: Any) -> np.ndarray:
    return np.arange(math.prod(x.shape), dtype=np.int32).reshape(x.shape)


def with_dense_kernels(step: Callable) -> Callable:
    """A step whose products by heads are products with block-diagonal kernels."""

    def rewritten(params, state, x):
        closed, shape = jax.make_jaxpr(step, return_shape=True)(params, state, x)
        if not any(map(_has_heads, all_eqns(closed.jaxpr.eqns))):
            return step(params, state, x)
        values = [(_View(const), PARAMS) for const in closed.consts]
        for kind, tree in ((PARAMS, params), (STATE, state), (INPUTS, x)):
            values += [(_View(leaf), kind) for leaf in jax.tree.leaves(tree)]
        results = [view.array() for view, _ in _rewrite(closed.jaxpr, values)]
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return rewritten


def _has_heads(eqn: Any) -> bool:
    """Whether an equation is a batch of products."""
    if eqn.primitive.name != "dot_general":
        return False
    contracted, batch = eqn.params["dimension_numbers"]
    sizes = [n for v in eqn.invars for n in v.aval.shape]
    return len(contracted[0]) == len(batch[0]) == 1 and all(isinstance(n, int) for n in sizes)


def _rewrite(jaxpr: Any, args: Sequence[tuple[_View, int]]) -> list[tuple[_View, int]]:
    """Evaluates a jaxpr (its constants first among ``args``) with the rewrite.

    With each value goes what it depends on.
    """
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], args, strict=True))

    def read(v):
        return (_View(jnp.asarray(v.val, v.aval.dtype)), PARAMS) if is_literal(v) else env[v]

    for eqn in jaxpr.eqns:
        name, inner = eqn.primitive.name, eqn.params.get("jaxpr")
        operands = [read(v) for v in eqn.invars]
        kinds = [kind for _, kind in operands]
        kind = max(kinds, default=PARAMS)
        view: Any = None
        if name in ("jit", "pjit") and isinstance(inner, jex.ClosedJaxpr):
            constants = [(_View(c), PARAMS) for c in inner.consts]
            results = _rewrite(inner.jaxpr, [*constants, *operands])
            env.update(zip(eqn.outvars, results, strict=True))
            continue
        if name in ("reshape", "squeeze", "expand_dims", "transpose") and kind == STATE:
            view = operands[0][0].rearranged(functools.partial(_move, eqn))
        elif _has_heads(eqn) and set(kinds) == {PARAMS, STATE}:
            view = _product(eqn, [view for view, _ in operands], kinds[0] == PARAMS)
        if view is not None:
            env[eqn.outvars[0]] = view, kind
            continue
        free = list(dict.fromkeys(v for v in eqn.invars if not is_literal(v)))
        arrays = [env[v][0].array() for v in free]
        results = evaluate(jaxpr, [eqn], free, eqn.outvars, arrays)
        env.update(zip(eqn.outvars, ((_View(x), kind) for x in results), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _move(eqn: Any, x: Any) -> Any:
    order = eqn.params.get("permutation", range(x.ndim))
    return x.transpose(*order).reshape(eqn.outvars[0].aval.shape)


def _product(eqn: Any, operands: Sequence[_View], kernel_first: bool) -> _View | None:
    """The product with a block-diagonal kernel, in the equation's form; None: not square."""
    sides = [
        (value, [head, unit])
        for value, (unit,), (head,) in zip(operands, *eqn.params["dimension_numbers"], strict=True)
    ]
    (a, a_axes), (w, w_axes) = sides[::-1] if kernel_first else sides
    rows = [axis for axis in range(a.index.ndim) if axis not in a_axes]
    free = [axis for axis in range(w.index.ndim) if axis not in w_axes]
    batch, columns = ([x.index.shape[n] for n in axes] for x, axes in ((a, rows), (w, free)))
    heads, n = (a.index.shape[axis] for axis in a_axes)
    gates, rest = divmod(math.prod(columns), n)
    if rest:
        return None
    x = a.rearranged(lambda x: x.transpose(*rows, *a_axes).reshape(*batch, heads * n))
    blocks = w.array().transpose(*w_axes, *free).reshape(heads, n, gates, n)
    (kernel,) = BlockDiagonal(_expand)(blocks)
    z = jax.lax.dot_general(
        x.array(),
        kernel,
        (((len(batch),), (0,)), ((), ())),
        precision=eqn.params["precision"],
        preferred_element_type=eqn.params["preferred_element_type"],
    )

    def arrange(z):
        """``[*batch, gates * H]`` as the result of the equation: heads, then its two operands."""
        count = len(batch)
        z = z.reshape(*batch, gates, heads, n)
        z = z.transpose(count + 1, *range(count), count, count + 2).reshape(heads, *batch, *columns)
        sides = range(1, 1 + count), range(1 + count, z.ndim)
        first, second = sides[::-1] if kernel_first else sides
        return z.transpose(0, *first, *second)

    return _View(z).rearranged(arrange)
