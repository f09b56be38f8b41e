"""Conversion from memax's Equinox models."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree
from jaxrnn.activations import tanh
from jaxrnn.cells import (
    LRU,
    Elman,
    ElmanParams,
    LRUParams,
    MinimalGatedUnit,
    ResetBeforeGRU,
    ResetBeforeGRUParams,
    SingleGateParams,
)
from jaxrnn.convert._activations import leaky_relu, named
from jaxrnn.convert._arrays import Source
from jaxrnn.convert._modules import Dense, numbered, take_dense
from jaxrnn.convert._network import Part, assemble
from jaxrnn.convert._state_files import accepts_files

_LAYERS = ("Elman", "GRU", "MGU", "LRU")
# Layers whose equations differ from those of the paper, and of jaxrnn.
_DIFFERENT = {
    "LSTM": "its output is o c instead of o tanh(c)",
    "S6": "its input and output matrices are elementwise, in hidden_size equal to recurrent_size",
}
_EPSILON = 1e-5  # of the normalization between the layers of a ResidualModel


@accepts_files
def from_memax(source: Any) -> tuple[Any, PyTree]:
    """Reads ``Elman``, ``GRU``, ``MGU``, ``LRU`` or a ``ResidualModel`` of them, from memax.

    GRU becomes `ResetBeforeGRU` with the update gate negated. The output layer of an Elman, and the
    dense layers of a ResidualModel, follow as layers of a stack; memax's ``start`` corresponds to
    ``starts``.

    Args:
        source: a module of ``memax.equinox``, or a mapping of its arrays by the path of their
            attributes, such as ``"algebra.algebra.U_z.weight"``, or the path of a
            ``*.safetensors`` file with them. A mapping stands for a module with the default
            activations: tanh in Elman, leaky ReLU between the layers of a ResidualModel.

    Returns:
        ``(network, params)``: a cell, or `layers.Stack`.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others.
        TypeError: a module has no counterpart in jaxrnn, or an array has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> arrays = {f"algebra.algebra.U_{k}.weight": np.ones((4, 4)) for k in "zrh"}
        >>> arrays |= {f"algebra.algebra.W_{k}.weight": np.ones((4, 4)) for k in "zrh"}
        >>> arrays |= {f"algebra.algebra.W_{k}.bias": np.ones(4) for k in "zrh"}
        >>> rnn.convert.from_memax(arrays)[0]
        ResetBeforeGRU(hidden_size=4)

    Note:
        memax computes the LRU in complex64 for every dtype; jaxrnn in the dtype of the weights.
    """
    module = None if isinstance(source, Mapping) else source
    arrays = source if module is None else _arrays(module)
    if "map_in.weight" not in arrays:
        return assemble([[part] for part in _read_layer(arrays, "", module)])
    if module is not None and type(module).__name__ != "ResidualModel":
        raise _refuse(module)
    frame = {n: a for n, a in arrays.items() if n.startswith("map_")}
    weights = Source("memax", frame)
    _, inputs = weights.shape("map_in.weight", "recurrent", "input")
    outputs, size = weights.shape("map_out.weight", "output", "recurrent")
    parts = [Part(Dense(size), take_dense(weights, "map_in", inputs, size))]
    last = Part(Dense(outputs), take_dense(weights, "map_out", size, outputs))
    weights.close()
    layers, between = (
        numbered({n: a for n, a in arrays.items() if n.startswith(stem)}, stem)
        for stem in ("layers.", "ff.")
    )
    if len(layers) != len(between):
        raise ValueError(f"layers and ff must be equally many, got {len(layers)}, {len(between)}")
    for index, ((prefix, own), (ff_prefix, ff)) in enumerate(zip(layers, between, strict=True)):
        layer = None if module is None else module.layers[index]
        parts += _read_layer(own, prefix, layer)
        weights = Source("memax", ff, ff_prefix)
        activation = leaky_relu
        if module is not None:
            _, normalization, nonlinearity = module.ff[index].layers
            activation = named(nonlinearity.fn)
            if normalization.eps != _EPSILON:
                raise ValueError(
                    f"eps of {ff_prefix}layers.1 must be {_EPSILON}, got {normalization.eps}"
                )
        params = take_dense(weights, "layers.0", size, size)
        weights.close()
        parts.append(Part(Dense(size, epsilon=_EPSILON, activation=activation), params))
    return assemble([[part] for part in [*parts, last]])


def _arrays(module: Any) -> dict[str, Any]:
    """The arrays of a module by the path of their attributes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(module)
    names = (
        (".".join(str(getattr(k, "name", getattr(k, "idx", k))) for k in path), leaf)
        for path, leaf in leaves
    )
    return {name: leaf for name, leaf in names if hasattr(leaf, "dtype")}


def _refuse(module: Any) -> TypeError:
    name = type(module).__name__
    why = _DIFFERENT.get(name, "jaxrnn has no cell with these equations")
    return TypeError(
        f"source must be one of {', '.join(_LAYERS)} or ResidualModel of memax.equinox, or its "
        f"arrays, got {name}, which has no counterpart: {why}"
    )


def _read_layer(arrays: Mapping[str, Any], prefix: str, module: Any) -> list[Part]:
    """A recurrent layer, and the dense layer after it in an Elman."""
    if module is not None:
        ours = type(module).__module__.startswith("memax.equinox.")
        if not ours or type(module).__name__ not in _LAYERS:
            raise _refuse(module)
    weights = Source(
        "memax", {n.replace("algebra.algebra.", ""): a for n, a in arrays.items()}, prefix
    )
    if "nu_log" in weights:
        parts = [_lru(weights)]
    elif "W_y.weight" in weights:
        activation = tanh if module is None else module.algebra.algebra.activation
        parts = _elman(weights, named(activation))
    elif "U_z.weight" in weights:
        parts = [_gru(weights)]
    else:
        parts = [_mgu(weights)]
    weights.close()
    return parts


def _packed(weights: Source, gates: str) -> tuple[Array, Array, Array]:
    """Both kernels and the bias with these gates, named by their letters."""
    (size, _) = weights.shape(f"U_{gates[0]}.weight", "recurrent", "recurrent")
    kernels = [
        jnp.concatenate([weights.take(f"{kind}_{k}.weight", size, size).T for k in gates], axis=1)
        for kind in "WU"
    ]
    bias = jnp.concatenate([weights.take(f"W_{k}.bias", size) for k in gates])
    return kernels[0], kernels[1], bias


def _gru(weights: Source) -> Part:
    arrays = []
    for array in _packed(weights, "rzh"):
        r, z, n = jnp.split(array, 3, axis=-1)
        arrays.append(jnp.concatenate([r, -z, n], axis=-1))  # 1 - σ(z) = σ(-z)
    return Part(ResetBeforeGRU(arrays[1].shape[0]), ResetBeforeGRUParams(*arrays))


def _mgu(weights: Source) -> Part:
    params = SingleGateParams(*_packed(weights, "fh"))
    return Part(MinimalGatedUnit(params.recurrent_kernel.shape[0]), params)


def _elman(weights: Source, activation: Callable[[Array], Array]) -> list[Part]:
    hidden, inputs = weights.shape("W_h.weight", "recurrent", "hidden")
    params = ElmanParams(
        weights.take("W_h.weight", hidden, inputs).T,
        weights.take("U_h.weight", hidden, hidden).T,
        weights.take("U_h.bias", hidden),
    )
    after = take_dense(weights, "W_y", hidden, inputs)
    return [Part(Elman(hidden, activation=activation), params), Part(Dense(inputs), after)]


def _lru(weights: Source) -> Part:
    hidden, size = weights.shape("B_re", "recurrent", "hidden")
    inputs = [weights.take(f"B_{part}", hidden, size).T for part in ("re", "im")]
    outputs = [weights.take(f"C_{part}", size, hidden).T for part in ("re", "im")]
    log_decay, log_phase, log_scale = (
        weights.take(name, hidden) for name in ("nu_log", "theta_log", "gamma_log")
    )
    params = LRUParams(
        log_decay,
        log_phase,
        log_scale,
        jnp.concatenate(inputs, axis=1),
        jnp.concatenate(outputs),
        jnp.diag(weights.take("D", size)),
    )
    return Part(LRU(hidden, output_size=size), params)
