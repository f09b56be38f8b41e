"""Translation of a jaxpr to ONNX, equation by equation.

Equations of constants alone are evaluated, so what depends on parameters only is computed before
the model is written. A complex array is a pair of real ones. bfloat16 is computed in float32 and
rounded after each equation, since runtimes have few operators for it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.extend.source_info_util
import numpy as np

from jaxrnn._schedule.partition import live
from jaxrnn._schedule.trace import evaluate, is_literal, with_source
from jaxrnn.export._graph import FLOAT32, Graph, Value, constant, is_static

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
COMPLEX_RULES: dict[str, Rule] = {}
# Calls that are translated as if their equations stood in the caller.
CALLS = frozenset(
    "jit pjit closed_call core_call remat2 checkpoint custom_jvp_call custom_vjp_call "
    "custom_vjp_call_jaxpr composite".split()
)
# Rules that move elements, whatever they are; and linear ones, which apply to each part of a
# complex array too.
MOVES = frozenset(
    "broadcast_in_dim concatenate convert_element_type copy copy_p dynamic_slice "
    "dynamic_update_slice expand_dims gather optimization_barrier reshape rev scatter select_n "
    "slice split squeeze stack stop_gradient tile transpose unstack".split()
)
LINEAR = frozenset(["add", "cumsum", "neg", "reduce_sum", "scatter-add", "sub"])
CONTROL = frozenset(["scan", "cond", "while"])  # whose rules take pairs
BFLOAT16 = np.dtype(jax.numpy.bfloat16)


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A complex value."""

    real: Value
    imag: Value

    @property
    def parts(self) -> tuple[Value, Value]:
        """Both parts."""
        return self.real, self.imag


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers the rule of some primitives: ``(graph, eqn, *values) -> value or values``."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def by_definition(function: Callable) -> Rule:
    """A rule from a definition by other primitives: ``function(*arrays, **params)``."""

    def apply(graph: Graph, eqn: Any, *values: Any) -> Any:
        def traced(*arrays):
            return function(*arrays, **eqn.params)

        avals = [
            jax.ShapeDtypeStruct(v.aval.shape, getattr(value, "dtype", v.aval.dtype))
            for value, v in zip(values, eqn.invars, strict=True)
        ]  # a value may be one part of a complex array, or wider than bfloat16
        return inline(graph, trace(traced, *avals), values)

    return apply


def trace(function: Callable, *avals: Any) -> Any:
    """The closed jaxpr of a function for shapes that may be symbolic."""
    specs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    return jax.jit(function).trace(*specs).jaxpr


def inline(graph: Graph, closed: Any, values: Sequence[Any]) -> list[Any]:
    """Translates a closed jaxpr into a graph."""
    jaxpr, constants = opened(closed)
    return translate(graph, jaxpr, [*map(known, constants), *values])


def opened(closed: Any) -> tuple[jex.Jaxpr, Sequence[Any]]:
    """A jaxpr whose constants are its first inputs, and their values."""
    if isinstance(closed, jex.ClosedJaxpr):
        jaxpr, constants = closed.jaxpr, closed.consts
    else:
        jaxpr, constants = closed, ()
    inputs = [*jaxpr.constvars, *jaxpr.invars]
    return jaxpr.replace(constvars=(), invars=inputs), constants


def known(array: Any) -> Value | Pair:
    """A constant; of complex numbers, a pair."""
    array = np.asarray(array)
    if np.issubdtype(array.dtype, np.complexfloating):
        return Pair(constant(array.real), constant(array.imag))
    return constant(array)


def translate(graph: Graph, jaxpr: Any, values: Sequence[Any]) -> list[Any]:
    """Adds the equations of a jaxpr to a graph; returns the values of its outputs."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], values, strict=True))

    def read(var: Any) -> Any:
        return known(np.asarray(var.val, var.aval.dtype)) if is_literal(var) else env[var]

    for eqn in live(jaxpr.eqns, jaxpr.outvars):
        results = _translate_eqn(graph, jaxpr, eqn, [read(v) for v in eqn.invars])
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _translate_eqn(graph: Graph, jaxpr: Any, eqn: Any, values: list) -> list[Any]:
    name = eqn.primitive.name
    arrays = [_array(value) for value in values]
    shapes = [v.aval.shape for v in eqn.outvars]
    if all(array is not None for array in arrays) and all(map(is_static, shapes)):
        if not eqn.effects and not name.startswith(("random", "dim_as_value")):
            return _evaluated(jaxpr, eqn, arrays)
    inner = next((eqn.params[k] for k in ("jaxpr", "call_jaxpr") if k in eqn.params), None)
    if name in CALLS and inner is not None:
        called, constants = opened(inner)
        return translate(graph, with_source(called, eqn), [*map(known, constants), *values])
    is_complex = any(isinstance(value, Pair) for value in values) or any(
        np.issubdtype(v.aval.dtype, np.complexfloating) for v in eqn.outvars
    )
    if is_complex and name not in CONTROL:
        return _complex(graph, eqn, values)
    if name not in RULES:
        raise unsupported(eqn)
    narrow = name not in MOVES | CONTROL and any(
        value.dtype == BFLOAT16 for value in values if isinstance(value, Value)
    )
    if narrow:
        values = [graph.cast(v, FLOAT32) if v.dtype == BFLOAT16 else v for v in values]
    results = RULES[name](graph, eqn, *values)
    results = list(results) if isinstance(results, list | tuple) else [results]
    if narrow or name == "dot_general":
        results = [
            graph.cast(value, v.aval.dtype) for value, v in zip(results, eqn.outvars, strict=True)
        ]
    return results


def _array(value: Any) -> np.ndarray | None:
    if not isinstance(value, Pair):
        return value.array
    real, imag = (part.array for part in value.parts)
    return None if real is None or imag is None else real + 1j * imag


def _evaluated(jaxpr: Any, eqn: Any, arrays: list) -> list[Any]:
    """The results of an equation whose operands are constants."""
    free, args = [], []
    for v, array in zip(eqn.invars, arrays, strict=True):
        if not is_literal(v) and v not in free:
            free.append(v)
            args.append(jax.numpy.asarray(np.broadcast_to(array, v.aval.shape), v.aval.dtype))
    return list(map(known, evaluate(jaxpr, [eqn], free, eqn.outvars, args)))


def _complex(graph: Graph, eqn: Any, values: list) -> list[Any]:
    name = eqn.primitive.name
    if name in COMPLEX_RULES:
        results = COMPLEX_RULES[name](graph, eqn, *values)
        return list(results) if isinstance(results, list | tuple) else [results]
    if name not in MOVES | LINEAR:
        raise unsupported(eqn)
    parts = []
    for part in (0, 1):
        own = [value.parts[part] if isinstance(value, Pair) else value for value in values]
        results = RULES[name](graph, eqn, *own)
        parts.append(list(results) if isinstance(results, list | tuple) else [results])
    return [Pair(*both) for both in zip(*parts, strict=True)]


def unsupported(eqn: Any, what: str = "") -> TypeError:
    """The error for an equation that has no translation."""
    where = jax.extend.source_info_util.summarize(eqn.source_info)
    reason = f" {what}" if what else ""
    remedy = "write the step without it, or export by to_stablehlo"
    if eqn.primitive.name.startswith("random"):
        remedy = "an exported model is deterministic: pass no key"
    return TypeError(
        f"the primitive {eqn.primitive.name}{reason} has no translation to ONNX; it is used at "
        f"{where}; {remedy}"
    )
