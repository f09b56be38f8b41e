"""Conversion from and to the recurrent layers of Keras 3 and ``tf.keras``."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import GRU, LSTM, ConvLSTM, Elman, ResetBeforeGRU
from jaxrnn.convert import _keras_files
from jaxrnn.convert._arrays import errors_name_file, reorder
from jaxrnn.convert._keras_files import Entry, Model
from jaxrnn.convert._keras_layers import KINDS, KerasLayer, from_object
from jaxrnn.convert._keras_parts import MERGES, read_arrays, read_layer
from jaxrnn.convert._network import (
    Part,
    activation_name,
    assemble,
    parts,
    recurrent_bias,
    refuse,
)


@errors_name_file
def from_keras(
    source: Any,
    *,
    layer: str | Sequence[str] | None = None,
    bidirectional: bool = False,
    use_bias: bool = True,
    reset_after: bool = True,
    activation: str = "tanh",
) -> tuple[Any, PyTree]:
    """Reads ``SimpleRNN``, ``LSTM``, ``GRU`` and ``ConvLSTM`` layers, from objects or files.

    Keras and ``tf.keras`` have the gates of an LSTM in jaxrnn's order (i, f, c, o) and those of a
    GRU in the order z, r, h. ``reset_after=True`` (a bias with two rows) gives `GRU`, with the rows
    summed except for the candidate's; ``reset_after=False`` gives `ResetBeforeGRU`. ``RNN`` of one
    of their cells, or of ``StackedRNNCells``, and ``Bidirectional`` of all of these are read too.

    Files are read as data: the configuration as JSON, the arrays as numbers. Neither Keras nor
    TensorFlow is needed, and no code in a file is run.

    Args:
        source: a built layer, a sequence of built layers (a stack), a model, or the list of arrays
            that ``get_weights()`` returns for a layer or for a model of recurrent layers only; or
            the path of a model: a ``.keras`` file, an ``.h5`` file with the whole model, or the
            folder of a SavedModel by ``tf.keras``.
        layer: for a model or a path: the name of the layer to read, or the names of several, which
            become a stack; None reads all layers of a ``Sequential`` of recurrent layers.
        bidirectional: for a list of arrays: whether each layer is a ``Bidirectional``.
        use_bias: for a list of arrays: whether each layer has a bias.
        reset_after: for a list of arrays with ``use_bias=False``: the form of a GRU, which
            otherwise follows from the shape of its bias.
        activation: for a list of arrays: ``"tanh"`` or ``"relu"``, the activation of a SimpleRNN.

    Returns:
        ``(network, params)``: a cell, `layers.Bidirectional`, or `layers.Stack`. A layer with
        ``go_backwards=True`` becomes a reversed `layers.Recurrent`. ``merge_mode=None`` gives a
        pair of outputs.

    Raises:
        ValueError: arrays are missing, unexpected, or inconsistent in shape, a layer has an
            attribute without a counterpart in jaxrnn, such as another activation, or a file is
            damaged; errors of files have their name.
        TypeError: ``source`` is none of the above.
        FileNotFoundError: there is no such file.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> weights = [np.zeros((3, 12)), np.zeros((4, 12)), np.zeros((2, 12))]
        >>> rnn.convert.from_keras(weights)[0].hidden_size
        4

    Note:
        Keras is batch-major, and jaxrnn's features are last for every ``data_format``. Final states
        and outputs of all steps are always returned, as with ``return_state=True`` and
        ``return_sequences=True``; the outputs of ``return_sequences=False`` are the final hidden
        states, merged. With ``go_backwards`` it returns the outputs in reversed order, while
        jaxrnn's ``ys[t]`` belongs to ``xs[t]``. At a masked step Keras repeats the previous output
        (zero with ``zero_output_for_mask``), and jaxrnn returns zero. A layer's dropout is not
        converted, with a warning: `wrappers.VariationalDropout` is its counterpart.
    """
    if isinstance(source, str | os.PathLike):
        return _build(_choose(_keras_files.read(os.fspath(source)), layer))
    if type(source).__name__ not in KINDS and hasattr(source, "layers"):
        entries = [
            Entry(own.name, type(own).__name__, functools.partial(from_object, own))
            for own in source.layers
        ]
        return _build(_choose(Model(entries, type(source).__name__ == "Sequential"), layer))
    if layer is not None:
        raise TypeError(f"layer={layer!r} names a layer of a model or a file, got {type(source)}")
    if hasattr(source, "get_weights"):
        return _build([from_object(source)])
    if not isinstance(source, Sequence) or not source:
        raise TypeError(
            "source must be a Keras layer, a model, a sequence of layers, the list of arrays that "
            f"get_weights() returns, or the path of a model, got {type(source).__name__}"
        )
    if hasattr(source[0], "get_weights"):
        return _build(list(map(from_object, source)))
    size = 2 + use_bias
    per_layer = size * (1 + bidirectional)
    if len(source) % per_layer:
        raise ValueError(
            f"source must hold {per_layer} arrays per layer (bidirectional={bidirectional}, "
            f"use_bias={use_bias}), got {len(source)}"
        )
    directions = [
        read_arrays([*source[start : start + size]], start, activation, reset_after)
        for start in range(0, len(source), size)
    ]
    step = 1 + bidirectional
    return assemble([directions[i : i + step] for i in range(0, len(directions), step)])


def to_keras(network: Any, params: PyTree) -> list[np.ndarray]:
    """Writes the list of arrays for ``set_weights`` of a layer or of a model of such layers.

    For a ``reset_after=True`` GRU, jaxrnn's bias becomes the first row, and zeros and the candidate
    bias the second.

    Args:
        network: a cell, or layers, of `Elman`, `LSTM`, `GRU`, `ResetBeforeGRU` or `ConvLSTM`.
        params: its parameters.

    Returns:
        NumPy arrays, three per direction of each layer: kernel, recurrent kernel, bias.

    Raises:
        TypeError: a cell of the network has no counterpart in Keras.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.ResetBeforeGRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> [array.shape for array in rnn.convert.to_keras(cell, params)]
        [(3, 12), (4, 12), (12,)]
    """
    stack = parts("Keras", network, params, MERGES.values())
    return [
        np.array(array) for directions in stack for part in directions for array in _write(part)
    ]


def _choose(model: Model, names: str | Sequence[str] | None) -> list[KerasLayer]:
    """The layers of these names, or all layers of a stack."""
    found = {entry.name: entry for entry in model.layers if entry.kind != "InputLayer"}
    listed = ", ".join(f"{name} ({entry.kind})" for name, entry in found.items()) or "nothing"
    if names is None:
        if not model.is_sequential or any(e.kind not in KINDS for e in found.values()) or not found:
            raise ValueError(
                "layer must name the recurrent layers to convert, first layer first, because the "
                f"model is not a Sequential of such layers alone, got {listed}"
            )
        names = list(found)
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in found:
            raise ValueError(f"layer must name layers of the model, {listed}, got {name!r}")
    return [found[name].read() for name in names]


def _build(stack: list[KerasLayer]) -> tuple[Any, PyTree]:
    if len(stack) > 1 and any(layer.config.get("go_backwards") for layer in stack):
        raise ValueError(
            "a layer of a stack has go_backwards=True, for which Keras returns the outputs in "
            "reversed order, and no layer of jaxrnn does: convert the layers one by one"
        )
    read = [read_layer(layer) for layer in stack]
    return assemble(
        [level.parts for level in read],
        reverse=[level.reverse for level in read],
        merge=[level.merge for level in read],
    )


def _write(part: Part) -> tuple[Array, Array, Array]:
    cell, params = part
    if isinstance(cell, Elman):
        activation_name("Keras", cell)
    if isinstance(cell, Elman | LSTM | ConvLSTM):
        return params.input_kernel, params.recurrent_kernel, params.bias
    if not isinstance(cell, GRU | ResetBeforeGRU):
        raise refuse("Keras", cell, (Elman, LSTM, GRU, ResetBeforeGRU, ConvLSTM))
    bias = params.bias
    if isinstance(cell, GRU):
        bias = jnp.stack([bias, recurrent_bias(part)])
    kernel, recurrent, bias = (
        reorder(array, "rzn", "zrn")
        for array in (params.input_kernel, params.recurrent_kernel, bias)
    )
    return kernel, recurrent, bias
