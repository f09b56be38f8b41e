"""Conversion from and to the recurrent layers of Keras 3 and ``tf.keras``."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import GRU, LSTM, Elman, ResetBeforeGRU, ResetBeforeGRUParams
from jaxrnn.convert._arrays import Source, gates_of, reorder
from jaxrnn.convert._network import (
    Part,
    activation_name,
    assemble,
    check_attributes,
    gru_part_from_two_biases,
    lstm_part,
    parts,
    recurrent_bias,
    refuse,
    simple_part,
)

_LAYERS = ("SimpleRNN", "LSTM", "GRU", "SimpleRNNCell", "LSTMCell", "GRUCell")
_TRAINING = ("_initializer", "_regularizer", "_constraint")
# Attributes of layers that are read, or do not change the function of the weights.
_HANDLED = {"activation", "recurrent_activation", "use_bias", "reset_after", "go_backwards", "seed"}
_HANDLED |= {"dropout", "recurrent_dropout", "return_sequences", "return_state", "stateful"}
_HANDLED |= {"unroll", "use_cudnn", "unit_forget_bias"}


def from_keras(
    source: Any,
    *,
    bidirectional: bool = False,
    use_bias: bool = True,
    reset_after: bool = True,
    activation: str = "tanh",
) -> tuple[Any, PyTree]:
    """Reads ``SimpleRNN``, ``LSTM``, ``GRU``, their cells, or ``Bidirectional`` around one.

    Keras and ``tf.keras`` have the gates of an LSTM in jaxrnn's order (i, f, c, o) and those of a
    GRU in the order z, r, h. ``reset_after=True`` (a bias with two rows) gives `GRU`, with the rows
    summed except for the candidate's; ``reset_after=False`` gives `ResetBeforeGRU`.

    Args:
        source: a built layer, a sequence of built layers (a stack), or the list of arrays that
            ``get_weights()`` returns for a layer or for a model of recurrent layers only.
        bidirectional: for a list of arrays: whether each layer is a ``Bidirectional``.
        use_bias: for a list of arrays: whether each layer has a bias.
        reset_after: for a list of arrays with ``use_bias=False``: the form of a GRU, which
            otherwise follows from the shape of its bias.
        activation: for a list of arrays: ``"tanh"`` or ``"relu"``, the activation of a SimpleRNN.

    Returns:
        ``(network, params)``: a cell, `layers.Bidirectional`, or `layers.Stack`. A layer with
        ``go_backwards=True`` becomes a reversed `layers.Recurrent`.

    Raises:
        ValueError: arrays are missing, unexpected, or inconsistent in shape, or a layer has an
            attribute without a counterpart in jaxrnn, such as another activation or merge mode.
        TypeError: ``source`` is none of the above.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> weights = [np.zeros((3, 12)), np.zeros((4, 12)), np.zeros((2, 12))]
        >>> rnn.convert.from_keras(weights)[0].hidden_size
        4

    Note:
        Keras is batch-major. With ``go_backwards`` it returns the outputs in reversed order, while
        jaxrnn's ``ys[t]`` belongs to ``xs[t]``. At a masked step Keras repeats the previous output
        (zero with ``zero_output_for_mask``), and jaxrnn returns zero. A layer's dropout is not
        converted, with a warning: `wrappers.VariationalDropout` is its counterpart.
    """
    if hasattr(source, "get_weights"):
        return assemble([_read_layer(source)], reverse=_is_backward(source))
    if not isinstance(source, Sequence) or not source:
        raise TypeError(
            "source must be a Keras layer, a sequence of them or the list of arrays that "
            f"get_weights() returns, got {type(source).__name__}"
        )
    if hasattr(source[0], "get_weights"):
        if any(_is_backward(layer) for layer in source):
            raise ValueError(
                "a layer of a stack has go_backwards=True, for which Keras returns the outputs in "
                "reversed order, and no layer of jaxrnn does: convert the layers one by one"
            )
        return assemble([_read_layer(layer) for layer in source])
    size = 2 + use_bias
    per_layer = size * (1 + bidirectional)
    if len(source) % per_layer:
        raise ValueError(
            f"source must hold {per_layer} arrays per layer (bidirectional={bidirectional}, "
            f"use_bias={use_bias}), got {len(source)}"
        )
    directions = [
        _read([*source[start : start + size]], start, activation, reset_after)
        for start in range(0, len(source), size)
    ]
    step = 1 + bidirectional
    return assemble([directions[i : i + step] for i in range(0, len(directions), step)])


def to_keras(network: Any, params: PyTree) -> list[np.ndarray]:
    """Writes the list of arrays for ``set_weights`` of a layer or of a model of such layers.

    For a ``reset_after=True`` GRU, jaxrnn's bias becomes the first row, and zeros and the candidate
    bias the second.

    Args:
        network: a cell, or layers, of `Elman`, `LSTM`, `GRU` or `ResetBeforeGRU`.
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
    stack = parts("Keras", network, params)
    return [
        np.array(array) for directions in stack for part in directions for array in _write(part)
    ]


def _is_backward(layer: Any) -> bool:
    return bool(getattr(layer, "go_backwards", False))


def _read_layer(layer: Any) -> list[Part]:
    """The directions of a layer, identified by its class name so that Keras is not imported."""
    kind = type(layer).__name__
    if kind == "Bidirectional":
        if layer.merge_mode != "concat":
            raise ValueError(
                f"a Bidirectional must have merge_mode='concat', got {layer.merge_mode!r}; convert "
                "its forward_layer and backward_layer separately, and merge their outputs yourself"
            )
        if _is_backward(layer.forward_layer):
            raise ValueError(
                "forward_layer of a Bidirectional must have go_backwards=False, got True, which "
                "reverses both directions; convert the layers separately"
            )
        return _read_layer(layer.forward_layer) + _read_layer(layer.backward_layer)
    if kind not in _LAYERS:
        raise TypeError(f"a layer must be one of {', '.join(_LAYERS)} or Bidirectional, got {kind}")
    config = layer.get_config()
    simple = kind.startswith("SimpleRNN")
    wanted: dict[str, tuple[str, ...]] = {"activation": ("tanh", "relu") if simple else ("tanh",)}
    if not simple:
        wanted["recurrent_activation"] = ("sigmoid",)
    for name, choices in wanted.items():
        if config[name] not in choices:
            raise ValueError(
                f"{name} of {kind} must be {' or '.join(map(repr, choices))}, got {config[name]!r}"
            )
    check_attributes(layer, config, _HANDLED | {n for n in config if n.endswith(_TRAINING)})
    for name in ("dropout", "recurrent_dropout"):
        if config[name]:
            warnings.warn(
                f"{name}={config[name]} of {kind} is not converted; wrap the cell in "
                "jaxrnn.wrappers.VariationalDropout, which has input_rate and recurrent_rate",
                stacklevel=4,
            )
    weights = layer.get_weights()
    if not weights:
        raise ValueError(f"the layer {kind} must be built, got no weights; call it on data first")
    return [_read(weights, 0, config["activation"], config.get("reset_after", True))]


def _read(arrays: Sequence[Any], start: int, activation: str, reset_after: bool) -> Part:
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


def _write(part: Part) -> tuple[Array, Array, Array]:
    cell, params = part
    if isinstance(cell, Elman):
        activation_name("Keras", cell)
    if isinstance(cell, Elman | LSTM):
        return params.input_kernel, params.recurrent_kernel, params.bias
    if not isinstance(cell, GRU | ResetBeforeGRU):
        raise refuse("Keras", cell, (Elman, LSTM, GRU, ResetBeforeGRU))
    bias = params.bias
    if isinstance(cell, GRU):
        bias = jnp.stack([bias, recurrent_bias(part)])
    kernel, recurrent, bias = (
        reorder(array, "rzn", "zrn")
        for array in (params.input_kernel, params.recurrent_kernel, bias)
    )
    return kernel, recurrent, bias
