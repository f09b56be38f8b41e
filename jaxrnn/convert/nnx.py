"""Conversion from and to Flax nnx's recurrent cells."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.convert import _flax
from jaxrnn.convert._arrays import Source, gates_of
from jaxrnn.convert._network import (
    Part,
    activation_name,
    gru_part,
    lstm_part,
    refuse,
    simple_part,
)


def from_nnx(source: Any, *, activation: str = "tanh") -> tuple[Any, PyTree]:
    """Reads ``SimpleCell``, ``LSTMCell``, ``OptimizedLSTMCell`` or ``GRUCell`` of Flax nnx.

    Args:
        source: a cell, or ``nnx.RNN``, ``nnx.Bidirectional`` or ``nnx.Sequential`` around cells;
            or the state of one, ``nnx.state(module, nnx.Param)``, as it is or as a pure dict.
        activation: ``"tanh"`` or ``"relu"`` of ``SimpleCell``, which parameters do not tell.

    Returns:
        ``(network, params)``: a cell, `layers.Bidirectional`, or `layers.Stack`.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> params = {"dense_i": {"kernel": np.ones((3, 12)), "bias": np.ones(12)},
        ...           "dense_h": {"kernel": np.ones((4, 12))}}
        >>> cell, params = rnn.convert.from_nnx(params)
        >>> cell.hidden_size, params.candidate_bias.shape
        (4, (4,))

    Note:
        The GRU of nnx has no bias inside the product that r gates: ``candidate_bias`` is zero.
        ``SimpleCell(residual=True)`` is another recurrence with the same parameters: not read.
    """
    if not isinstance(source, Mapping) or type(source).__module__.startswith("flax."):
        from flax import nnx

        if not isinstance(source, nnx.Module | nnx.State):
            raise TypeError(
                "source must be an nnx module or a mapping of its parameters, got "
                f"{type(source).__name__}"
            )
        state = nnx.state(source, nnx.Param) if isinstance(source, nnx.Module) else source
        source = nnx.to_pure_dict(state)
    return _flax.read("nnx", source, activation, _read)


def to_nnx(network: Any, params: PyTree) -> dict[str, Any]:
    """Writes the parameters of nnx's ``SimpleCell``, ``OptimizedLSTMCell`` or ``GRUCell``.

    Args:
        network: a cell, or layers, of `Elman`, `LSTM` or `GRU`.
        params: its parameters.

    Returns:
        The pure dict for ``nnx.update(module, ...)``: of a cell; for `layers.Bidirectional` of
        ``nnx.Bidirectional`` of two ``nnx.RNN``; for `layers.Stack` of ``nnx.Sequential``.

    Raises:
        TypeError: a cell of the network has no counterpart in nnx, or a candidate bias is traced.
        ValueError: a GRU has a nonzero candidate bias, which nnx's GRU lacks.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LSTM(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> rnn.convert.to_nnx(cell, params)["dense_i"]["kernel"].shape
        (3, 16)
    """
    layers = _flax.write("nnx", network, params, _write)
    if len(layers) > 1:
        return {"layers": dict(enumerate(layers))}
    return layers[0].get("cell", layers[0])


def _read(weights: Source, activation: str) -> Part:
    if "ii/kernel" in weights:  # LSTMCell, with one kernel per gate
        inputs, hidden = weights.shape("ii/kernel", "input", "hidden")

        def packed(names: tuple[str, ...], kind: str, *shape: int) -> Array:
            return jnp.concatenate([weights.take(f"{n}/{kind}", *shape) for n in names], axis=-1)

        from_hidden = ("hi", "hf", "hg", "ho")
        return lstm_part(
            packed(("ii", "if_", "ig", "io"), "kernel", inputs, hidden),
            packed(from_hidden, "kernel", hidden, hidden),
            packed(from_hidden, "bias", hidden),
        )
    hidden, columns = weights.shape("dense_h/kernel", "hidden", "gates * hidden")
    inputs, _ = weights.shape("dense_i/kernel", "input", "gates * hidden")
    gates = gates_of("dense_h/kernel", (hidden, columns), hidden, axis=1)
    kernel = weights.take("dense_i/kernel", inputs, columns)
    recurrent = weights.take("dense_h/kernel", hidden, columns)
    bias = weights.take("dense_h/bias" if gates == 4 else "dense_i/bias", columns)
    if gates == 4:
        return lstm_part(kernel, recurrent, bias)
    if gates == 3:
        return gru_part(kernel, recurrent, bias, jnp.zeros(hidden, bias.dtype))
    return simple_part(kernel, recurrent, bias, activation)


def _write(part: Part) -> dict[str, dict[str, Array]]:
    cell, params = part
    if not isinstance(cell, Elman | LSTM | GRU):
        raise refuse("nnx", cell, (Elman, LSTM, GRU))
    if isinstance(cell, Elman):
        activation_name("nnx", cell)
    if isinstance(cell, GRU):
        try:
            biased = bool((params.candidate_bias != 0).any())
        except jax.errors.ConcretizationTypeError as error:
            raise TypeError(
                "to_nnx must read the values of a GRU's candidate_bias, which has to be zero; call "
                "it outside jax.jit"
            ) from error
        if biased:
            raise ValueError(
                "candidate_bias must be zero, because nnx's GRU has no bias inside the product "
                f"with r, got {params.candidate_bias}; use to_linen, whose GRU has it"
            )
    tree = {
        "dense_i": {"kernel": params.input_kernel},
        "dense_h": {"kernel": params.recurrent_kernel},
    }
    tree["dense_h" if isinstance(cell, LSTM) else "dense_i"]["bias"] = params.bias
    return tree
