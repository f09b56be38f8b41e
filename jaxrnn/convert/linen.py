"""Conversion from and to Flax linen's recurrent cells."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.convert import _flax
from jaxrnn.convert._arrays import Source
from jaxrnn.convert._network import (
    Part,
    activation_name,
    gru_part,
    lstm_part,
    refuse,
    simple_part,
)


def from_linen(source: Mapping[str, Any], *, activation: str = "tanh") -> tuple[Any, PyTree]:
    """Reads the parameters of ``SimpleCell``, ``LSTMCell``, ``OptimizedLSTMCell`` or ``GRUCell``.

    Linen has one kernel per gate, and jaxrnn packs them; the conversion is exact.

    Args:
        source: the parameters of a cell, or of ``nn.RNN``, ``nn.Bidirectional`` or
            ``nn.Sequential`` around cells, or variables ``{"params": ...}`` with one of these.
        activation: ``"tanh"`` or ``"relu"``, the activation of a ``SimpleCell``.

    Returns:
        ``(network, params)``: a cell, `layers.Bidirectional`, or `layers.Stack`.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> params = {"i": {"kernel": np.ones((3, 4)), "bias": np.ones(4)},
        ...           "h": {"kernel": np.ones((4, 4))}}
        >>> rnn.convert.from_linen(params)[0].hidden_size
        4

    Note:
        Parameters do not contain a module's attributes: ``reverse``, ``merge_fn``, ``gate_fn``,
        ``activation_fn`` and ``residual`` must have their default values. ``nn.RNN`` is
        batch-major and computes outputs past a row's length; see `jaxrnn.unroll`.
    """
    return _flax.read("linen", source, activation, _read)


def to_linen(network: Any, params: PyTree) -> dict[str, Any]:
    """Writes the parameters of linen's ``SimpleCell``, ``LSTMCell`` or ``GRUCell``.

    Args:
        network: a cell, or layers, of `Elman`, `LSTM` or `GRU`.
        params: its parameters.

    Returns:
        For a cell, the cell's parameters; for `layers.Bidirectional` those of
        ``nn.Bidirectional`` of two ``nn.RNN``; for `layers.Stack` those of ``nn.Sequential`` of
        such layers. The function is traceable and differentiable.

    Raises:
        TypeError: a cell of the network has no counterpart in linen.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> sorted(rnn.convert.to_linen(cell, params))
        ['hn', 'hr', 'hz', 'in', 'ir', 'iz']
    """
    layers = _flax.write("linen", network, params, _write)
    if len(layers) > 1:
        return {f"layers_{index}": layer for index, layer in enumerate(layers)}
    return layers[0].get("cell", layers[0])


def _read(weights: Source, activation: str) -> Part:
    if "h/kernel" in weights or "i/kernel" in weights:
        inputs, hidden = weights.shape("i/kernel", "input", "hidden")
        return simple_part(
            weights.take("i/kernel", inputs, hidden),
            weights.take("h/kernel", hidden, hidden),
            weights.take("i/bias", hidden),
            activation,
        )
    letters = "rzn" if "hn/kernel" in weights or "in/kernel" in weights else "ifgo"
    inputs, hidden = weights.shape(f"i{letters[0]}/kernel", "input", "hidden")

    def packed(side: str, kind: str, *shape: int, letters: str = letters) -> Array:
        names = [f"{side}{letter}/{kind}" for letter in letters]
        return jnp.concatenate([weights.take(name, *shape) for name in names], axis=-1)

    kernel = packed("i", "kernel", inputs, hidden)
    recurrent = packed("h", "kernel", hidden, hidden)
    if letters == "ifgo":
        return lstm_part(kernel, recurrent, packed("h", "bias", hidden))
    bias = packed("i", "bias", hidden)
    return gru_part(kernel, recurrent, bias, weights.take("hn/bias", hidden))


def _write(part: Part) -> dict[str, dict[str, Array]]:
    cell, params = part
    if isinstance(cell, Elman):
        activation_name("linen", cell)
        return {
            "i": {"kernel": params.input_kernel, "bias": params.bias},
            "h": {"kernel": params.recurrent_kernel},
        }
    if not isinstance(cell, LSTM | GRU):
        raise refuse("linen", cell, (Elman, LSTM, GRU))
    letters = "ifgo" if isinstance(cell, LSTM) else "rzn"
    biased = "h" if isinstance(cell, LSTM) else "i"
    tree = {}
    for side, kernel in (("i", params.input_kernel), ("h", params.recurrent_kernel)):
        for letter, block in zip(letters, jnp.split(kernel, len(letters), axis=-1), strict=True):
            tree[f"{side}{letter}"] = {"kernel": block}
    for letter, block in zip(letters, jnp.split(params.bias, len(letters)), strict=True):
        tree[f"{biased}{letter}"]["bias"] = block
    if isinstance(cell, GRU):
        tree["hn"]["bias"] = params.candidate_bias
    return tree
