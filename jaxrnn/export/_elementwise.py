"""ONNX rules of elementwise primitives, of those that move elements, and of reductions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.export._graph import Graph, Value, broadcast_shapes, constant
from jaxrnn.export._translate import RULES, by_definition, rule, unsupported

_SAME = {
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "asin": "Asin",
    "asinh": "Asinh",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "div": "Div",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tan": "Tan",
    "tanh": "Tanh",
}
_COMPARISONS = {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}
_LOGICAL = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}


def _elementwise(op: str, dtype: Any = None):
    return lambda graph, eqn, *values: graph.broadcast(op, *values, dtype=dtype)


RULES.update((name, _elementwise(op)) for name, op in _SAME.items())
RULES.update((name, _elementwise(op, np.bool_)) for name, op in _COMPARISONS.items())


@rule("add")
def _add(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    for zero, other in ((x, y), (y, x)):
        if zero.array is not None and not zero.array.any() and len(other.shape) >= len(zero.shape):
            if broadcast_shapes(zero.shape, other.shape) == other.shape:
                return other
    return graph.broadcast("Add", x, y)


@rule(*_LOGICAL)
def _logical(graph: Graph, eqn: Any, *values: Value) -> Value:
    if values[0].dtype != np.bool_:
        raise unsupported(eqn, "of integers")
    return graph.broadcast(_LOGICAL[eqn.primitive.name], *values)


# Kahan's forms, exact to rounding near zero, where exp(x) - 1 loses all digits.
def _expm1(x, **_):
    u = jnp.exp(x)
    ratio = (u - 1) * x / jnp.log(jnp.where((u == 1) | (u == 0) | jnp.isinf(u), 2, u))
    return jnp.where(u == 1, x, jnp.where((u == 0) | jnp.isinf(u), u - 1, ratio))


def _log1p(x, **_):
    u = 1 + x
    return jnp.where((u == 1) | jnp.isinf(u), x, jnp.log(u) * (x / jnp.where(u == 1, 1, u - 1)))


def _round_away(x, **_):
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)


def _integer_pow(x, *, y):
    if y < 0:
        return 1 / _integer_pow(x, y=-y)
    result, square = None, x
    while y:
        if y % 2:
            result = square if result is None else result * square
        square, y = square * square, y // 2
    return jnp.ones_like(x) if result is None else result


def _running(combine, neutral=None):
    """A cumulative operation as a loop, which becomes a Scan."""

    def run(x, *, axis, reverse):
        moved = jnp.moveaxis(x, axis, 0)

        def step(carry, x):
            carry = combine(carry, x)
            return carry, carry

        # Without a neutral element it is idempotent, so the first may be combined twice.
        first = moved[-1 if reverse else 0]
        first = first if neutral is None else jnp.full_like(first, neutral)
        _, ys = jax.lax.scan(step, first, moved, reverse=reverse)
        return jnp.moveaxis(ys, 0, axis)

    return run


def _stack(*xs, axis):
    return jnp.concatenate([jax.lax.expand_dims(x, (axis,)) for x in xs], axis)


def _unstack(x, *, axis):
    return [jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]


_DEFINITIONS = {
    "cummax": _running(jnp.maximum),
    "cummin": _running(jnp.minimum),
    "cumprod": _running(jnp.multiply, 1),
    "clamp": lambda low, x, high: jnp.minimum(jnp.maximum(x, low), high),
    "cbrt": lambda x, **_: jnp.sign(x) * jnp.abs(x) ** (1 / 3),
    "erfc": lambda x, **_: 1 - jax.lax.erf(x),
    "exp2": lambda x, **_: jnp.exp(x * np.log(2).astype(x.dtype)),
    "expm1": _expm1,
    "integer_pow": _integer_pow,
    "is_finite": lambda x: (x < jnp.inf) & (x > -jnp.inf),
    "log1p": _log1p,
    "ne": lambda x, y: ~(x == y),
    "rsqrt": lambda x, **_: 1 / jnp.sqrt(x),
    "square": lambda x: x * x,
    "stack": _stack,
    "unstack": _unstack,
}
RULES.update((name, by_definition(function)) for name, function in _DEFINITIONS.items())


@rule("rem")
def _rem(graph: Graph, eqn: Any, x: Value, y: Value) -> Value:
    return graph.broadcast("Mod", x, y, fmod=1)


@rule("round")
def _round(graph: Graph, eqn: Any, value: Value) -> Any:
    if eqn.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        return graph.broadcast("Round", value)
    return by_definition(_round_away)(graph, eqn, value)


@rule("select_n")
def _select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Value:
    if which.dtype == np.bool_:
        return graph.broadcast("Where", which, cases[1], cases[0], dtype=cases[0].dtype)
    chosen = cases[0]
    for number, case in enumerate(cases[1:], start=1):
        here = graph.broadcast("Equal", which, constant(which.dtype.type(number)), dtype=np.bool_)
        chosen = graph.broadcast("Where", here, case, chosen, dtype=case.dtype)
    return chosen


@rule("copy", "copy_p", "stop_gradient")
def _same(graph: Graph, eqn: Any, value: Value) -> Value:
    return value


@rule("optimization_barrier")
def _all_same(graph: Graph, eqn: Any, *values: Value) -> list[Value]:
    return list(values)


@rule("convert_element_type")
def _convert(graph: Graph, eqn: Any, value: Value) -> Value:
    dtype = eqn.outvars[0].aval.dtype
    if np.issubdtype(dtype, np.complexfloating):
        dtype = np.finfo(dtype).dtype
    return graph.cast(value, dtype)


# Shapes ------------------------------------------------------------------------------------------


def _whole(graph: Graph, eqn: Any, *values: Value) -> list[Value]:
    return [graph.full(x, v.aval.shape) for x, v in zip(values, eqn.invars, strict=False)]


@rule("broadcast_in_dim", "expand_dims")
def _broadcast_in_dim(graph: Graph, eqn: Any, value: Value, *_: Any) -> Value:
    shape, kept = eqn.params["shape"], tuple(map(int, eqn.params["broadcast_dimensions"]))
    if kept == tuple(range(len(shape) - len(kept), len(shape))):
        return value  # new axes lead: the value broadcasts as it is
    (value,) = _whole(graph, eqn, value)
    sizes = [1] * len(shape)
    for axis, size in zip(kept, value.shape, strict=True):
        sizes[axis] = size
    if value.array is not None:
        return constant(value.array.reshape(sizes))
    axes = np.array([axis for axis in range(len(shape)) if axis not in kept], np.int64)
    return graph.add("Unsqueeze", value, constant(axes), shape=tuple(sizes))


@rule("reshape")
def _reshape(graph: Graph, eqn: Any, value: Value, *_: Any) -> Value:
    (value,) = _whole(graph, eqn, value)
    return graph.reshape(value, eqn.outvars[0].aval.shape)


@rule("squeeze")
def _squeeze(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    axes = constant(np.array(eqn.params["dimensions"], np.int64))
    return graph.add("Squeeze", value, axes, shape=eqn.outvars[0].aval.shape)


@rule("transpose")
def _transpose(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    perm = [int(axis) for axis in eqn.params["permutation"]]
    return graph.add("Transpose", value, shape=eqn.outvars[0].aval.shape, perm=perm)


@rule("concatenate")
def _concatenate(graph: Graph, eqn: Any, *values: Value) -> Value:
    values = tuple(_whole(graph, eqn, *values))
    shape, axis = eqn.outvars[0].aval.shape, int(eqn.params["dimension"])
    return graph.add("Concat", *values, shape=shape, axis=axis)


@rule("tile")
def _tile(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    repeats = graph.vector(eqn.params["reps"])
    return graph.add("Tile", value, repeats, shape=eqn.outvars[0].aval.shape)


@rule("split")
def _split(graph: Graph, eqn: Any, value: Value) -> list[Value]:
    (value,) = _whole(graph, eqn, value)
    sizes = constant(np.array(eqn.params["sizes"], np.int64))
    parts = [Value(value.dtype, v.aval.shape, graph.fresh("split")) for v in eqn.outvars]
    graph.nodes_of("Split", [value, sizes], parts, axis=int(eqn.params["axis"]))
    return parts


@rule("slice")
def _slice(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    params, rank = eqn.params, len(value.shape)
    bounds = [graph.vector(params[name]) for name in ("start_indices", "limit_indices")]
    more = [constant(np.arange(rank)), constant(np.array(params["strides"] or (1,) * rank))]
    return graph.add("Slice", value, *bounds, *more, shape=eqn.outvars[0].aval.shape)


@rule("rev")
def _rev(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    axes = np.array(eqn.params["dimensions"], np.int64)
    bounds = [np.full_like(axes, start) for start in (-1, np.iinfo(np.int64).min)]
    more = [*bounds, axes, np.full_like(axes, -1)]
    return graph.add("Slice", value, *map(constant, more), shape=value.shape)


@rule("pad")
def _pad(graph: Graph, eqn: Any, value: Value, filling: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    config = eqn.params["padding_config"]
    if any(interior for *_, interior in config):
        raise unsupported(eqn, "with interior padding")
    lows, highs, _ = zip(*config, strict=True)
    pads = constant(np.array([*lows, *highs], np.int64))
    return graph.add("Pad", value, pads, filling, shape=eqn.outvars[0].aval.shape)


@rule("iota")
def _iota(graph: Graph, eqn: Any) -> Value:
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    scalars = [constant(np.int64(0)), _scalar(graph, shape[axis]), constant(np.int64(1))]
    counts = graph.add("Range", *scalars, shape=(shape[axis],), dtype=np.int64)
    sizes = tuple(size if d == axis else 1 for d, size in enumerate(shape))[axis:]
    return graph.cast(graph.reshape(counts, sizes), eqn.params["dtype"])


@rule("dim_as_value")
def _dim_as_value(graph: Graph, eqn: Any) -> Value:
    return graph.cast(_scalar(graph, eqn.params["dim"]), eqn.outvars[0].aval.dtype)


def _scalar(graph: Graph, size: Any) -> Value:
    return graph.add("Squeeze", graph.size(size), shape=())


# Reductions --------------------------------------------------------------------------------------

_REDUCTIONS = {
    "reduce_sum": "ReduceSum",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_or": "ReduceMax",
    "reduce_and": "ReduceMin",
}


@rule(*_REDUCTIONS)
def _reduce(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    shape, axes = eqn.outvars[0].aval.shape, [int(axis) for axis in eqn.params["axes"]]
    op, dtype = _REDUCTIONS[eqn.primitive.name], value.dtype
    if not axes:
        return value
    if dtype == np.bool_:
        value = graph.cast(value, np.int32)
    if op == "ReduceSum":  # the axes became an input of this operator first
        sums = constant(np.array(axes, np.int64))
        return graph.add(op, value, sums, shape=shape, keepdims=0)
    return graph.cast(graph.add(op, value, shape=shape, axes=axes, keepdims=0), dtype)


@rule("top_k")
def _top_k(graph: Graph, eqn: Any, value: Value) -> list[Value]:
    (value,) = _whole(graph, eqn, value)
    shapes, axis = [v.aval.shape for v in eqn.outvars], eqn.params.get("axis", -1)
    count = constant(np.array([shapes[0][axis]], np.int64))
    found = Value(np.dtype(np.int64), shapes[1], graph.fresh("places"))
    largest = Value(value.dtype, shapes[0], graph.fresh("largest"))
    graph.nodes_of("TopK", [value, count], [largest, found], axis=int(axis))
    return [largest, graph.cast(found, eqn.outvars[1].aval.dtype)]


@rule("argmax", "argmin")
def _arg(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    (axis,) = map(int, eqn.params["axes"])
    op = {"argmax": "ArgMax", "argmin": "ArgMin"}[eqn.primitive.name]
    shape = eqn.outvars[0].aval.shape
    found = graph.add(op, value, shape=shape, dtype=np.int64, axis=axis, keepdims=0)
    return graph.cast(found, eqn.params["index_dtype"])


@rule("cumsum")
def _cumsum(graph: Graph, eqn: Any, value: Value) -> Value:
    (value,) = _whole(graph, eqn, value)
    axis = constant(np.int64(eqn.params["axis"]))
    reverse = int(eqn.params["reverse"])
    return graph.add("CumSum", value, axis, shape=value.shape, reverse=reverse)
