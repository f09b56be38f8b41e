"""The recurrent nodes of an ONNX graph, as mappings."""

from typing import Any

import numpy as np

_RECURRENT = ("RNN", "LSTM", "GRU")
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_LAYOUT_ONLY = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")


def nodes_of(source: Any, name: str | None) -> list[dict[str, Any]]:
    """The recurrent nodes of a model, in the order in which they feed each other."""
    import onnx

    model = source
    if isinstance(source, str):
        try:
            model = onnx.load(source)
        except OSError:
            raise
        except Exception as error:  # protobuf's own DecodeError, of whichever implementation
            raise ValueError(f"{source} must be a whole ONNX model, got: {error}") from error
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(
            "source must be an onnx.ModelProto, the path of one, a node as a mapping or a sequence "
            f"of such nodes, got {type(source).__name__}"
        )
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    found = [node for node in graph.node if node.op_type in _RECURRENT]
    if name is not None:
        names = [node.name for node in found]
        if names.count(name) != 1:
            raise ValueError(f"node must name one recurrent node of {names}, got {name!r}")
        found = [found[names.index(name)]]
    else:
        _check_chain(graph, found)
    return [_as_mapping(onnx, node, constants) for node in found]


def _check_chain(graph: Any, found: list[Any]) -> None:
    """Raises unless each recurrent node is fed by the one before it, and by nothing else."""
    makers = {output: node for node in graph.node for output in node.output}
    for before, after in zip(found, found[1:], strict=False):
        maker = makers.get(after.input[0])
        while maker is not None and maker.op_type in _LAYOUT_ONLY:
            maker = makers.get(maker.input[0])
        if maker is not before:
            what = f"{maker.op_type} {maker.name!r}" if maker is not None else "an input"
            raise ValueError(
                f"the recurrent nodes must be one stack, but {after.op_type} {after.name!r} is fed "
                f"by {what}, not by {before.op_type} {before.name!r}; read them one by one with "
                "node=..."
            )


def _as_mapping(onnx: Any, node: Any, constants: dict[str, np.ndarray]) -> dict[str, Any]:
    mapping: dict[str, Any] = {"op_type": node.op_type, "name": node.name}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        mapping[attribute.name] = value.decode() if isinstance(value, bytes) else value
    for role, name in zip(_INPUTS, node.input, strict=False):
        if not name:
            continue
        if role in ("W", "R", "B", "P"):
            if name not in constants:
                raise ValueError(
                    f"{role} of {node.op_type} {node.name!r} must be an initializer of the graph, "
                    f"got {name!r}, which is computed or fed"
                )
            mapping[role] = constants[name]
        elif role.startswith("initial") and np.any(constants.get(name, 0)):
            raise ValueError(
                f"{role} of {node.op_type} {node.name!r} is a constant that is not zero, which a "
                "cell does not hold; take it out, and pass it to unroll as the state"
            )
    return mapping
