"""Sparsity of the Jacobian of a jaxpr: which elements of a value depend on which state elements.

Every element of a value has a set of labels: those of the state elements that it depends on
differentiably. The sets are bits, packed into bytes on a last axis. An axis along which all sets
are equal may have size 1 instead of its own, so that a batch costs nothing.

The analysis uses the equations, not the values: a weight that happens to be zero counts as
non-zero, and an unknown operation makes all of its results depend on all of its operands.

With ``through_integers``, dependence that is not differentiable counts too: that of integers, of
booleans, and on the predicate of a `cond`.
"""

import functools
import math
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn._schedule.trace import is_literal, nested_jaxprs

Labels = np.ndarray | None  # uint8 [*shape or 1, bytes]; None: no dependence at all

ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp complex conj "
    "convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 "
    "expm1 floor ge gt igamma imag integer_pow is_finite le lgamma log log1p logistic lt max min "
    "mul ne neg nextafter not or pow real reduce_precision rem round rsqrt select_n sign sin sinh "
    "sqrt square stop_gradient sub tan tanh xor".split()
)
OVER_ALL_OF_AN_AXIS = frozenset("cumlogsumexp cummax cummin cumprod cumsum".split())
REDUCTIONS = frozenset(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum".split()
)
CONTROL_FLOW = frozenset("scan while cond".split())


def dependence(
    jaxpr: Any,
    labels: list[Labels],
    diagonal: Collection[int] = frozenset(),
    *,
    through_integers: bool = False,
) -> list[Labels]:
    """The labels of the results of a jaxpr, given those of its inputs.

    Args:
        jaxpr: the jaxpr to analyze; its constants have no labels.
        labels: the labels of each input.
        diagonal: the ``id`` of products ``x [n] @ kernel [n, k n]`` whose k square blocks are
            treated as diagonal.
        through_integers: whether dependence that is not differentiable counts.
    """
    env: dict[Any, Labels] = dict(zip(jaxpr.invars, labels, strict=True))
    for eqn in jaxpr.eqns:
        reads = [None if is_literal(v) else env.get(v) for v in eqn.invars]
        if all(read is None for read in reads):
            continue
        if id(eqn) in diagonal:
            results = [_tiled(reads[0], eqn)]
        else:
            results = _results(eqn, reads, through_integers)
        for v, result in zip(eqn.outvars, results, strict=True):
            # Integers and booleans do not depend differentiably on anything.
            if through_integers or jnp.issubdtype(v.aval.dtype, jnp.inexact):
                env[v] = result
    return [None if is_literal(v) else env.get(v) for v in jaxpr.outvars]


def _results(eqn: Any, reads: list[Any], through_integers: bool) -> list[Labels]:
    name = eqn.primitive.name
    rule = _RULES.get(name)
    if name in ELEMENTWISE:
        rank = eqn.outvars[0].aval.ndim
        return [functools.reduce(_union, (_of_rank(r, rank) for r in reads))] * len(eqn.outvars)
    if name in REDUCTIONS:
        return [_reduced(reads[0], eqn.params["axes"])]
    if name in OVER_ALL_OF_AN_AXIS:
        return [np.bitwise_or.reduce(reads[0], eqn.params["axis"], keepdims=True)]
    if name == "scan":
        return _scan(eqn, reads, through_integers)
    if name == "cond" and not (through_integers and reads[0] is not None):
        return _cond(eqn, reads, through_integers)
    if rule is not None:
        return rule(eqn, reads)
    inner = nested_jaxprs(eqn)
    if len(inner) == 1 and name not in CONTROL_FLOW:
        same = len(inner[0].invars) == len(reads) and len(inner[0].outvars) == len(eqn.outvars)
        if same:
            return dependence(inner[0], reads, through_integers=through_integers)
    return _dense(eqn, reads)


def _dense(eqn: Any, reads: list[Labels]) -> list[Labels]:
    """Every element of the results depends on every element of the operands."""
    whole = functools.reduce(
        np.bitwise_or, (_reduced(r, range(r.ndim - 1)) for r in reads if r is not None)
    )
    return [whole.reshape((1,) * v.aval.ndim + whole.shape) for v in eqn.outvars]


def _union(a: Labels, b: Labels) -> Labels:
    return b if a is None else a if b is None else a | b


def _of_rank(labels: Labels, rank: int) -> Labels:
    """Labels with the rank of a result; scalars broadcast."""
    if labels is None or labels.ndim == rank + 1:
        return labels
    return labels.reshape(*(1,) * rank, labels.shape[-1])


def _reduced(labels: Any, axes: Any) -> Any:
    return np.bitwise_or.reduce(labels, tuple(axes)) if len(tuple(axes)) else labels


def _full(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(labels, (*shape, labels.shape[-1]))


def _tiled(labels: Any, eqn: Any) -> Labels:
    n, m = eqn.invars[1].aval.shape
    if m % n:
        return None
    whole = _full(labels, (*labels.shape[:-2], n))
    return np.concatenate([whole] * (m // n), axis=-2)


# One rule for each operation ----------------------------------------------------------------------


def _reshape(eqn, reads):
    (labels,), old, new = reads[:1], eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    kept = 0  # unchanged leading axes, batch axes among them
    while kept < min(len(old), len(new)) and old[kept] == new[kept]:
        kept += 1
    head, tail = labels.shape[:kept], labels.shape[kept:-1]
    if math.prod(tail) == 1:
        return [labels.reshape(*head, *(1,) * (len(new) - kept), labels.shape[-1])]
    if math.prod(old[kept:]) != math.prod(new[kept:]):  # an axis of size 0
        return _dense(eqn, reads)
    whole = _full(labels, (*head, *old[kept:]))
    return [whole.reshape(*head, *new[kept:], labels.shape[-1])]


def _transpose(eqn, reads):
    return [reads[0].transpose(*eqn.params["permutation"], reads[0].ndim - 1)]


def _squeeze(eqn, reads):
    return [reads[0].squeeze(tuple(eqn.params["dimensions"]))]


def _expand_dims(eqn, reads):
    return [np.expand_dims(reads[0], tuple(eqn.params["dimensions"]))]


def _broadcast_in_dim(eqn, reads):
    shape = [1] * eqn.outvars[0].aval.ndim
    for axis, size in zip(eqn.params["broadcast_dimensions"], reads[0].shape[:-1], strict=True):
        shape[axis] = size
    return [reads[0].reshape(*shape, reads[0].shape[-1])]


def _slice(eqn, reads):
    strides = eqn.params["strides"] or (1,) * (reads[0].ndim - 1)
    spans = zip(eqn.params["start_indices"], eqn.params["limit_indices"], strides, strict=True)
    index = [
        slice(None) if size == 1 else slice(*span)
        for span, size in zip(spans, reads[0].shape[:-1], strict=True)
    ]
    return [reads[0][tuple(index)]]


def _split(eqn, reads):
    axis, sizes = eqn.params["axis"], eqn.params["sizes"]
    if reads[0].shape[axis] == 1:
        return [reads[0]] * len(sizes)
    return np.split(reads[0], np.cumsum([int(size) for size in sizes])[:-1], axis)


def _concatenate(eqn, reads):
    axis = eqn.params["dimension"]
    known = [read for read in reads if read is not None]
    common = list(np.broadcast_shapes(*(np.delete(r.shape, axis) for r in known)))
    parts = []
    for v, read in zip(eqn.invars, reads, strict=True):
        shape = [*common[:axis], v.aval.shape[axis], *common[axis:]]
        empty = np.zeros((1,) * len(shape), np.uint8)
        parts.append(np.broadcast_to(empty if read is None else read, shape))
    return [np.concatenate(parts, axis)]


def _stack(eqn, reads):
    shape = np.broadcast_shapes(*(read.shape for read in reads if read is not None))
    parts = [np.broadcast_to(np.uint8(0) if read is None else read, shape) for read in reads]
    return [np.stack(parts, eqn.params["axis"])]


def _unstack(eqn, reads):
    (labels,), axis = reads, eqn.params["axis"]
    alike = labels.shape[axis] == 1
    return [np.take(labels, 0 if alike else n, axis) for n in range(len(eqn.outvars))]


def _tile(eqn, reads):
    pairs = zip(eqn.params["reps"], reads[0].shape[:-1], strict=True)
    return [np.tile(reads[0], (*(1 if size == 1 else n for n, size in pairs), 1))]


def _dot_general(eqn, reads):
    (contracted, batch) = eqn.params["dimension_numbers"]
    sides, ranks = [], [v.aval.ndim for v in eqn.invars]
    frees = [
        [d for d in range(rank) if d not in (*c, *b)]
        for rank, c, b in zip(ranks, contracted, batch, strict=True)
    ]
    for side, read in enumerate(reads):
        if read is None:
            continue
        order = [*batch[side], *frees[side], *contracted[side]]
        moved = read.transpose(*order, ranks[side])
        kept = _reduced(moved, range(len(order) - len(contracted[side]), len(order)))
        shared, own = kept.shape[: len(batch[side])], kept.shape[len(batch[side]) : -1]
        ones = [(1,) * len(free) for free in frees]
        ones[side] = own
        sides.append(kept.reshape(*shared, *ones[0], *ones[1], kept.shape[-1]))
    return [functools.reduce(_union, sides)]


def _convolution(eqn, reads):
    if reads[1] is not None:
        return _dense(eqn, reads)
    numbers = eqn.params["dimension_numbers"]
    batch_in, batch_out = numbers.lhs_spec[0], numbers.out_spec[0]
    others = [d for d in range(reads[0].ndim - 1) if d != batch_in]
    kept = _reduced(reads[0], others)
    shape = [1] * eqn.outvars[0].aval.ndim
    shape[batch_out] = kept.shape[0]
    return [kept.reshape(*shape, kept.shape[-1])]


def _scan(eqn, reads, through_integers):
    """Slices are recognized by their rank, which is one less inside the loop."""
    (body,) = nested_jaxprs(eqn)
    sliced = [
        inner.aval.ndim < outer.aval.ndim
        for inner, outer in zip(body.invars, eqn.invars, strict=True)
    ]
    stacked = [
        inner.aval.ndim < outer.aval.ndim
        for inner, outer in zip(body.outvars, eqn.outvars, strict=True)
    ]
    carried = stacked.count(False)
    first = sliced.count(False) - carried  # constants precede the carry
    inner = [
        None if read is None else _reduced(read, (0,)) if is_slice else read
        for read, is_slice in zip(reads, sliced, strict=True)
    ]
    while True:
        results = dependence(body, inner, through_integers=through_integers)
        grown = [_union(inner[first + n], results[n]) for n in range(carried)]
        if all(_same(grown[n], inner[first + n]) for n in range(carried)):
            break
        inner[first : first + carried] = grown
    return grown + [None if r is None else r[None] for r in results[carried:]]


def _cond(eqn, reads, through_integers):
    found = (
        dependence(branch, reads[1:], through_integers=through_integers)
        for branch in nested_jaxprs(eqn)
    )
    return [functools.reduce(_union, results) for results in zip(*found, strict=True)]


def _pad(eqn, reads):
    if reads[1] is not None:
        return _dense(eqn, reads)
    (labels, _), config = reads, eqn.params["padding_config"]
    trivial = [low == high == inner == 0 for low, high, inner in config]
    whole = _full(labels, eqn.invars[0].aval.shape) if not all(trivial) else labels
    if any(low < 0 or high < 0 for low, high, _ in config):
        return _dense(eqn, reads)
    out = np.zeros((*eqn.outvars[0].aval.shape, whole.shape[-1]), np.uint8)
    index = [
        slice(low, size - high, inner + 1)
        for (low, high, inner), size in zip(config, out.shape[:-1], strict=True)
    ]
    out[tuple(index)] = whole
    alike = [axis for axis, same in enumerate(trivial) if same and labels.shape[axis] == 1]
    for axis in alike:
        out = out.take([0], axis)
    return [out]


def _gather(eqn, reads):
    """Rows of an array by number, where the numbers have labels and the array has none."""
    numbers, (array, index) = eqn.params["dimension_numbers"], reads[:2]
    if array is not None or numbers.operand_batching_dims:
        return _dense(eqn, reads)
    kept = _reduced(index, (index.ndim - 2,))
    sizes = iter(kept.shape[:-1])
    rank = eqn.outvars[0].aval.ndim
    shape = [1 if axis in numbers.offset_dims else next(sizes) for axis in range(rank)]
    return [kept.reshape(*shape, kept.shape[-1])]


def _scatter_add(eqn, reads):
    """The transpose of `_gather`: labels stay on the axes that are added as a whole."""
    numbers, (array, index, updates) = eqn.params["dimension_numbers"], reads[:3]
    if index is not None or numbers.operand_batching_dims:
        return _dense(eqn, reads)
    out = eqn.outvars[0].aval
    result = array
    if updates is not None:
        window = numbers.update_window_dims
        rank = updates.ndim - 1
        kept = _reduced(updates, [axis for axis in range(rank) if axis not in window])
        own = [axis for axis in range(out.ndim) if axis not in numbers.inserted_window_dims]
        sizes = eqn.invars[2].aval.shape
        shape = [1] * out.ndim
        for place, (axis, update_axis) in enumerate(zip(own, window, strict=True)):
            if sizes[update_axis] == out.shape[axis]:
                shape[axis] = kept.shape[place]
            else:
                kept = np.bitwise_or.reduce(kept, place, keepdims=True)
        result = _union(array, kept.reshape(*shape, kept.shape[-1]))
    return [result]


def _dynamic_slice(eqn, reads):
    return [_cut(reads[0], eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape, reads[1:])]


def _dynamic_update_slice(eqn, reads):
    shape = eqn.outvars[0].aval.shape
    return [_union(reads[0], _cut(reads[1], eqn.invars[1].aval.shape, shape, reads[2:]))]


def _cut(labels: Any, old: Any, new: Any, starts: Any) -> Labels:
    """The labels of a slice at an unknown place: kept only along the axes that are whole."""
    if labels is not None:
        for axis in (axis for axis in range(len(old)) if old[axis] != new[axis]):
            labels = np.bitwise_or.reduce(labels, axis, keepdims=True)
    for start in starts:
        if start is not None:
            labels = _union(labels, start.reshape(*(1,) * len(new), -1))
    return labels


def _same(a: Labels, b: Labels) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and bool((a == b).all())


def _each(eqn, reads):
    """Every result is that of one operand."""
    return reads


_RULES = {
    "device_put": _each,
    "optimization_barrier": _each,
    "pvary": _each,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "expand_dims": _expand_dims,
    "broadcast_in_dim": _broadcast_in_dim,
    "slice": _slice,
    "split": _split,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "tile": _tile,
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "pad": _pad,
    "gather": _gather,
    "scatter-add": _scatter_add,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "rev": lambda eqn, reads: [np.flip(reads[0], tuple(eqn.params["dimensions"]))],
}
