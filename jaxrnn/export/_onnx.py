"""ONNX models of networks and of functions."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxrnn._typing import PyTree
from jaxrnn.export import (  # noqa: F401, the rules
    _complex,
    _contractions,
    _control,
    _elementwise,
    _indexing,
)
from jaxrnn.export._graph import Graph, Value, finish
from jaxrnn.export._operators import operators_model
from jaxrnn.export._sequence import path_name, sequence
from jaxrnn.export._translate import Pair, inline, trace


def to_onnx(
    network: Any,
    params: PyTree,
    *,
    x: PyTree = None,
    carry: bool = False,
    lengths: bool = False,
    mask: bool = False,
    starts: bool = False,
    operators: bool = True,
) -> Any:
    """Exports a cell, a layer or a stack as an ONNX model that contains its weights.

    Networks of LSTM, GRU and RNN layers become ONNX's operators, where these compute the same. Any
    other network, of cells of the user too, becomes a ``Scan`` whose body is the loop of its
    schedule: what depends on parameters only is computed now, and what depends on inputs only for
    all time steps at once, before the ``Scan``. The model computes ``network.apply`` without a key.

    Args:
        network: a cell, a layer or a stack.
        params: its parameters.
        x: one step's input ``[batch, ...]`` or its `jax.ShapeDtypeStruct`; dtypes and last axes
            are read, since time and batch of the model are dynamic. None reads them off the
            parameters of a network that has an ``input_kernel``.
        carry: whether the model also takes initial states; otherwise they are the network's own.
        lengths: whether the model also takes ``lengths``, int32 ``[batch]``. ONNX's reference
            evaluator ignores those of LSTM, GRU and RNN operators.
        mask: whether it takes ``mask``, bool ``[time, batch]``.
        starts: whether it takes ``starts``, bool ``[time, batch]``.
        operators: whether LSTM, GRU and RNN operators are used; otherwise every cell is a ``Scan``.

    Shapes:
        Inputs ``xs`` and, as wanted, ``initial_*``, ``lengths``, ``mask`` and ``starts``; outputs
        ``ys`` and the states after the sequence, whose names are the layer and the path in its
        state: ``layer0_hidden``, ``layer1_forward_cell``; initial states are ``initial_`` and the
        same. An input that is a pytree has a name for each leaf, ``xs_0``. Complex states have two,
        ``_real`` and ``_imag``.

    Returns:
        An ``onnx.ModelProto`` that passed ``onnx.checker``; ``onnx.save(model, path)`` writes it.

    Raises:
        TypeError: a primitive of a step has no translation, which is named with the line of the
            cell that uses it.
        ValueError: ``x`` is needed, or has wrong axes; or both lengths and mask are wanted.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> stack = rnn.layers.Stack((rnn.GRU(8), rnn.MinGRU(8)))
        >>> params = stack.init(jax.random.key(0), input_size=3)
        >>> x = jax.numpy.zeros((1, 3))
        >>> model = rnn.export.to_onnx(stack, params, x=x, carry=True)  # doctest: +SKIP
        >>> onnx.save(model, "stack.onnx")  # doctest: +SKIP
    """
    if operators and not (mask or starts):
        model = operators_model(network, params, carry=carry, lengths=lengths)
        if model is not None:
            return model
    if x is None:
        x = _example(params)
    xs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), x)
    options: Any = dict(carry=carry, lengths=lengths, mask=mask, starts=starts)
    run = sequence(network, params, xs, **options)
    return function_to_onnx(lambda **inputs: run.call(params, inputs), **run.inputs)


def function_to_onnx(function: Callable[..., Mapping[str, Any]], **inputs: PyTree) -> Any:
    """Exports a function of arrays, such as a whole model around recurrent layers.

    Arrays that the function closes over become constants of the model. For symbolic sizes, layers
    need the engine ``Auto`` or ``Hoisted``.

    Args:
        function: ``function(**inputs) -> {name: output}``. An input or output that is a pytree has
            a name for each leaf: ``initial_0_hidden``.
        **inputs: a `jax.ShapeDtypeStruct` for each argument, or a pytree of them, whose sizes may
            be symbolic, from `jax.export.symbolic_shape`; each symbol must be the size of an axis
            of an input.

    Returns:
        An ``onnx.ModelProto`` that passed ``onnx.checker``.

    Raises:
        TypeError: a primitive has no translation, which is named with the line that uses it.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> time, batch = jax.export.symbolic_shape("time, batch")
        >>> xs = jax.ShapeDtypeStruct((time, batch, 3), "float32")
        >>> def shifted(xs):
        ...     return {"ys": xs + 1}
        >>> model = rnn.export.function_to_onnx(shifted, xs=xs)  # doctest: +SKIP
    """
    specs = _named(inputs)
    structure = jax.tree.structure(list(inputs.values()))  # of a dict, it would be sorted by name
    names: list[str] = []

    def flat(*arrays: Any) -> list[Any]:
        trees = jax.tree.unflatten(structure, arrays)
        outputs = _named(function(**dict(zip(inputs, trees, strict=True))))
        names[:] = outputs
        return list(outputs.values())

    closed = trace(flat, *specs.values())
    graph, values, taken, given = Graph(), [], [], []
    for name, spec in specs.items():
        parts = _parts(name, spec)
        taken += parts
        values.append(parts[0] if len(parts) == 1 else Pair(*parts))
        for axis, size in enumerate(spec.shape):
            if str(size).isidentifier():
                graph.define_size(str(size), parts[0], axis)
    results = inline(graph, closed, values)
    for name, result, aval in zip(names, results, closed.out_avals, strict=True):
        computed = result.parts if isinstance(result, Pair) else (result,)
        named = _parts(name, aval)
        for part, output in zip(computed, named, strict=True):
            graph.nodes_of("Identity", [graph.full(part, aval.shape)], [output])
        given += named
    return finish(graph, taken, given)


def _named(trees: Mapping[str, PyTree]) -> dict[str, Any]:
    """The leaves of trees by name."""
    return {
        path_name(name, path): leaf
        for name, tree in trees.items()
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _parts(name: str, spec: Any) -> list[Value]:
    """The real arrays that stand for an array."""
    if not np.issubdtype(spec.dtype, np.complexfloating):
        return [Value(np.dtype(spec.dtype), tuple(spec.shape), name)]
    dtype = np.finfo(spec.dtype).dtype
    return [Value(dtype, tuple(spec.shape), f"{name}_{part}") for part in ("real", "imag")]


def _example(params: PyTree) -> jax.ShapeDtypeStruct:
    """Inputs of the size that the first input kernel takes."""
    for path, leaf in jax.tree.leaves_with_path(params):
        if path and getattr(path[-1], "name", None) == "input_kernel" and leaf.ndim == 2:
            return jax.ShapeDtypeStruct((1, leaf.shape[0]), leaf.dtype)
    raise ValueError(
        "x must be an example of one step's input, because the parameters of this network do not "
        "tell its size; pass e.g. x=jax.ShapeDtypeStruct((1, features), 'float32')"
    )
