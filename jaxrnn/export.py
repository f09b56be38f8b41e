"""Export of trained networks: a sequence model in ONNX, one step in StableHLO."""

from typing import Any

import jax
import jax.export
import numpy as np

from jaxrnn._cell import can_step, input_rank, is_stochastic
from jaxrnn._typing import PyTree
from jaxrnn.convert.onnx import to_onnx as _nodes

_OPSET, _IR_VERSION = 17, 8  # old enough for every runtime in use; the operators are of opset 14
_STATES = {"RNN": ("hidden",), "GRU": ("hidden",), "LSTM": ("hidden", "cell")}


def to_onnx(network: Any, params: PyTree, *, carry: bool = False, lengths: bool = False) -> Any:
    """Exports a cell, a layer or a stack as an ONNX model that contains its weights.

    Its input is ``xs [time, batch, features]``, its outputs are ``ys [time, batch, output_size]``
    and the final states, ``layer0_hidden [directions, batch, hidden]``, ``layer0_cell`` and so on.
    Time and batch are dynamic. The model computes ``network.apply`` without a key.

    Args:
        network: a cell, or layers, of `Elman` (tanh, ReLU), `LSTM`, `PeepholeLSTM`, `GRU` or
            `ResetBeforeGRU`; dropout between layers is omitted.
        params: its parameters.
        carry: whether the model also takes initial states, ``initial_layer0_hidden`` and so on,
            with the shapes of the final states; otherwise they are zero.
        lengths: whether the model also takes ``lengths``, int32 ``[batch]``. onnxruntime supports
            it; ONNX's reference evaluator ignores it.

    Returns:
        An ``onnx.ModelProto`` that passed ``onnx.checker``; ``onnx.save(model, path)`` writes it.

    Raises:
        TypeError: ONNX has no operator for a cell of the network, or for the dtype of its params.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> stack = rnn.layers.Stack((rnn.GRU(8), rnn.LSTM(8)))
        >>> params = stack.init(jax.random.key(0), input_size=3)
        >>> model = rnn.export.to_onnx(stack, params)  # doctest: +SKIP
        >>> onnx.save(model, "stack.onnx")  # doctest: +SKIP
    """
    import onnx
    from onnx import helper

    nodes, initializers, layers = [], [], _nodes(network, params)
    dtype = layers[0]["W"].dtype
    if dtype not in ("float16", "float32", "float64"):
        raise TypeError(
            "params must have dtype float16, float32 or float64, which ONNX's recurrent operators "
            f"take, got {dtype}; cast them"
        )
    element = helper.np_dtype_to_tensor_dtype(dtype)

    def value(name, shape, kind=element):
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [value("xs", ["time", "batch", layers[0]["W"].shape[-1]])]
    if lengths:
        inputs.append(value("lengths", ["batch"], onnx.TensorProto.INT32))
    final, current = [], "xs"
    merged = np.array([0, 0, -1])  # keep time and batch, merge directions and features
    initializers.append(onnx.numpy_helper.from_array(merged, "merged"))
    for index, layer in enumerate(layers):
        name, op_type = f"layer{index}", layer.pop("op_type")
        arrays = {role: layer.pop(role) for role in ("W", "R", "B", "P") if role in layer}
        for role, array in arrays.items():
            initializers.append(onnx.numpy_helper.from_array(array, f"{name}_{role}"))
        states = [f"{name}_{state}" for state in _STATES[op_type]]
        shape = [len(arrays["W"]), "batch", layer["hidden_size"]]
        taken = [f"initial_{state}" for state in states] if carry else [""] * len(states)
        inputs += [value(state, shape) for state in taken if state]
        final += [value(state, shape) for state in states]
        roles = [current, f"{name}_W", f"{name}_R", f"{name}_B", "lengths" if lengths else ""]
        roles += taken + ([f"{name}_P"] if "P" in arrays else [])
        while not roles[-1]:
            roles.pop()
        split = f"{name}_by_direction"  # [time, directions, batch, hidden]
        nodes.append(helper.make_node(op_type, roles, [split, *states], name=name, **layer))
        turned, current = f"{name}_turned", "ys" if index == len(layers) - 1 else f"{name}_ys"
        nodes.append(helper.make_node("Transpose", [split], [turned], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [turned, "merged"], [current]))
    width = len(arrays["W"]) * layer["hidden_size"]
    outputs = [value("ys", ["time", "batch", width]), *final]
    graph = helper.make_graph(nodes, "jaxrnn", inputs, outputs, initializers)
    model = helper.make_model(
        graph,
        producer_name="jaxrnn",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def to_stablehlo(
    network: Any, params: PyTree, x: Any, *, platforms: tuple[str, ...] | None = None
) -> jax.export.Exported:
    """Exports one step of a cell or a unidirectional stack as a program with its weights.

    Args:
        network: a cell, or layers that run forward in time.
        params: its parameters.
        x: one step's input or its `jax.ShapeDtypeStruct`; batch axes may be symbolic, from
            `jax.export.symbolic_shape`.
        platforms: the platforms to lower for, such as ``("cpu", "cuda")``; None is the current one.

    Returns:
        The exported function ``(state_leaves, x) -> (state_leaves, y)``, where ``state_leaves`` is
        ``tuple(jax.tree.leaves(state))``, so the caller does not need jaxrnn. ``.serialize()``
        (requires the package flatbuffers) returns bytes for `jax.export.deserialize`;
        ``.mlir_module()`` is the StableHLO text.

    Raises:
        TypeError: the network has no step function, because it needs the whole sequence.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.GRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> exported = rnn.export.to_stablehlo(cell, params, jnp.zeros((2, 3)))
        >>> state = cell.init_state(params, batch_shape=(2,))
        >>> leaves, y = exported.call(tuple(jax.tree.leaves(state)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)
    """
    if not can_step(network):
        raise TypeError(
            f"network must have a step function, got {network!r}, which needs the whole sequence; "
            "export its apply with jax.export instead"
        )
    rank = input_rank(network)
    first = jax.tree.leaves(x)[0]
    batch_shape = first.shape[: len(first.shape) - rank]
    state = jax.eval_shape(lambda: network.init_state(params, batch_shape))
    leaves, structure = jax.tree.flatten(state)

    @jax.jit
    def step(leaves, x):
        options = {"key": None} if is_stochastic(network) else {}
        new, y = network.step(params, jax.tree.unflatten(structure, leaves), x, **options)
        return tuple(jax.tree.leaves(new)), y

    specs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (tuple(leaves), x))
    return jax.export.export(step, platforms=platforms)(*specs)
