"""ONNX models of networks that its LSTM, GRU and RNN operators compute."""

from typing import Any

import jax
import numpy as np

from jaxrnn._typing import PyTree
from jaxrnn.convert.onnx import to_onnx as as_nodes
from jaxrnn.export._graph import Graph, Value, constant, finish
from jaxrnn.export._sequence import state_names
from jaxrnn.layers.recurrent import as_layer

_STATES = {"RNN": 1, "GRU": 1, "LSTM": 2}


def operators_model(network: Any, params: PyTree, *, carry: bool, lengths: bool) -> Any:
    """The model, or None if there is no operator for a cell, its dtype, or what joins the layers.

    Its inputs and outputs have the same names and shapes as those of a ``Scan``.
    """
    try:
        layers = as_nodes(network, params)
    except TypeError:
        return None
    dtype = np.dtype(layers[0]["W"].dtype)
    if dtype.name not in ("float16", "float32", "float64"):
        return None
    graph, layer = Graph(), as_layer(network, "network")
    state = jax.eval_shape(lambda params: layer.init_state(params, (1,)), params)
    names = iter(state_names(layer, state))
    inputs = [Value(dtype, ("time", "batch", layers[0]["W"].shape[-1]), "xs")]
    count, finals, current = None, [], inputs[0]
    initials: list[Value] = []
    if lengths:
        count = Value(np.dtype(np.int32), ("batch",), "lengths")
        inputs.append(count)
    for number, attributes in enumerate(layers):
        op_type = attributes.pop("op_type")
        kernels = {role: attributes.pop(role, None) for role in ("W", "R", "B", "P")}
        directions, hidden = len(kernels["W"]), attributes["hidden_size"]
        kinds = range(_STATES[op_type])
        own = [[next(names) for _ in kinds] for _ in range(directions)]
        shape, stacked = ("batch", hidden), (directions, "batch", hidden)
        taken: list[Value | None] = [None for _ in kinds]
        if carry:
            given = [[Value(dtype, shape, f"initial_{n}") for n in part] for part in own]
            initials += [value for part in given for value in part]
            axis = constant(np.array([0], np.int64))
            for kind in kinds:
                rows = [
                    graph.add("Unsqueeze", part[kind], axis, shape=(1, *shape)) for part in given
                ]
                taken[kind] = (
                    rows[0] if len(rows) == 1 else graph.add("Concat", *rows, shape=stacked, axis=0)
                )
        w, r, b, p = (None if kernel is None else constant(kernel) for kernel in kernels.values())
        roles = [current, w, r, b, count, *taken, *([p] if p is not None else [])]
        while roles[-1] is None:
            roles.pop()
        split = Value(dtype, ("time", directions, "batch", hidden), graph.fresh("by_direction"))
        last = [Value(dtype, stacked, graph.fresh("final")) for _ in kinds]
        node_name = f"layer{number}"
        graph.nodes_of(op_type, roles, [split, *last], node_name=node_name, **attributes)
        for place, part in enumerate(own):
            for kind in kinds:
                final = Value(dtype, shape, part[kind])
                graph.nodes_of("Gather", [last[kind], constant(np.int64(place))], [final])
                finals.append(final)
        turned = graph.add(
            "Transpose", split, shape=("time", "batch", directions, hidden), perm=[0, 2, 1, 3]
        )
        width = ("time", "batch", directions * hidden)
        is_last = number == len(layers) - 1
        merged = Value(dtype, width, "ys" if is_last else graph.fresh("ys"))
        whole = constant(np.array([0, 0, -1]))  # keep time and batch, merge the others
        graph.nodes_of("Reshape", [turned, whole], [merged])
        current = merged
    return finish(graph, [*inputs[:1], *initials, *inputs[1:]], [current, *finals])
