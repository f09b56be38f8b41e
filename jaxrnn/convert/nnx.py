"""Conversion from and to Flax nnx's recurrent cells."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import GRU, LSTM, Elman
from jaxrnn.convert import _flax
from jaxrnn.convert._arrays import Source, flatten, gates_of
from jaxrnn.convert._network import (
    Level,
    Part,
    activation_name,
    check_attributes,
    gru_part,
    known_activation,
    lstm_part,
    refuse,
    simple_part,
)

# Attributes of modules that change at most the rounding of the outputs, or are read elsewhere.
_RUNTIME = {"time_major", "return_carry", "unroll", "rngs", "keep_rngs", "dtype", "param_dtype"}
_RUNTIME |= {"broadcast_rngs", "state_axes", "engine", "run_padding", "reverse", "keep_order"}


def from_nnx(source: Any, *, activation: str | None = None) -> tuple[Any, PyTree]:
    """Reads ``SimpleCell``, ``LSTMCell``, ``OptimizedLSTMCell`` or ``GRUCell`` of Flax nnx.

    Args:
        source: a cell, or ``nnx.RNN``, ``nnx.Bidirectional`` or ``nnx.Sequential`` around cells;
            or the state of one, ``nnx.state(module, nnx.Param)``, or its pure dict.
        activation: ``"tanh"`` or ``"relu"``, the activation of a ``SimpleCell``; None is that of
            the module, and tanh for a state.

    Returns:
        ``(network, params)``: a cell, `layers.Bidirectional`, or `layers.Stack`.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others, or a
            module has an attribute without a counterpart in jaxrnn, such as another ``merge_fn``.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> params = {"dense_i": {"kernel": np.ones((3, 12)), "bias": np.ones(12)},
        ...           "dense_h": {"kernel": np.ones((4, 12))}}
        >>> cell, params = rnn.convert.from_nnx(params)
        >>> cell.hidden_size, params.candidate_bias.shape
        (4, (4,))

    Note:
        The GRU of nnx has no bias inside the product with r: ``candidate_bias`` is zero. A state
        does not contain a module's attributes: ``reverse``, ``merge_fn``, ``gate_fn``,
        ``activation_fn`` and ``residual`` must have their default values. jaxrnn computes in the
        dtype of the weights, regardless of a module's ``dtype``.
    """
    if not isinstance(source, Mapping) or type(source).__module__.startswith("flax."):
        from flax import nnx

        if isinstance(source, nnx.Module):
            return _flax.build(_read_module(source, activation))
        if not isinstance(source, nnx.State):
            raise TypeError(
                "source must be an nnx module or a mapping of its parameters, got "
                f"{type(source).__name__}"
            )
        source = nnx.to_pure_dict(source)
    return _flax.read("nnx", source, activation or "tanh", _read)


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


def _read_module(module: Any, activation: str | None) -> list[Level]:
    """The layers of a module."""
    from flax import nnx

    if isinstance(module, nnx.Sequential):
        return [level for layer in module.layers for level in _read_module(layer, activation)]
    attributes = vars(module) if isinstance(module, nnx.Module) else {}
    if isinstance(module, nnx.Bidirectional):
        check_attributes(module, attributes, _RUNTIME)
        modules = (module.forward_rnn, module.backward_rnn)
        return [_flax.bidirectional(*(_read_module(m, activation) for m in modules))]
    if {"cell", "reverse", "keep_order"} <= attributes.keys():  # flax.nnx.RNN or jaxrnn.nnx.RNN
        check_attributes(module, attributes, _RUNTIME)
        (level,) = _read_module(attributes["cell"], activation)
        reverse = attributes["reverse"]
        if reverse and not attributes["keep_order"]:
            raise ValueError(
                f"reverse=True of {type(module).__name__} needs keep_order=True, because no layer "
                "of jaxrnn returns its outputs in reversed order; set it, and flip them yourself"
            )
        return [Level(level.parts, reverse)]
    cells = (nnx.SimpleCell, nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell)
    if type(module) not in cells:
        raise TypeError(
            "source must consist of RNN, Bidirectional, Sequential, "
            f"{', '.join(cell.__name__ for cell in cells)}, got "
            f"{getattr(module, '__name__', type(module).__name__)}; convert "
            "nnx.state(module, nnx.Param) if it computes the same"
        )
    name = known_activation(attributes["activation_fn"])
    simple = type(module) is nnx.SimpleCell
    handled = _RUNTIME | ({"activation_fn"} if name == "tanh" or (simple and name) else set())
    check_attributes(module, attributes, handled)
    arrays = flatten(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    weights = Source("nnx", arrays)
    part = _read(weights, activation or name or "tanh")
    weights.close()
    return [Level([part])]


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
