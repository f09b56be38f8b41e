"""ONNX rules of loops and branches: Scan, Loop and If, whose bodies read the graph around them.

And of linear solves with rules of their own, of which the solution is translated.
"""

from typing import Any

import numpy as np

from jaxrnn.export._graph import Graph, Value, constant, value_info
from jaxrnn.export._translate import Pair, inline, opened, rule


def _parts(value: Any) -> list[Value]:
    return list(value.parts) if isinstance(value, Pair) else [value]


def _join(values: list[Value], avals: Any) -> list[Any]:
    """Values as `_parts` gives them, as pairs where an array is complex."""
    left = iter(values)
    return [
        Pair(next(left), next(left))
        if np.issubdtype(aval.dtype, np.complexfloating)
        else next(left)
        for aval in avals
    ]


def _flat(values: Any, avals: Any, graph: Graph) -> list[Value]:
    """The parts of all values, whole."""
    return [
        graph.full(part, aval.shape)
        for value, aval in zip(values, avals, strict=True)
        for part in _parts(value)
    ]


def _inputs(body: Graph, avals: Any) -> list[Value]:
    """New inputs of a body."""
    inputs = []
    for aval in avals:
        is_complex = np.issubdtype(aval.dtype, np.complexfloating)
        dtype = np.finfo(aval.dtype).dtype if is_complex else np.dtype(aval.dtype)
        inputs += [Value(dtype, aval.shape, body.fresh("in")) for _ in range(1 + is_complex)]
    return inputs


def _make(body: Graph, inputs: list[Value], outputs: list[Value]) -> Any:
    """The graph of a body, each of whose outputs is a different result of its own."""
    from onnx import helper

    names, infos = [], []
    for value in outputs:
        if value.name not in body.made or value.name in names:
            value = body.add("Identity", value, shape=value.shape)
        names.append(value.name)
        infos.append(value_info(value))
    taken = list(map(value_info, inputs))
    return helper.make_graph(body.nodes, body.fresh("body"), taken, infos)


def _results(graph: Graph, op: str, inputs: list, avals: Any, **attributes: Any) -> list[Any]:
    results = _inputs(graph, avals)
    graph.nodes_of(op, inputs, results, **attributes)
    return _join(results, avals)


def _scan_sizes(eqn: Any, jaxpr: Any) -> tuple[int, int]:
    """The numbers of constants and of carried values, which have the same axes in every step.

    Read off the shapes, since releases of JAX differ in how parameters tell them.
    """
    outs = zip(eqn.outvars, jaxpr.outvars, strict=True)
    ins = zip(eqn.invars, jaxpr.invars[-len(eqn.invars) :], strict=True)
    carried = sum(v.aval.ndim == inner.aval.ndim for v, inner in outs)
    kept = sum(v.aval.ndim == inner.aval.ndim for v, inner in ins)
    return kept - carried, carried


@rule("scan")
def _scan(graph: Graph, eqn: Any, *values: Any) -> list[Any]:
    jaxpr, extra = opened(eqn.params["jaxpr"])
    jaxpr_avals = [v.aval for v in jaxpr.invars[len(extra) :]]
    outs = [v.aval for v in jaxpr.outvars]
    fixed, carried = _scan_sizes(eqn, jaxpr)
    avals = [v.aval for v in eqn.invars]
    middle = fixed + carried
    initial = _flat(values[fixed:middle], avals[fixed:middle], graph)
    sliced, held = [], {}
    for place in range(middle, len(values)):
        value = values[place]
        # An array that is the same at every step is read from outside.
        if isinstance(value, Value) and len(value.shape) < len(avals[place].shape):
            held[place] = value
        else:
            sliced.append(place)
    stacked = _flat([values[p] for p in sliced], [avals[p] for p in sliced], graph)
    body = Graph(graph)
    state = _inputs(body, jaxpr_avals[fixed:middle])
    slices = _inputs(body, [jaxpr_avals[place] for place in sliced])
    arguments = dict(enumerate(values[:fixed]))
    arguments.update(enumerate(_join(state, jaxpr_avals[fixed:middle]), start=fixed))
    joined = _join(slices, [jaxpr_avals[place] for place in sliced])
    arguments.update(zip(sliced, joined, strict=True))
    arguments.update(held)
    ordered = [arguments[place] for place in range(len(values))]
    results = _flat(inline(body, eqn.params["jaxpr"], ordered), outs, body)
    if not stacked:  # a Scan counts its steps by what it slices
        length = graph.vector((eqn.params["length"],))
        steps = graph.add("Expand", constant(np.zeros(1, np.int64)), length, shape=length.shape)
        stacked, slices = [steps], [Value(np.dtype(np.int64), (), body.fresh("in"))]
    reverse = int(eqn.params["reverse"])
    attributes: dict[str, Any] = {
        "body": _make(body, [*state, *slices], results),
        "num_scan_inputs": len(stacked),
    }
    if reverse:
        attributes["scan_input_directions"] = [1] * len(stacked)
        attributes["scan_output_directions"] = [1] * (len(results) - len(state))
        if not attributes["scan_output_directions"]:
            del attributes["scan_output_directions"]
    final = [v.aval for v in eqn.outvars]
    return _results(graph, "Scan", [*initial, *stacked], final, **attributes)


@rule("cond")
def _cond(graph: Graph, eqn: Any, index: Value, *values: Any) -> list[Any]:
    return _branch(graph, eqn, graph.cast(index, np.int64), 0, values)


def _branch(graph: Graph, eqn: Any, index: Value, number: int, values: Any) -> list[Any]:
    """The branches from a number on, as nested Ifs."""
    branches, avals = eqn.params["branches"], [v.aval for v in eqn.outvars]
    if number == len(branches) - 1:
        return inline(graph, branches[number], values)
    here = Graph(graph)
    first = _make(here, [], _flat(inline(here, branches[number], values), avals, here))
    there = Graph(graph)
    others = _branch(there, eqn, index, number + 1, values)
    rest = _make(there, [], _flat(others, avals, there))
    chosen = graph.broadcast("LessOrEqual", index, constant(np.int64(number)), dtype=np.bool_)
    return _results(graph, "If", [chosen], avals, then_branch=first, else_branch=rest)


@rule("custom_linear_solve")
def _linear_solve(graph: Graph, eqn: Any, *values: Any) -> list[Any]:
    lengths, jaxprs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    own = values[first : first + lengths.solve]
    return inline(graph, jaxprs.solve, [*own, *values[sum(lengths) :]])


@rule("while")
def _while(graph: Graph, eqn: Any, *values: Any) -> list[Any]:
    params, avals = eqn.params, [v.aval for v in eqn.outvars]
    fixed = params["cond_nconsts"], params["body_nconsts"]
    tests, fed = values[: fixed[0]], values[fixed[0] : sum(fixed)]
    initial = _flat(values[sum(fixed) :], avals, graph)
    (goes,) = inline(graph, params["cond_jaxpr"], [*tests, *_join(initial, avals)])
    body = Graph(graph)
    count = Value(np.dtype(np.int64), (), body.fresh("in"))
    before = Value(np.dtype(np.bool_), (), body.fresh("in"))
    state = _inputs(body, avals)
    new = _flat(inline(body, params["body_jaxpr"], [*fed, *_join(state, avals)]), avals, body)
    (again,) = inline(body, params["cond_jaxpr"], [*tests, *_join(new, avals)])
    loop = _make(body, [count, before, *state], [again, *new])
    return _results(graph, "Loop", [None, goes, *initial], avals, body=loop)
