"""ONNX rules of reading and writing at places that are computed: windows, rows, single elements."""

from typing import Any

import numpy as np

from jaxrnn.export._contractions import transposed
from jaxrnn.export._graph import Graph, Value, constant
from jaxrnn.export._translate import rule, unsupported


def _whole(graph: Graph, eqn: Any, *values: Value) -> list[Value]:
    return [graph.full(x, v.aval.shape) for x, v in zip(values, eqn.invars, strict=False)]


def _clamped(graph: Graph, indices: Value, highest: Value) -> Value:
    """Indices within bounds; highest is int64 and broadcasts."""
    low = graph.broadcast("Max", graph.cast(indices, np.int64), constant(np.int64(0)))
    return graph.broadcast("Min", low, highest)


def _highest(graph: Graph, operand: tuple, sizes: tuple) -> Value:
    """The largest starts of slices of these sizes, int64 ``[axes]``."""
    rooms = graph.vector(operand), graph.vector(sizes)
    return graph.add("Sub", *rooms, shape=(len(sizes),))


def _all_equal(graph: Graph, x: Value, y: Value) -> Value:
    """Whether two arrays of integers agree along their last axis."""
    equal = graph.cast(graph.broadcast("Equal", x, y, dtype=np.bool_), np.int32)
    every = graph.add("ReduceMin", equal, shape=x.shape[:-1], axes=[-1], keepdims=0)
    return graph.cast(every, np.bool_)


def _fills(eqn: Any) -> bool:
    """Whether places outside of the array are left out; otherwise they are clamped."""
    return "FILL" in str(eqn.params["mode"])


# Windows at one place -----------------------------------------------------------------------------


def _joined(graph: Graph, starts: Any) -> Value:
    """Scalars as one vector of int64."""
    one = constant(np.array([1], np.int64))
    parts = [graph.add("Reshape", graph.cast(start, np.int64), one, shape=(1,)) for start in starts]
    return graph.add("Concat", *parts, shape=(len(parts),), axis=0)


def _cut(graph: Graph, value: Value, starts: Value, ends: Value, axes: list[int], sizes: Any):
    """``value[start:end]`` along some axes, which then have these sizes."""
    shape = list(value.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    where = constant(np.array(axes, np.int64))
    return graph.add("Slice", value, starts, ends, where, shape=tuple(shape))


def _window(graph: Graph, value: Value, starts: Value, axes: list[int], sizes: tuple) -> Value:
    """``value[start : start + size]`` along some axes; starts are in bounds after clamping."""
    whole = tuple(value.shape[axis] for axis in axes)
    starts = _clamped(graph, starts, _highest(graph, whole, sizes))
    ends = graph.add("Add", starts, graph.vector(sizes), shape=(len(axes),))
    return _cut(graph, value, starts, ends, axes, sizes)


def _written(graph: Graph, value: Value, starts: Value, axes: list[int], window: Value) -> Value:
    """The value with a window written at clamped starts, one axis after the other."""
    if not axes:
        return window
    axis, size = axes[0], window.shape[axes[0]]
    first = constant(np.array([0], np.int64))
    start = graph.add("Slice", starts, first, constant(np.array([1], np.int64)), shape=(1,))
    later = _cut(graph, starts, constant(np.array([1])), graph.vector((len(axes),)), [0], [-1])
    end = graph.add("Add", start, graph.vector((size,)), shape=(1,))
    last = graph.vector(value.shape[axis : axis + 1])
    before = _cut(graph, value, first, start, [axis], [-1])
    middle = _cut(graph, value, start, end, [axis], [size])
    after = _cut(graph, value, end, last, [axis], [-1])
    inner = _written(graph, middle, later, axes[1:], window)
    return graph.add("Concat", before, inner, after, shape=value.shape, axis=axis)


@rule("dynamic_slice")
def _dynamic_slice(graph: Graph, eqn: Any, value: Value, *starts: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    sizes = tuple(eqn.params["slice_sizes"])
    return _window(graph, value, _joined(graph, starts), list(range(len(sizes))), sizes)


@rule("dynamic_update_slice")
def _dynamic_update_slice(graph: Graph, eqn: Any, value: Value, new: Value, *starts: Value):
    value, new = _whole(graph, eqn, value, new)
    safe = _clamped(graph, _joined(graph, starts), _highest(graph, value.shape, new.shape))
    return _written(graph, value, safe, list(range(len(starts))), new)


# Rows and elements at many places -----------------------------------------------------------------


def _places(graph: Graph, indices: Value, batching: list[int]) -> Value:
    """Indices of several axes ``[..., axes]``, before which stand those of the batch's axes."""
    batch = indices.shape[:-1]
    parts = []
    for axis in batching:  # counts along an axis of the indices, which pairs with one of the array
        ends = [constant(np.int64(0)), graph.size(batch[axis]), constant(np.int64(1))]
        ends[1] = graph.add("Squeeze", ends[1], shape=())
        count = graph.add("Range", *ends, shape=(batch[axis],), dtype=np.int64)
        sizes = tuple(batch[axis] if d == axis else 1 for d in range(len(batch)))
        parts.append(graph.full(graph.reshape(count, (*sizes, 1)), (*batch, 1)))
    parts.append(graph.cast(indices, np.int64))
    shape = (*batch, len(batching) + indices.shape[-1])
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, shape=shape, axis=-1)


@rule("gather")
def _gather(graph: Graph, eqn: Any, value: Value, indices: Value) -> Value:
    """A window at one place, rows along one axis, or elements along several."""
    value, indices = _whole(graph, eqn, value, indices)
    numbers, sizes = eqn.params["dimension_numbers"], tuple(eqn.params["slice_sizes"])
    shape, axes = eqn.outvars[0].aval.shape, list(map(int, numbers.start_index_map))
    collapsed = list(map(int, numbers.collapsed_slice_dims))
    lead = [*map(int, numbers.operand_batching_dims), *axes]
    if len(indices.shape) == 1 and not _fills(eqn):
        window = _window(graph, value, indices, axes, tuple(sizes[axis] for axis in axes))
        if not collapsed:
            return window
        return graph.add("Squeeze", window, constant(np.array(collapsed, np.int64)), shape=shape)
    rest = [d for d in range(len(sizes)) if d not in lead]
    if set(axes) != set(collapsed) or any(sizes[d] != value.shape[d] for d in rest):
        raise unsupported(eqn, "of several windows that are parts of an axis")
    offsets = list(map(int, numbers.offset_dims))
    places = [d for d in range(len(shape)) if d not in offsets]
    found = _places(graph, indices, list(map(int, numbers.start_indices_batching_dims)))
    counts = tuple(value.shape[d] for d in lead)
    safe = _clamped(graph, found, _highest(graph, counts, (1,) * len(lead)))
    batch, kept = indices.shape[:-1], tuple(value.shape[d] for d in rest)
    if len(lead) == 1:  # Gather has the axes of the indices in the place of the axis
        (axis,) = lead
        rows = graph.reshape(safe, batch)
        rows_shape = (*kept[:axis], *batch, *kept[axis:])
        rows = graph.add("Gather", value, rows, shape=rows_shape, axis=axis)
        order = [*offsets[:axis], *places, *offsets[axis:]]
    else:
        value = transposed(graph, value, [*lead, *rest])
        rows = graph.add("GatherND", value, safe, shape=(*batch, *kept))
        order = [*places, *offsets]
    result = transposed(graph, rows, np.argsort(order))
    if not _fills(eqn):
        return result
    sizes = tuple(size if d in places else 1 for d, size in enumerate(shape))
    inside = graph.reshape(_all_equal(graph, safe, found), sizes)
    missing = eqn.params["fill_value"]
    if missing is None:
        floating = np.issubdtype(result.dtype, np.inexact) or result.dtype.kind == "V"
        missing = np.nan if floating else np.iinfo(result.dtype).min
    filling = constant(np.asarray(missing).astype(result.dtype))
    return graph.broadcast("Where", inside, result, filling, dtype=result.dtype)


_SCATTERS = {"scatter": "none", "scatter-add": "add", "scatter-sub": "add", "scatter-mul": "mul"}


@rule(*_SCATTERS)
def _scatter(graph: Graph, eqn: Any, value: Value, indices: Value, new: Value) -> Value:
    """Writes a window at one place, or rows or elements at many."""
    value, indices, new = _whole(graph, eqn, value, indices, new)
    if eqn.primitive.name == "scatter-sub":
        new = graph.broadcast("Neg", new)
    at_one_place = len(indices.shape) == 1
    return (_scatter_window if at_one_place else _scatter_rows)(graph, eqn, value, indices, new)


def _scatter_window(graph: Graph, eqn: Any, value: Value, indices: Value, new: Value) -> Value:
    numbers, how = eqn.params["dimension_numbers"], _SCATTERS[eqn.primitive.name]
    axes = list(map(int, numbers.scatter_dims_to_operand_dims))
    inserted, sizes = numbers.inserted_window_dims, iter(new.shape)
    whole = tuple(1 if d in inserted else next(sizes) for d in range(len(value.shape)))
    window, sizes = graph.reshape(new, whole), tuple(whole[axis] for axis in axes)
    room = _highest(graph, tuple(value.shape[axis] for axis in axes), sizes)
    safe = _clamped(graph, indices, room)
    if how != "none":
        old = _window(graph, value, safe, axes, sizes)
        window = graph.broadcast("Add" if how == "add" else "Mul", old, window)
    result = _written(graph, value, safe, axes, window)
    if not _fills(eqn):
        return result
    inside = _all_equal(graph, safe, graph.cast(indices, np.int64))
    return graph.broadcast("Where", inside, result, value, dtype=value.dtype)


def _scatter_rows(graph: Graph, eqn: Any, value: Value, indices: Value, new: Value) -> Value:
    numbers, how = eqn.params["dimension_numbers"], _SCATTERS[eqn.primitive.name]
    axes = list(map(int, numbers.scatter_dims_to_operand_dims))
    lead = [*map(int, numbers.operand_batching_dims), *axes]
    rest = [d for d in range(len(value.shape)) if d not in lead]
    windows = list(map(int, numbers.update_window_dims))
    kept = [value.shape[d] for d in rest]
    if set(axes) != set(numbers.inserted_window_dims) or [new.shape[d] for d in windows] != kept:
        raise unsupported(eqn, "of several windows that are parts of an axis")
    places = [d for d in range(len(new.shape)) if d not in windows]
    order = [*lead, *rest]
    value, new = transposed(graph, value, order), transposed(graph, new, [*places, *windows])
    shape, counts = value.shape, tuple(value.shape[: len(lead)])
    found = _places(graph, indices, list(map(int, numbers.scatter_indices_batching_dims)))
    where = _clamped(graph, found, _highest(graph, counts, (1,) * len(lead)))
    if _fills(eqn):  # what belongs outside is written to one row more, which is dropped
        inside = graph.reshape(_all_equal(graph, where, found), (*found.shape[:-1], 1))
        beyond = graph.vector((counts[0], *[0] * (len(lead) - 1)))
        where = graph.broadcast("Where", inside, where, beyond, dtype=np.int64)
        shape = (counts[0] + 1, *shape[1:])
        row = _cut(graph, value, graph.vector((0,)), graph.vector((1,)), [0], [1])
        value = graph.add("Concat", value, row, shape=shape, axis=0)
    result = graph.add("ScatterND", value, where, new, shape=shape, reduction=how)
    if _fills(eqn):
        result = _cut(graph, result, graph.vector((0,)), graph.size(counts[0]), [0], counts[:1])
    return transposed(graph, result, np.argsort(order))
