"""The cells of Keras' layers, from their configurations and arrays."""

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrnn._typing import Array
from jaxrnn.cells import ConvLSTM, ConvLSTMParams, ResetBeforeGRU, ResetBeforeGRUParams
from jaxrnn.convert._arrays import Source, gates_of, reorder
from jaxrnn.convert._keras_layers import KerasLayer
from jaxrnn.convert._network import (
    Level,
    Part,
    assemble,
    gru_part_from_two_biases,
    lstm_part,
    simple_part,
)
from jaxrnn.layers.bidirectional import concatenate

_TRAINING = ("_initializer", "_regularizer", "_constraint")
# Attributes of layers that are read, or do not change the function of the weights.
_HANDLED = {"activation", "recurrent_activation", "use_bias", "reset_after", "go_backwards", "seed"}
_HANDLED |= {"dropout", "recurrent_dropout", "return_sequences", "return_state", "stateful"}
_HANDLED |= {"unroll", "use_cudnn", "unit_forget_bias", "units", "filters", "kernel_size"}
_HANDLED |= {"strides", "padding", "data_format", "dilation_rate", "merge_mode", "weights"}
_HANDLED |= {"layer", "backward_layer", "cell", "cells", "zero_output_for_mask"}
# Those that only files have: names, dtypes, and what tf.keras adds.
_OF_FILES = {"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "implementation"}
_OF_FILES |= {"time_major", "input_dim", "input_length"}


def average(forward: Array, backward: Array) -> Array:
    """Averages the outputs of the forward and the backward layer."""
    return (forward + backward) / 2


def pair(forward: Array, backward: Array) -> tuple[Array, Array]:
    """Returns the outputs of the forward and the backward layer."""
    return forward, backward


MERGES = {
    "concat": concatenate,
    "sum": operator.add,
    "mul": operator.mul,
    "ave": average,
    None: pair,
}


def read_layer(layer: KerasLayer) -> Level:
    """The directions of a layer."""
    if layer.kind != "Bidirectional":
        return Level([_read_part(layer)], bool(layer.config.get("go_backwards")))
    _check(layer, {"merge_mode": tuple(MERGES)})
    forward, backward = layer.parts
    if forward.config.get("go_backwards"):
        raise ValueError(
            "forward_layer of a Bidirectional must have go_backwards=False, got True, which "
            "reverses both directions; convert the layers separately"
        )
    if not backward.config.get("go_backwards"):
        raise ValueError("backward_layer of a Bidirectional must have go_backwards=True, got False")
    merge = MERGES[layer.config.get("merge_mode", "concat")]
    return Level([_read_part(forward), _read_part(backward)], merge=merge)


def _check(layer: KerasLayer, choices: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises unless each attribute is one of its choices, handled, or the class's default."""
    kind, config = layer.kind, layer.config
    for name, allowed in choices.items():
        given = config.get(name, allowed[0])
        if given not in allowed:
            raise ValueError(
                f"{name} of {kind} must be {' or '.join(map(repr, allowed))}, got {given!r}"
            )
    for name, given in config.items():
        if name in _HANDLED or name.endswith(_TRAINING):
            continue
        if layer.defaults is None:
            if name not in _OF_FILES:
                raise ValueError(
                    f"{name} of {kind} is unknown, got {given!r}; if it does not change the "
                    "outputs, load the model with Keras and pass the layer"
                )
        elif name in layer.defaults and given != layer.defaults[name]:
            raise ValueError(
                f"{name} of {kind} must be {layer.defaults[name]!r}, got {given!r}, which has no "
                "counterpart in jaxrnn"
            )
    for name in ("dropout", "recurrent_dropout"):
        if config.get(name):
            warnings.warn(
                f"{name}={config[name]} of {kind} is not converted; wrap the cell in "
                "jaxrnn.wrappers.VariationalDropout, which has input_rate and recurrent_rate",
                stacklevel=6,
            )


def _read_part(layer: KerasLayer) -> Part:
    """One direction of a layer: a cell, or a stack of cells."""
    kind, config = layer.kind, layer.config
    if kind in ("RNN", "StackedRNNCells"):
        _check(layer, {})
        cells = [_read_part(part) for part in layer.parts]
        return cells[0] if kind == "RNN" else Part(*assemble([[cell] for cell in cells]))
    if kind == "Bidirectional":
        raise ValueError("a Bidirectional must not be a direction of another")
    simple, convolutional = kind.startswith("SimpleRNN"), kind.startswith("ConvLSTM")
    wanted: dict[str, tuple[Any, ...]] = {"activation": ("tanh", "relu") if simple else ("tanh",)}
    if not simple:
        wanted["recurrent_activation"] = ("sigmoid",)
    if convolutional:
        wanted["padding"] = ("valid", "same")
        wanted["data_format"] = ("channels_last", "channels_first", None)
    _check(layer, wanted)
    if not layer.arrays:
        raise ValueError(f"the layer {kind} must be built, got no weights; call it on data first")
    if convolutional:
        return _read_convolution(layer)
    return read_arrays([*layer.arrays], 0, config["activation"], config.get("reset_after", True))


def _read_convolution(layer: KerasLayer) -> Part:
    """A ConvLSTM; its gates and kernels have jaxrnn's layout."""
    kind, config, rank = layer.kind, layer.config, int(layer.kind[-2])
    for name in ("strides", "dilation_rate"):
        given = config.get(name, 1)
        if given not in (1, (1,) * rank, [1] * rank):
            raise ValueError(f"{name} of {kind} must be 1, which ConvLSTM has, got {given!r}")
    first = config.get("data_format") == "channels_first"
    shape = layer.input_shape or ()
    spatial = tuple(size for size in (shape[3:] if first else shape[2:-1]) if size)
    if len(shape) != rank + 3 or len(spatial) != rank:
        raise ValueError(
            f"the layer {kind} must be built with {rank} known spatial sizes, got the input shape "
            f"{layer.input_shape}"
        )
    weights = Source("Keras", {f"weights[{i}]": array for i, array in enumerate(layer.arrays)})
    axes = [f"kernel_shape[{i}]" for i in range(rank)]
    *extent, inputs, columns = weights.shape("weights[0]", *axes, "input", "4 * features")
    features = columns // 4
    params = ConvLSTMParams(
        weights.take("weights[0]", *extent, inputs, 4 * features),
        weights.take("weights[1]", *extent, features, 4 * features),
        weights.take_or_zeros("weights[2]", 4 * features),
    )
    weights.close()
    padding = config.get("padding", "valid").upper()
    return Part(ConvLSTM(features, tuple(extent), spatial, input_padding=padding), params)


def read_arrays(arrays: Sequence[Any], start: int, activation: str, reset_after: bool) -> Part:
    """One direction: kernel, recurrent kernel and optional bias, named by their index."""
    names = [f"weights[{start + index}]" for index in range(len(arrays))]
    weights = Source("Keras", dict(zip(names, arrays, strict=True)))
    kernel, recurrent = names[0], names[1] if len(names) > 1 else f"weights[{start + 1}]"
    inputs, columns = weights.shape(kernel, "input", "gates * hidden")
    hidden, _ = weights.shape(recurrent, "hidden", "gates * hidden")
    gates = gates_of(kernel, (inputs, columns), hidden, axis=1)
    w = weights.take(kernel, inputs, gates * hidden)
    u = weights.take(recurrent, hidden, gates * hidden)
    bias = names[2] if len(names) > 2 else ""
    two_rows = gates == 3 and (weights.left[bias].ndim == 2 if bias else reset_after)
    b = weights.take_or_zeros(bias, *(2,) * two_rows, gates * hidden)
    weights.close()
    if gates == 1:
        return simple_part(w, u, b, activation)
    if gates == 4:
        return lstm_part(w, u, b)
    w, u, b = (reorder(array, "zrn", "rzn") for array in (w, u, b))
    if b.ndim == 1:
        return Part(ResetBeforeGRU(hidden), ResetBeforeGRUParams(w, u, b))
    return gru_part_from_two_biases(w, u, *b)
