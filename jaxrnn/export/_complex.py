"""ONNX rules of complex arithmetic, by the definitions on real and imaginary parts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.lax as lax
import jax.numpy as jnp
import numpy as np

from jaxrnn.export._graph import Graph, Value, constant
from jaxrnn.export._translate import COMPLEX_RULES, Pair, inline, trace


def _by_parts(function: Callable) -> Callable:
    """A rule from ``function(*operands, **params)``, where a complex operand is a tuple of two."""

    def apply(graph: Graph, eqn: Any, *values: Any) -> Any:
        flat, avals = [], []
        for value, v in zip(values, eqn.invars, strict=True):
            parts = value.parts if isinstance(value, Pair) else (value,)
            flat += parts
            avals += [jax.ShapeDtypeStruct(v.aval.shape, part.dtype) for part in parts]

        def traced(*arrays):
            left = iter(arrays)
            operands = [
                (next(left), next(left)) if isinstance(value, Pair) else next(left)
                for value in values
            ]
            return function(*operands, **eqn.params)

        results = inline(graph, trace(traced, *avals), flat)
        return Pair(*results) if len(results) == 2 else results

    return apply


# In lax, whose operations broadcast axes of size 1 where sizes are symbolic.
def _multiply(x, y, **_):
    (a, b), (c, d) = x, y
    return lax.sub(lax.mul(a, c), lax.mul(b, d)), lax.add(lax.mul(a, d), lax.mul(b, c))


def _divide(x, y):
    c, d = y
    scale = lax.add(lax.mul(c, c), lax.mul(d, d))
    return tuple(lax.div(part, scale) for part in _multiply(x, (c, lax.neg(d))))


def _dot(x, y, *, dimension_numbers, precision, **_):
    (a, b), (c, d) = x, y

    def dot(u, v):
        return lax.dot_general(u, v, dimension_numbers, precision=precision)

    return dot(a, c) - dot(b, d), dot(a, d) + dot(b, c)


def _exp(x, **_):
    return jnp.exp(x[0]) * jnp.cos(x[1]), jnp.exp(x[0]) * jnp.sin(x[1])


def _integer_pow(x, *, y):
    one = jnp.ones_like(x[0]), jnp.zeros_like(x[0])
    if y < 0:
        return _divide(one, _integer_pow(x, y=-y))
    return functools.reduce(_multiply, [x] * y, one)


def _equal(x, y):
    return (x[0] == y[0]) & (x[1] == y[1])


_DEFINITIONS = {
    "abs": lambda x: jnp.sqrt(x[0] * x[0] + x[1] * x[1]),
    "conj": lambda x, **_: (x[0], -x[1]) if isinstance(x, tuple) else (x, jnp.zeros_like(x)),
    "div": _divide,
    "dot_general": _dot,
    "eq": _equal,
    "exp": _exp,
    "integer_pow": _integer_pow,
    "mul": _multiply,
    "ne": lambda x, y: ~_equal(x, y),
    "square": lambda x: _multiply(x, x),
}
COMPLEX_RULES.update((name, _by_parts(function)) for name, function in _DEFINITIONS.items())


def _complex(graph: Graph, eqn: Any, real: Value, imag: Value) -> Pair:
    return Pair(real, imag)


def _real(graph: Graph, eqn: Any, value: Pair) -> Value:
    return value.real


def _imag(graph: Graph, eqn: Any, value: Pair) -> Value:
    return value.imag


def _convert(graph: Graph, eqn: Any, value: Any) -> Any:
    (out,) = eqn.outvars
    real, imag = value.parts if isinstance(value, Pair) else (value, None)
    dtype = jnp.finfo(out.aval.dtype).dtype
    real = graph.cast(real, dtype)
    if not jnp.issubdtype(out.aval.dtype, jnp.complexfloating):
        return real
    if imag is None:
        imag = constant(np.zeros((), dtype))
    return Pair(real, graph.cast(imag, dtype))


COMPLEX_RULES |= {
    "complex": _complex,
    "real": _real,
    "imag": _imag,
    "convert_element_type": _convert,
}
