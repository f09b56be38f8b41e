"""ONNX rules of matrix products and convolutions, and of indexing."""

import string
from typing import Any

import numpy as np

from jaxrnn.export._graph import Graph, Value, constant, is_zero
from jaxrnn.export._translate import rule, unsupported


@rule("dot_general")
def _dot(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    shape, dtype = eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype
    if any(
        is_zero(eqn.invars[0].aval.shape[axis]) for axis in eqn.params["dimension_numbers"][0][0]
    ):
        return constant(np.zeros((), dtype))  # a product without terms
    if x.dtype.itemsize < np.dtype(dtype).itemsize:  # 16 bits, accumulated in float32
        x, y = graph.cast(x, dtype), graph.cast(y, dtype)
    x, y = (graph.full(value, v.aval.shape) for value, v in zip((x, y), eqn.invars, strict=True))
    (cx, cy), (bx, by) = eqn.params["dimension_numbers"]
    ranks = len(x.shape), len(y.shape)
    if not bx and ranks[1] == 2 and tuple(cx) == (ranks[0] - 1,) and len(cy) == 1:
        if cy[0] == 1:
            y = transposed(graph, y, (1, 0))
        return graph.add("MatMul", x, y, shape=shape)
    letters = iter(string.ascii_lowercase)
    of_x = [next(letters) for _ in x.shape]
    of_y = [next(letters) for _ in y.shape]
    for a, b in (*zip(bx, by, strict=True), *zip(cx, cy, strict=True)):
        of_y[b] = of_x[a]
    out = [of_x[a] for a in bx]
    out += [of_x[a] for a in range(ranks[0]) if a not in (*bx, *cx)]
    out += [of_y[b] for b in range(ranks[1]) if b not in (*by, *cy)]
    equation = f"{''.join(of_x)},{''.join(of_y)}->{''.join(out)}"
    return graph.add("Einsum", x, y, shape=shape, equation=equation)


def transposed(graph: Graph, value: Value, perm: Any) -> Value:
    """The value with its axes in another order."""
    perm = [int(axis) for axis in perm]
    if perm == sorted(perm):
        return value
    if value.array is not None:
        return constant(value.array.transpose(perm))
    shape = tuple(value.shape[axis] for axis in perm)
    return graph.add("Transpose", value, shape=shape, perm=perm)


@rule("conv_general_dilated")
def _conv(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
    params, (out,) = eqn.params, eqn.outvars
    specs = params["dimension_numbers"]
    if any(d != 1 for d in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise unsupported(eqn, "with dilation of its input or groups of the batch")
    dtype = out.aval.dtype
    x, kernel = (
        transposed(graph, graph.cast(graph.full(value, v.aval.shape), dtype), spec)
        for value, v, spec in zip((x, kernel), eqn.invars, specs, strict=False)
    )
    lows, highs = zip(*params["padding"], strict=True)
    shape = tuple(out.aval.shape[axis] for axis in specs[2])
    result = graph.add(
        "Conv",
        x,
        kernel,
        shape=shape,
        pads=[*lows, *highs],
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    return transposed(graph, result, np.argsort(specs[2]))


# Indexing ----------------------------------------------------------------------------------------


def _clamped(graph: Graph, indices: Value, highest: Value) -> Value:
    """Indices within bounds; highest is int64 and broadcasts."""
    low = graph.broadcast("Max", graph.cast(indices, np.int64), constant(np.int64(0)))
    return graph.broadcast("Min", low, highest)


def _highest(graph: Graph, operand: tuple, sizes: tuple) -> Value:
    """The largest starts of slices of these sizes, int64 ``[axes]``."""
    rooms = graph.vector(operand), graph.vector(sizes)
    return graph.add("Sub", *rooms, shape=(len(sizes),))


def _window(graph: Graph, value: Value, starts: Value, axes: list[int], sizes: tuple) -> Value:
    """``value[start : start + size]`` along some axes; starts are in bounds after clamping."""
    whole = tuple(value.shape[axis] for axis in axes)
    starts = _clamped(graph, starts, _highest(graph, whole, sizes))
    ends = graph.add("Add", starts, graph.vector(sizes), shape=(len(axes),))
    shape = list(value.shape)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    where = constant(np.array(axes, np.int64))
    return graph.add("Slice", value, starts, ends, where, shape=tuple(shape))


@rule("dynamic_slice")
def _dynamic_slice(graph: Graph, eqn: Any, value: Value, *starts: Value) -> Value:
    value = graph.full(value, eqn.invars[0].aval.shape)
    one = constant(np.array([1], np.int64))
    parts = [graph.add("Reshape", graph.cast(start, np.int64), one, shape=(1,)) for start in starts]
    joined = graph.add("Concat", *parts, shape=(len(parts),), axis=0)
    axes = list(range(len(parts)))
    return _window(graph, value, joined, axes, tuple(eqn.params["slice_sizes"]))


@rule("gather")
def _gather(graph: Graph, eqn: Any, value: Value, indices: Value) -> Value:
    """A window at one place, or rows along one axis."""
    value, indices = (
        graph.full(x, v.aval.shape) for x, v in zip((value, indices), eqn.invars, strict=True)
    )
    numbers, sizes = eqn.params["dimension_numbers"], tuple(eqn.params["slice_sizes"])
    shape, axes = eqn.outvars[0].aval.shape, list(map(int, numbers.start_index_map))
    collapsed = list(map(int, numbers.collapsed_slice_dims))
    fills = "FILL" in str(eqn.params["mode"])
    if len(indices.shape) == 1 and not fills:
        window = _window(graph, value, indices, axes, tuple(sizes[axis] for axis in axes))
        if not collapsed:
            return window
        return graph.add("Squeeze", window, constant(np.array(collapsed, np.int64)), shape=shape)
    if axes != collapsed or len(axes) != 1 or numbers.operand_batching_dims:
        raise unsupported(eqn, "other than rows along one axis or one window")
    (axis,) = axes
    batch = indices.shape[:-1]
    indices = graph.cast(graph.reshape(indices, batch), np.int64)
    last = _highest(graph, value.shape[axis : axis + 1], (1,))
    last = graph.add("Squeeze", last, shape=())
    safe = _clamped(graph, indices, last)
    rows_shape = (*value.shape[:axis], *batch, *value.shape[axis + 1 :])
    rows = graph.add("Gather", value, safe, shape=rows_shape, axis=axis)
    # Gather has the axes of the indices in the place of the axis; JAX tells where they go.
    offsets = list(map(int, numbers.offset_dims))
    places = [d for d in range(len(shape)) if d not in offsets]
    order = [*offsets[:axis], *places, *offsets[axis:]]
    result = transposed(graph, rows, np.argsort(order))
    if not fills:
        return result
    inside = graph.broadcast("Equal", safe, indices, dtype=np.bool_)
    sizes = tuple(size if d in places else 1 for d, size in enumerate(shape))
    inside = graph.reshape(inside, sizes)
    missing = eqn.params["fill_value"]
    if missing is None:
        floating = np.issubdtype(result.dtype, np.inexact) or result.dtype.kind == "V"
        missing = np.nan if floating else np.iinfo(result.dtype).min
    filling = constant(np.asarray(missing).astype(result.dtype))
    return graph.broadcast("Where", inside, result, filling, dtype=result.dtype)
