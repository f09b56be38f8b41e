"""A network over a whole sequence, as a function of named arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp

from jaxrnn import layers
from jaxrnn._cell import input_rank
from jaxrnn._typing import PyTree
from jaxrnn.engines import Hoisted
from jaxrnn.layers.recurrent import as_layer


class Sequence(NamedTuple):
    """A function ``call(params, inputs) -> outputs`` of arrays by name."""

    call: Callable[[PyTree, dict[str, Any]], dict[str, Any]]
    inputs: dict[str, jax.ShapeDtypeStruct]


def sequence(
    network: Any,
    params: PyTree,
    xs: PyTree,
    *,
    carry: bool = False,
    lengths: bool = False,
    mask: bool = False,
    starts: bool = False,
    static: tuple[str, ...] = (),
) -> Sequence:
    """The run of a network over a sequence; sizes of time and batch are symbolic.

    Args:
        network: a cell, a layer or a stack.
        params: its parameters, whose shapes and dtypes are read.
        xs: an example of the inputs, whose dtypes and last axes are read.
        carry: whether initial states are inputs.
        lengths: whether ``lengths`` is one.
        mask: whether ``mask`` is one.
        starts: whether ``starts`` is one.
        static: which of ``"time"`` and ``"batch"`` keep the size that xs has.

    Raises:
        ValueError: both lengths and mask are wanted, xs has more than one axis of a batch, or an
            axis that is neither time nor batch is static.
    """
    if not set(static) <= {"time", "batch"}:
        raise ValueError(f"static must hold 'time' or 'batch' or both, got {static!r}")
    if lengths and mask:
        raise ValueError("lengths and mask were both wanted; lengths is shorthand for a mask")
    layer = with_engine(as_layer(network, "network"), Hoisted())
    specs, time, batch = _symbolic(xs, input_rank(network), static)
    inputs = {path_name("xs", path): leaf for path, leaf in jax.tree.leaves_with_path(specs)}
    structure = jax.tree.structure(specs)
    count = len(inputs)
    state = jax.eval_shape(lambda params: layer.init_state(params, (batch,)), params)
    states = state_names(layer, state)
    if carry:
        leaves = zip(states, jax.tree.leaves(state), strict=True)
        inputs |= {f"initial_{n}": jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in leaves}
    if lengths:
        inputs["lengths"] = jax.ShapeDtypeStruct((batch,), jnp.int32)
    for flag, wanted in (("mask", mask), ("starts", starts)):
        if wanted:
            inputs[flag] = jax.ShapeDtypeStruct((time, batch), jnp.bool_)

    def call(params: PyTree, given: dict[str, Any]) -> dict[str, Any]:
        values = [given[name] for name in inputs]
        xs, initial = jax.tree.unflatten(structure, values[:count]), None
        if carry:
            carried = values[count : count + len(states)]
            initial = jax.tree.unflatten(jax.tree.structure(state), carried)
        options = {flag: given.get(flag) for flag in ("lengths", "mask", "starts")}
        final, ys = layer.apply(params, initial, xs, **options)
        outputs = {path_name("ys", path): y for path, y in jax.tree.leaves_with_path(ys)}
        leaves = zip(states, jax.tree.leaves(final), strict=True)
        return outputs | dict(leaves)

    return Sequence(call, inputs)


def _symbolic(xs: PyTree, rank: int, static: tuple[str, ...]) -> tuple[PyTree, Any, Any]:
    """The inputs with symbolic sizes, and the sizes of time and batch."""
    leaves = jax.tree.leaves(xs)
    for leaf in leaves:
        if len(leaf.shape) != rank + 2:
            raise ValueError(
                f"xs must have the axes time and batch before {rank} of features, got shape "
                f"{tuple(leaf.shape)}; a model has one axis of a batch"
            )
    names = [name for name in ("time", "batch") if name not in static]
    # At least 1: JAX must know that a loop over time runs.
    symbols = jax.export.symbolic_shape(
        ", ".join(names), constraints=[f"{name} >= 1" for name in names]
    )
    sizes = dict(zip(("time", "batch"), leaves[0].shape, strict=False))
    sizes |= dict(zip(names, symbols, strict=True))
    time, batch = sizes["time"], sizes["batch"]
    specs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((time, batch, *leaf.shape[2:]), leaf.dtype), xs
    )
    return specs, time, batch


def with_engine(layer: Any, engine: Any) -> Any:
    """The layer with this engine in it, in place of those that a user chose for training."""
    if isinstance(layer, layers.Recurrent):
        return dataclasses.replace(layer, engine=engine)
    if isinstance(layer, layers.Stack):
        parts = tuple(with_engine(part, engine) for part in layer.layers)
        return dataclasses.replace(layer, layers=parts)
    if isinstance(layer, layers.Bidirectional):
        forward, backward = (with_engine(part, engine) for part in (layer.forward, layer.backward))
        return dataclasses.replace(layer, forward=forward, backward=backward)
    return layer


def path_name(prefix: str, path: Any) -> str:
    """A name of a leaf: the fields, keys and indices of its path, joined by underscores."""
    parts = [getattr(k, "name", getattr(k, "key", getattr(k, "idx", k))) for k in path]
    return "_".join(str(part) for part in (*([prefix] if prefix else []), *parts))


def state_names(layer: Any, state: PyTree) -> list[str]:
    """Names of the leaves of a state, such as ``layer0_hidden`` or ``layer1_forward_cell``."""
    prefix = "layer" if isinstance(layer, layers.Stack) else "layer0_"
    found = [path_name("", path) for path, _ in jax.tree.leaves_with_path(state)]
    return [(prefix + name).rstrip("_") for name in found]
