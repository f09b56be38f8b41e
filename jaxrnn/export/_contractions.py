"""ONNX rules of matrix products and convolutions."""

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
    # JAX multiplies arrays of two widths, and accumulates those of 16 bits in float32.
    wide = max(x.dtype, y.dtype, np.dtype(dtype), key=lambda dtype: dtype.itemsize)
    x, y = graph.cast(x, wide), graph.cast(y, wide)
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
