"""Conversion from and to ONNX's RNN, LSTM and GRU nodes."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import (
    GRU,
    LSTM,
    Elman,
    PeepholeLSTM,
    PeepholeLSTMParams,
    ResetBeforeGRU,
    ResetBeforeGRUParams,
)
from jaxrnn.convert._arrays import Source, errors_name_file, reorder
from jaxrnn.convert._network import (
    Part,
    activation_name,
    assemble,
    gru_part_from_two_biases,
    levels,
    lstm_part,
    recurrent_bias,
    refuse,
    simple_part,
)

_GATES = {"RNN": ("g", "g"), "LSTM": ("iofg", "ifgo"), "GRU": ("zrn", "rzn")}  # theirs, ours
_ARRAYS = ("W", "R", "B", "P")
_RECURRENT = ("RNN", "LSTM", "GRU")
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_LAYOUT_ONLY = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
_DEFAULTS = {
    "RNN": ["Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
}


@errors_name_file
def from_onnx(source: Any, *, node: str | None = None) -> tuple[Any, PyTree]:
    """Reads the RNN, LSTM and GRU nodes of an ONNX graph.

    ONNX has the gates of an LSTM in the order i, o, f, c, its peepholes i, o, f, and the gates of
    a GRU z, r, h. Its two biases are summed, except for the candidate's in a GRU with
    ``linear_before_reset=1``. That GRU gives `GRU`, ``linear_before_reset=0`` gives
    `ResetBeforeGRU`, and an LSTM with peepholes gives `PeepholeLSTM`.

    Args:
        source: an ``onnx.ModelProto`` or its path, whose recurrent nodes form one stack; or one
            node as a mapping, or a sequence of them: ``op_type``, the arrays ``W``, ``R`` and
            optionally ``B`` and ``P``, and the node's attributes.
        node: the name of the node to read; None reads all recurrent nodes of a model.

    Returns:
        ``(network, params)``: a cell, a layer (by ``direction``), or `layers.Stack`. Sequences are
        time-major for every ``layout``.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others; a
            node has an attribute without a counterpart (``clip``, ``input_forget``, other
            activations); the nodes of the graph do not form a stack.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> node = {"op_type": "GRU", "W": np.ones((1, 12, 3)), "R": np.ones((1, 12, 4))}
        >>> rnn.convert.from_onnx(node)[0]
        ResetBeforeGRU(hidden_size=4)
    """
    if isinstance(source, Mapping):
        nodes = [source]
    elif isinstance(source, list | tuple):
        nodes = source
    else:
        nodes = nodes_of(os.fspath(source) if isinstance(source, os.PathLike) else source, node)
    if not nodes:
        raise ValueError("source must hold at least one RNN, LSTM or GRU node, got none")
    stack = [_read_node(node) for node in nodes]
    return assemble(stack, reverse=[node.get("direction") == "reverse" for node in nodes])


def to_onnx(network: Any, params: PyTree) -> list[dict[str, Any]]:
    """Writes ONNX nodes as mappings; `jaxrnn.export.to_onnx` builds a whole model.

    jaxrnn's bias becomes the first half of ``B``; the second half is zero except for the candidate
    bias of a GRU.

    Args:
        network: a cell, or layers, of `Elman`, `LSTM`, `PeepholeLSTM`, `GRU` or `ResetBeforeGRU`.
        params: its parameters.

    Returns:
        One mapping per layer: ``op_type``, NumPy arrays ``W``, ``R``, ``B`` and optionally ``P``,
        and the node's attributes.

    Raises:
        TypeError: ONNX has no operator for a cell, or for the pair of cells of one layer.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LSTM(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> (node,) = rnn.convert.to_onnx(cell, params)
        >>> node["op_type"], node["direction"], node["W"].shape
        ('LSTM', 'forward', (1, 16, 3))
    """
    nodes = []
    for level in levels("ONNX", network, params):
        written = [_write(part) for part in level.parts]
        first = written[0]
        for other in written[1:]:
            if other[0] != first[0] or other[1] != first[1] or other[2].keys() != first[2].keys():
                raise TypeError(
                    "an ONNX node has cells of one type in both directions, got "
                    f"{level.parts[0].cell!r} and {level.parts[1].cell!r}"
                )
        op_type, attributes, _ = first
        directions = len(written)
        activations = attributes.pop("activations", None)
        node: dict[str, Any] = {"op_type": op_type, "hidden_size": level.parts[0].cell.hidden_size}
        node["direction"] = (
            "bidirectional" if directions == 2 else "reverse" if level.reverse else "forward"
        )
        node.update(attributes)
        if activations:
            node["activations"] = activations * directions
        for name in first[2]:
            node[name] = np.stack([np.asarray(arrays[name]) for _, _, arrays in written])
        nodes.append(node)
    return nodes


def _read_node(node: Mapping[str, Any]) -> list[Part]:
    """The one or two cells of a node."""
    op_type = node.get("op_type")
    if op_type not in _GATES:
        raise ValueError(f"op_type must be one of {', '.join(_GATES)}, got {op_type!r}")
    weights = Source(f"ONNX {op_type}", {k: node[k] for k in _ARRAYS if node.get(k) is not None})
    attributes = {k: v for k, v in node.items() if k not in (*_ARRAYS, "op_type", "layout", "name")}
    direction = attributes.pop("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"direction must be forward, reverse or bidirectional, got {direction!r}")
    count = 2 if direction == "bidirectional" else 1
    gates = len(_GATES[op_type][0])
    *_, hidden = weights.shape("R", "directions", "gates * hidden", "hidden")
    *_, inputs = weights.shape("W", "directions", "gates * hidden", "input")
    if attributes.pop("hidden_size", hidden) != hidden:
        raise ValueError(
            f"R must have shape [directions, gates * hidden, hidden] with hidden_size="
            f"{node['hidden_size']}, got {list(weights.left['R'].shape)}"
        )
    rows = gates * hidden
    w = weights.take("W", count, rows, inputs)
    r = weights.take("R", count, rows, hidden)
    b = weights.take_or_zeros("B", count, 2 * rows)
    peepholes = None
    if op_type == "LSTM" and "P" in weights:
        peepholes = weights.take("P", count, 3 * hidden)
    weights.close()
    activation = _read_activations(op_type, count, attributes.pop("activations", None))
    after = attributes.pop("linear_before_reset", 0) if op_type == "GRU" else 0
    for name, value in attributes.items():
        if not (name == "input_forget" and op_type == "LSTM" and value == 0):
            raise ValueError(
                f"attribute {name} of ONNX {op_type} must be absent, because no cell supports it, "
                f"got {value!r}"
            )
    return [
        _read(
            op_type,
            w[d],
            r[d],
            b[d],
            peepholes[d] if peepholes is not None else None,
            activation,
            after,
        )
        for d in range(count)
    ]


def _read_activations(op_type: str, count: int, given: Sequence[str] | None) -> str:
    """The activation of an RNN; the other operators must have their default activations."""
    names = [a.decode() if isinstance(a, bytes) else a for a in given or _DEFAULTS[op_type] * count]
    allowed = [_DEFAULTS[op_type] * count]
    if op_type == "RNN":
        allowed.append(["Relu"] * count)
    if names not in allowed:
        raise ValueError(
            f"activations of ONNX {op_type} must be {' or '.join(map(str, allowed))}, got {names}"
        )
    return names[0].lower()


def _read(op_type, w, r, b, peepholes, activation, after) -> Part:
    """One direction; ONNX has transposed kernels ``[gates * hidden, input]``."""
    theirs, ours = _GATES[op_type]
    hidden = r.shape[-1]
    w, r = (reorder(array, theirs, ours, axis=0).T for array in (w, r))
    b_w, b_r = (reorder(half, theirs, ours) for half in jnp.split(b, 2))
    if op_type == "RNN":
        return simple_part(w, r, b_w + b_r, activation)
    if op_type == "GRU" and after:
        return gru_part_from_two_biases(w, r, b_w, b_r)
    if op_type == "GRU":
        return Part(ResetBeforeGRU(hidden), ResetBeforeGRUParams(w, r, b_w + b_r))
    if peepholes is None:
        return lstm_part(w, r, b_w + b_r)
    return Part(
        PeepholeLSTM(hidden),
        PeepholeLSTMParams(w, r, b_w + b_r, reorder(peepholes, "iof", "ifo")),
    )


def _write(part: Part) -> tuple[str, dict[str, Any], dict[str, Array]]:
    """The operator, its attributes and its arrays for one direction."""
    cell, params = part
    attributes: dict[str, Any] = {}
    if isinstance(cell, Elman):
        op_type = "RNN"
        attributes["activations"] = [activation_name("ONNX", cell).title()]
    elif isinstance(cell, LSTM | PeepholeLSTM):
        op_type = "LSTM"
    elif isinstance(cell, GRU | ResetBeforeGRU):
        op_type = "GRU"
        attributes["linear_before_reset"] = int(isinstance(cell, GRU))
    else:
        raise refuse("ONNX", cell, (Elman, LSTM, PeepholeLSTM, GRU, ResetBeforeGRU))
    theirs, ours = _GATES[op_type]
    arrays = {
        "W": reorder(params.input_kernel, ours, theirs).T,
        "R": reorder(params.recurrent_kernel, ours, theirs).T,
        "B": jnp.concatenate(
            [reorder(b, ours, theirs) for b in (params.bias, recurrent_bias(part))]
        ),
    }
    if isinstance(cell, PeepholeLSTM):
        arrays["P"] = reorder(params.peephole_kernel, "ifo", "iof")
    return op_type, attributes, arrays


def nodes_of(source: Any, name: str | None) -> list[dict[str, Any]]:
    """The recurrent nodes of a model as mappings, in graph order."""
    import onnx

    model = source
    if isinstance(source, str):
        try:
            model = onnx.load(source)
        except OSError:
            raise
        except Exception as error:  # protobuf's own DecodeError, of whichever implementation
            raise ValueError(f"{source} must be a complete ONNX model, got: {error}") from error
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(
            "source must be an onnx.ModelProto, its path, a node as a mapping or a sequence of "
            f"such nodes, got {type(source).__name__}"
        )
    graph = model.graph
    constants = {tensor.name: _array(onnx, tensor, tensor.name) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and node.output:
                constants[node.output[0]] = _array(onnx, attribute.t, node.output[0])
    found = [node for node in graph.node if node.op_type in _RECURRENT]
    if name is not None:
        names = [node.name for node in found]
        if names.count(name) != 1:
            raise ValueError(f"node must name one recurrent node of {names}, got {name!r}")
        found = [found[names.index(name)]]
    else:
        _check_chain(graph, found)
    return [_as_mapping(onnx, node, constants) for node in found]


def _array(onnx: Any, tensor: Any, name: str) -> np.ndarray:
    """The array of a tensor; data outside of a model's folder are never read."""
    try:
        return onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # of many kinds: an unknown type, too few bytes, another file
        raise ValueError(f"the constant {name!r} of the model cannot be read: {error!r}") from error


def _check_chain(graph: Any, found: list[Any]) -> None:
    """Raises unless the input of each recurrent node is the output of the one before it."""
    makers = {output: (i, node) for node in graph.node for i, output in enumerate(node.output)}
    for before, after in zip(found, found[1:], strict=False):
        index, maker = makers.get(after.input[0], (0, None))
        while maker is not None and maker.op_type in _LAYOUT_ONLY:
            index, maker = makers.get(maker.input[0], (0, None))
        if maker is not before or index != 0:
            what = f"{maker.op_type} {maker.name!r}" if maker is not None else "a graph input"
            what = f"output {index} of {what}" if index else what
            raise ValueError(
                f"the recurrent nodes must form one stack, but the input of {after.op_type} "
                f"{after.name!r} is {what}, not output 0 of {before.op_type} {before.name!r}; read "
                "the nodes one by one with node=..."
            )


def _as_mapping(onnx: Any, node: Any, constants: dict[str, np.ndarray]) -> dict[str, Any]:
    mapping: dict[str, Any] = {"op_type": node.op_type, "name": node.name}
    for attribute in node.attribute:
        try:
            value = onnx.helper.get_attribute_value(attribute)
            mapping[attribute.name] = value.decode() if isinstance(value, bytes) else value
        except ValueError as error:  # an unknown type, or no UTF-8
            raise ValueError(
                f"attribute {attribute.name!r} of {node.op_type} {node.name!r} cannot be read: "
                f"{error}"
            ) from error
    for role, name in zip(_INPUTS, node.input, strict=False):
        if not name:
            continue
        if role in ("W", "R", "B", "P"):
            if name not in constants:
                raise ValueError(
                    f"{role} of {node.op_type} {node.name!r} must be an initializer of the graph, "
                    f"got {name!r}, which is computed or a graph input"
                )
            mapping[role] = constants[name]
        elif role.startswith("initial") and np.any(constants.get(name, 0)):
            raise ValueError(
                f"{role} of {node.op_type} {node.name!r} is a nonzero constant, which a cell does "
                "not have; remove it, and pass it to unroll as the state"
            )
    return mapping
