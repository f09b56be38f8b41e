"""Conversion from and to Equinox's recurrent cells."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxrnn._typing import PyTree
from jaxrnn.cells import GRU, LSTM
from jaxrnn.convert._arrays import Source, gates_of
from jaxrnn.convert._network import Part, assemble, gru_part, lstm_part, parts, refuse

_FIELDS = ("weight_ih", "weight_hh", "bias", "bias_n")


def from_equinox(source: Any) -> tuple[Any, PyTree]:
    """Reads ``eqx.nn.LSTMCell`` or ``eqx.nn.GRUCell``.

    Equinox has transposed kernels and the same order of gates; the conversion is exact.

    Args:
        source: a cell, a mapping with its arrays ``weight_ih``, ``weight_hh``, ``bias``,
            ``bias_n``, a pair ``(forward, backward)`` of these, or a list of cells and pairs.

    Returns:
        ``(network, params)``: a cell, `layers.Bidirectional` for a pair, `layers.Stack` for a
        list. They take batches without `jax.vmap`.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> arrays = {"weight_ih": np.ones((16, 3)), "weight_hh": np.ones((16, 4))}
        >>> rnn.convert.from_equinox(arrays)[0].hidden_size
        4
    """
    if not isinstance(source, list):
        return assemble([_read_layer(source)])
    if not source:
        raise TypeError("source must hold at least one cell, got an empty list")
    return assemble([_read_layer(layer) for layer in source])


def to_equinox(network: Any, params: PyTree) -> Any:
    """Builds the equivalent ``eqx.nn.LSTMCell`` or ``eqx.nn.GRUCell``.

    Args:
        network: a cell, or layers, of `LSTM` or `GRU`.
        params: its parameters.

    Returns:
        A cell; a pair of cells for `layers.Bidirectional`; a list for `layers.Stack`.

    Raises:
        TypeError: a cell of the network has no counterpart in Equinox.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> rnn.convert.to_equinox(cell, params).weight_ih.shape  # doctest: +SKIP
        (12, 3)
    """
    stack = [
        tuple(map(_write, directions)) if len(directions) == 2 else _write(directions[0])
        for directions in parts("Equinox", network, params)
    ]
    return stack if len(stack) > 1 else stack[0]


def _read_layer(source: Any) -> list[Part]:
    if not isinstance(source, tuple):
        return [_read(source)]
    if len(source) != 2:
        raise ValueError(f"a layer must be a cell or a pair of cells, got {len(source)} of them")
    return [_read(cell) for cell in source]


def _read(source: Any) -> Part:
    arrays = source
    if not isinstance(source, Mapping):
        kind = type(source)
        if kind.__name__ not in ("LSTMCell", "GRUCell") or not kind.__module__.startswith(
            "equinox."
        ):
            raise TypeError(
                f"source must be an equinox.nn.LSTMCell or GRUCell, got {kind.__name__}; pass a "
                "mapping of its arrays if it computes the same"
            )
        fields = {name: getattr(source, name, None) for name in _FIELDS}
        arrays = {name: array for name, array in fields.items() if array is not None}
    weights = Source("Equinox", arrays)
    rows, inputs = weights.shape("weight_ih", "gates * hidden", "input")
    _, hidden = weights.shape("weight_hh", "gates * hidden", "hidden")
    gates = gates_of("weight_ih", (rows, inputs), hidden)
    if gates == 1:
        raise ValueError(
            f"weight_ih must have the rows of 3 (GRU) or 4 (LSTM) gates of {hidden} units, got "
            f"shape {[rows, inputs]}; Equinox has no simple cell"
        )
    kernel = weights.take("weight_ih", rows, inputs).T
    recurrent = weights.take("weight_hh", rows, hidden).T
    # A cell has all of its biases or none.
    take = weights.take if {"bias", "bias_n"} & weights.left.keys() else weights.take_or_zeros
    bias = take("bias", rows)
    if gates == 4:
        part = lstm_part(kernel, recurrent, bias)
    else:
        part = gru_part(kernel, recurrent, bias, take("bias_n", hidden))
    weights.close()
    return part


def _write(part: Part) -> Any:
    import equinox as eqx

    cell, params = part
    if not isinstance(cell, LSTM | GRU):
        raise refuse("Equinox", cell, (LSTM, GRU))
    arrays = [params.input_kernel.T, params.recurrent_kernel.T, params.bias]
    if isinstance(cell, GRU):
        arrays.append(params.candidate_bias)
    kind = eqx.nn.LSTMCell if isinstance(cell, LSTM) else eqx.nn.GRUCell
    fields = _FIELDS[: len(arrays)]
    theirs = kind(
        arrays[0].shape[1], cell.hidden_size, dtype=arrays[0].dtype, key=jax.random.key(0)
    )
    return eqx.tree_at(lambda c: [getattr(c, name) for name in fields], theirs, arrays)
