"""The networks that every framework has: stacks of layers with one or two directions."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrnn import layers
from jaxrnn._typing import Array, PyTree
from jaxrnn.activations import SAME, relu, tanh
from jaxrnn.cells import GRU, LSTM, Elman, ElmanParams, GRUParams, LSTMParams
from jaxrnn.layers.bidirectional import concatenate, reverse_layer
from jaxrnn.layers.recurrent import as_layer

ACTIVATIONS = {"tanh": tanh, "relu": relu}

Merge = Callable[[Any, Any], Any]


class Part(NamedTuple):
    """One cell with its parameters: one direction of one layer."""

    cell: Any  # any object of the caller until a converter accepts it
    params: PyTree


def simple_part(kernel: Array, recurrent: Array, bias: Array, activation: str) -> Part:
    """An Elman cell; kernels ``[input, hidden]`` and ``[hidden, hidden]``."""
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}"
        )
    cell = Elman(recurrent.shape[0], activation=ACTIVATIONS[activation])
    return Part(cell, ElmanParams(kernel, recurrent, bias))


def lstm_part(kernel: Array, recurrent: Array, bias: Array) -> Part:
    """An LSTM; gates in the order i, f, g, o on the last axis."""
    return Part(LSTM(recurrent.shape[0]), LSTMParams(kernel, recurrent, bias))


def gru_part(kernel: Array, recurrent: Array, bias: Array, candidate_bias: Array) -> Part:
    """A GRU of the reset-after form; gates in the order r, z, n on the last axis."""
    return Part(GRU(recurrent.shape[0]), GRUParams(kernel, recurrent, bias, candidate_bias))


def gru_part_from_two_biases(
    kernel: Array, recurrent: Array, bias: Array, recurrent_bias: Array
) -> Part:
    """A GRU of a framework with two biases ``[3 * hidden]``, summed except for the candidate's."""
    hidden = recurrent.shape[0]
    shared, candidate_bias = jnp.split(recurrent_bias, [2 * hidden])
    return gru_part(kernel, recurrent, bias + jnp.pad(shared, (0, hidden)), candidate_bias)


def recurrent_bias(part: Part) -> Array:
    """The second bias of a framework with two: zero except for the candidate bias of a GRU."""
    cell, params = part
    if isinstance(cell, GRU):
        return jnp.pad(params.candidate_bias, (2 * cell.hidden_size, 0))
    return jnp.zeros_like(params.bias)


def check_attributes(source: Any, given: Mapping[str, Any], handled: Collection[str]) -> None:
    """Raises unless the attributes that no converter handles have the defaults of their class.

    The attributes are read from the constructor, so that one of a newer release is refused too.
    """
    kind = type(source)
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in handled or name not in given or parameter.default is parameter.empty:
            continue
        if given[name] is not parameter.default and given[name] != parameter.default:
            raise ValueError(
                f"{name} of {kind.__name__} must be {parameter.default!r}, got {given[name]!r}, "
                "which has no counterpart in jaxrnn"
            )


def known_activation(function: Any) -> str | None:
    """The frameworks' name of an activation function."""
    return next((name for name, functions in SAME.items() if function in functions), None)


def activation_name(framework: str, cell: Elman) -> str:
    """The frameworks' name of an Elman cell's activation."""
    name = known_activation(cell.activation)
    if name is not None:
        return name
    raise TypeError(
        f"{framework} takes an Elman cell whose activation is jaxrnn.activations.tanh or relu, got "
        f"activation={cell.activation!r}"
    )


def refuse(framework: str, cell: Any, known: Sequence[type]) -> TypeError:
    """The error for a cell without a counterpart in a framework."""
    names = ", ".join(cls.__name__ for cls in known)
    return TypeError(
        f"{framework} has counterparts of the cells {names}, got {cell!r}; convert the other "
        "layers of the network one by one"
    )


def assemble(
    stack: Sequence[Sequence[Part]],
    *,
    reverse: bool | Sequence[bool] = False,
    merge: Sequence[Merge | None] | None = None,
    dropout: float = 0.0,
) -> tuple[Any, PyTree]:
    """Builds a network and its parameters: a bare cell, a layer, or a stack of layers."""
    if isinstance(reverse, bool):
        reverse = [reverse] * len(stack)
    built: list[tuple[Any, PyTree]] = []
    for i, (directions, backwards) in enumerate(zip(stack, reverse, strict=True)):
        if built:
            _check_sizes(i, built[-1][0].output_size, directions)
        if len(directions) == 2:
            forward, backward = directions
            chosen = merge[i] if merge is not None else None
            layer = layers.Bidirectional(forward.cell, backward.cell, chosen or concatenate)
            params = layers.BidirectionalParams(forward.params, backward.params)
        else:
            ((layer, params),) = directions
            if backwards:
                layer = reverse_layer(as_layer(layer, "layer"))
        built.append((layer, params))
    if len(built) == 1:
        return built[0]
    stacked = layers.Stack(tuple(layer for layer, _ in built), dropout=float(dropout))
    return stacked, tuple(params for _, params in built)


def _check_sizes(index: int, given: int | None, directions: Sequence[Part]) -> None:
    """Raises unless the input size of a layer is the output size of the layer before."""
    for part in directions:
        params = part.params
        while not hasattr(params, "input_kernel"):  # a stack's
            params = params[0]
        taken = params.input_kernel.shape[-2]
        if taken != given:
            raise ValueError(
                f"the input kernel of layer {index} must have one row for each of the "
                f"{given} output features of layer {index - 1}, got {taken}"
            )


class Level(NamedTuple):
    """One layer of a stack: its directions, and whether a single direction is reversed.

    ``merge`` combines the outputs of two directions; None concatenates them.
    """

    parts: list[Part]
    reverse: bool = False
    merge: Merge | None = None


def levels(
    framework: str, network: Any, params: PyTree, merges: Collection[Merge] = (concatenate,)
) -> list[Level]:
    """The layers of a network; the inverse of `assemble`."""
    if isinstance(network, layers.Stack):
        if network.residual is not False or network.normalization is not None:
            raise TypeError(
                f"{framework} has no residual connections and no normalization between layers, got "
                f"{network!r}; convert its layers one by one"
            )
        if len(params) != len(network.layers):
            raise ValueError(
                f"params must hold one entry for each of the {len(network.layers)} layers of the "
                f"stack, got {len(params)}"
            )
        return [
            level
            for layer, own in zip(network.layers, params, strict=True)
            for level in levels(framework, layer, own, merges)
        ]
    if isinstance(network, layers.Bidirectional):
        if network.merge not in merges:
            raise TypeError(
                f"{framework} concatenates the two directions, got merge={network.merge!r}; "
                "convert forward and backward separately, and merge their outputs yourself"
            )
        directions = (network.forward, network.backward)
        one_each = [
            levels(framework, *pair, merges) for pair in zip(directions, params, strict=True)
        ]
        if any(len(one) != 1 or len(one[0].parts) != 1 for one in one_each):
            raise TypeError(
                f"{framework} has one cell in each direction, got {network!r}; stack bidirectional "
                "layers instead of making two stacks bidirectional"
            )
        return [Level([one[0].parts[0] for one in one_each])]
    if isinstance(network, layers.Recurrent):
        return [Level([_part(framework, network.cell, params)], network.reverse)]
    return [Level([_part(framework, network, params)])]


def _part(framework: str, cell: Any, params: PyTree) -> Part:
    """A cell with its parameters; in every framework, gated cells have a tanh candidate."""
    if getattr(cell, "candidate_activation", tanh) not in SAME["tanh"]:
        raise TypeError(
            f"{framework} has tanh in the candidate of every gated cell, got {cell!r}, which has "
            "another candidate_activation and no counterpart"
        )
    return Part(cell, params)


def parts(
    framework: str, network: Any, params: PyTree, merges: Collection[Merge] = (concatenate,)
) -> list[list[Part]]:
    """The directions of each layer, for a framework without reversed layers in a stack."""
    stack = levels(framework, network, params, merges)
    if len(stack) > 1 and any(level.reverse for level in stack):
        raise TypeError(
            f"{framework} has no reversed layers in a stack, got {network!r}; convert its layers "
            "one by one"
        )
    return [level.parts for level in stack]
