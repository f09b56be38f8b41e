"""Conversion from torchrecurrent's cells and layers."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree
from jaxrnn.activations import identity
from jaxrnn.cells import (
    BRC,
    JANET,
    NBRC,
    STAR,
    AntisymmetricRNN,
    AntisymmetricRNNParams,
    BRCParams,
    CoRNN,
    CoRNNParams,
    FastGRNN,
    FastGRNNParams,
    FastRNN,
    FastRNNParams,
    IndRNN,
    IndRNNParams,
    MinGRU,
    MinGRUParams,
    MinimalGatedUnit,
    MultiplicativeLSTM,
    MultiplicativeLSTMParams,
    NBRCParams,
    PeepholeLSTM,
    PeepholeLSTMParams,
    ResetBeforeGRU,
    ResetBeforeGRUParams,
    SingleGateParams,
    STARParams,
    UnICORNN,
    UnICORNNParams,
    UpdateGateRNN,
)
from jaxrnn.convert._activations import TORCHRECURRENT
from jaxrnn.convert._arrays import Source, reorder
from jaxrnn.convert._modules import check_zero, named_arrays, numbered
from jaxrnn.convert._network import Part, assemble
from jaxrnn.convert._state_files import accepts_files

# Where a module keeps an option of its constructor under another name.
_ATTRIBUTES = {"nonlinearity": "act", "gate_nonlinearity": "gate_act"}
# Cells whose equations differ from those of the paper, and of jaxrnn.
_DIFFERENT = {
    "LEM": "it updates the hidden state from the old memory; LEM of the paper uses the new one",
    "LiGRU": "it has no normalization of the input product, which LightGRU has",
    "SCRN": "it has biases and an output layer within the recurrence, and a learned alpha",
}


@accepts_files
def from_torchrecurrent(
    source: Any, *, kind: str | None = None, **options: Any
) -> tuple[Any, PyTree]:
    """Reads the cells and layers of torchrecurrent that follow their papers.

    Read are AntisymmetricRNN, GatedAntisymmetricRNN, BR, NBR, coRNN, FastRNN, FastGRNN, IndRNN,
    JANET, MGU, MultiplicativeLSTM, MUT2, PeepholeLSTM, STAR, TRNN, UGRNN and UnICORNN. MUT2 becomes
    `ResetBeforeGRU` with the update gate negated, and TRNN `MinGRU` with ``activation=identity``
    and the gate negated; the others become the cell of their name. Two biases are summed.

    Args:
        source: a cell, a layer around cells, a state dict of one, or the path of a file with it,
            as for `from_pytorch`.
        kind: the class of a state dict, such as ``"coRNN"``; None for a module.
        **options: for a state dict, the options of the class that change what it computes, such as
            ``dt=0.1``; others have the defaults of the class. A module contains them.

    Returns:
        ``(network, params)``: a cell for one layer, `layers.Stack` for several.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others; an
            option has a value without a counterpart; or a bias that the jaxrnn cell lacks is not
            zero (the candidate's in BR and NBR, the multiplier's in MultiplicativeLSTM).
        TypeError: the class has no counterpart in jaxrnn, or ``source``, an option or an array has
            the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> arrays = {"weight_ih": np.ones((4, 3)), "vector_u": np.ones(4)}
        >>> rnn.convert.from_torchrecurrent(arrays, kind="IndRNN", nonlinearity="relu")[0]
        IndRNN(hidden_size=4)

    Note:
        LEM, LiGRU and SCRN are refused, because their equations differ from those of the cells with
        these names in jaxrnn and, for LEM, from those of the paper.
    """
    arrays = named_arrays(source)
    module = None if isinstance(source, Mapping) else source
    if module is not None:
        if kind is not None or options:
            raise TypeError("kind and options are read from a module; pass them for a state dict")
        kind = type(module).__name__
        if not type(module).__module__.startswith("torchrecurrent."):
            raise TypeError(f"source must be a module of torchrecurrent, got {kind}")
    if kind is None:
        raise TypeError(
            f"kind must be the class of the state dict, one of {', '.join(_READERS)}, got None"
        )
    kind = kind.removesuffix("Cell")
    if kind not in _READERS:
        why = _DIFFERENT.get(kind, "jaxrnn has no cell with these equations")
        raise TypeError(
            f"kind must be one of {', '.join(_READERS)}, got {kind!r}, which has no counterpart: "
            f"{why}"
        )
    stack = []
    for prefix, own in numbered(arrays, "cells."):
        if module is not None:
            options = _options(module.get_submodule(prefix.removesuffix(".")))
        weights, left = Source("torchrecurrent", own, prefix), dict(options)
        stack.append([_READERS[kind](weights, left)])
        weights.close()
        if left:
            names = ", ".join(f"{name}={value!r}" for name, value in left.items())
            raise ValueError(f"{kind} got options without a counterpart in jaxrnn: {names}")
    return assemble(stack, dropout=getattr(module, "dropout", 0.0))


def _options(cell: Any) -> dict[str, Any]:
    """The options of a cell that are neither initializers nor visible in its arrays."""
    options = {}
    parameters = dict(cell.named_parameters())
    for name, parameter in inspect.signature(type(cell).__init__).parameters.items():
        attribute = _ATTRIBUTES.get(name, name)
        sized = name in ("self", "input_size", "hidden_size", "device", "dtype")
        if sized or name.endswith(("_init", "bias")) or attribute in parameters:
            continue
        value = getattr(cell, attribute, parameter.default)
        if name in _ATTRIBUTES:
            value = type(value).__name__.lower()
        options[name] = value
    return options


def _activation(options: dict[str, Any], name: str = "nonlinearity", default: str = "tanh"):
    given = options.pop(name, default)
    if given not in TORCHRECURRENT:
        raise ValueError(f"{name} must be one of {', '.join(TORCHRECURRENT)}, got {given!r}")
    return TORCHRECURRENT[given]


def _require(options: dict[str, Any], default: str | None = None, **wanted: str) -> None:
    for name, value in wanted.items():
        given = options.pop(name, default or value)
        if given != value:
            raise ValueError(f"{name} must be {value!r}, which the cell has here, got {given!r}")


def _sizes(weights: Source, gates: int = 1) -> tuple[int, int]:
    """The numbers of inputs and of hidden units."""
    rows, inputs = weights.shape("weight_ih", "gates * hidden", "input")
    if rows % gates:
        raise ValueError(f"weight_ih must have the rows of {gates} gates, got {rows} rows")
    return inputs, rows // gates


def _dense(weights: Source, gates: int, recurrent_gates: int | None = None):
    """Both kernels and both biases, of cells that have all gates in dense kernels."""
    inputs, hidden = _sizes(weights, gates)
    rows, columns = gates * hidden, (recurrent_gates or gates) * hidden
    return (
        weights.take("weight_ih", rows, inputs).T,
        weights.take("weight_hh", columns, hidden).T,
        weights.take_or_zeros("bias_ih", rows),
        weights.take_or_zeros("bias_hh", columns),
    )


def _antisymmetric(weights: Source, options: dict[str, Any], gates: int = 1) -> Part:
    kernel, recurrent, b, b_hh = _dense(weights, gates, 1)
    if gates == 1:
        _require(options, nonlinearity="tanh")
    hidden = recurrent.shape[0]
    cell = AntisymmetricRNN(
        hidden,
        gated=gates == 2,
        step_size=float(options.pop("epsilon", 1.0)),
        diffusion=float(options.pop("gamma", 0.0)),
    )
    bias = b + jnp.pad(b_hh, ((gates - 1) * hidden, 0))  # the gate has no recurrent bias
    return Part(cell, AntisymmetricRNNParams(kernel, recurrent, bias))


def _gated_antisymmetric(weights: Source, options: dict[str, Any]) -> Part:
    return _antisymmetric(weights, options, gates=2)


def _bistable(weights: Source, options: dict[str, Any], diagonal: bool = True) -> Part:
    inputs, hidden = _sizes(weights, 3)
    if "bias_ih" in weights:
        why = "the candidate of jaxrnn's BRC and NBRC has no bias, as in the paper"
        check_zero("the last third of bias_ih", weights.left["bias_ih"][2 * hidden :], why)
    kernel = weights.take("weight_ih", 3 * hidden, inputs).T
    shape = (2 * hidden,) if diagonal else (2 * hidden, hidden)
    recurrent = weights.take("weight_hh", *shape).T
    bias = weights.take_or_zeros("bias_ih", 3 * hidden)[: 2 * hidden]
    bias = bias + weights.take_or_zeros("bias_hh", 2 * hidden)
    if diagonal:
        return Part(BRC(hidden), BRCParams(kernel, recurrent, bias))
    return Part(NBRC(hidden), NBRCParams(kernel, recurrent, bias))


def _neuromodulated(weights: Source, options: dict[str, Any]) -> Part:
    return _bistable(weights, options, diagonal=False)


def _cornn(weights: Source, options: dict[str, Any]) -> Part:
    kernel, from_hidden, b, b_hh = _dense(weights, 1)
    hidden = from_hidden.shape[0]
    from_velocity = weights.take("weight_ch", hidden, hidden).T
    cell = CoRNN(
        hidden,
        time_step=float(options.pop("dt", 0.1)),
        frequency=float(options.pop("gamma", 1.0)),
        damping=float(options.pop("epsilon", 1.0)),
    )
    bias = b + b_hh + weights.take_or_zeros("bias_ch", hidden)
    return Part(cell, CoRNNParams(kernel, jnp.concatenate([from_hidden, from_velocity]), bias))


def _fast_rnn(weights: Source, options: dict[str, Any]) -> Part:
    kernel, recurrent, b, b_hh = _dense(weights, 1)
    cell = FastRNN(recurrent.shape[0], activation=_activation(options))
    alpha, beta = (weights.take(name, 1)[0] for name in ("alpha", "beta"))
    return Part(cell, FastRNNParams(kernel, recurrent, b + b_hh, alpha, beta))


def _fast_grnn(weights: Source, options: dict[str, Any]) -> Part:
    _require(options, default="tanh", nonlinearity="sigmoid")
    inputs, hidden = _sizes(weights)
    kernel = weights.take("weight_ih", hidden, inputs).T
    recurrent = weights.take("weight_hh", hidden, hidden).T
    bias = sum(weights.take_or_zeros(name, 2 * hidden) for name in ("bias_ih", "bias_hh"))
    zeta, nu = (weights.take(name, 1)[0] for name in ("zeta", "nu"))
    return Part(FastGRNN(hidden), FastGRNNParams(kernel, recurrent, jnp.asarray(bias), zeta, nu))


def _ind_rnn(weights: Source, options: dict[str, Any]) -> Part:
    inputs, hidden = _sizes(weights)
    kernel = weights.take("weight_ih", hidden, inputs).T
    recurrent = weights.take("vector_u", hidden)
    bias = weights.take_or_zeros("bias_ih", hidden) + weights.take_or_zeros("bias_hh", hidden)
    cell = IndRNN(hidden, activation=_activation(options))
    return Part(cell, IndRNNParams(kernel, recurrent, bias))


def _janet(weights: Source, options: dict[str, Any]) -> Part:
    kernel, recurrent, b, b_hh = _dense(weights, 2)
    beta = options.pop("beta", 1.0)
    if "beta" in weights:
        beta = weights.take("beta")
        if isinstance(beta, jax.core.Tracer):
            raise TypeError("beta is a static option of JANET; convert it outside jax.jit")
    cell = JANET(recurrent.shape[0], beta=float(beta))
    return Part(cell, SingleGateParams(kernel, recurrent, b + b_hh))


def _mgu(weights: Source, options: dict[str, Any]) -> Part:
    _require(options, nonlinearity="tanh", gate_nonlinearity="sigmoid")
    kernel, recurrent, b, b_hh = _dense(weights, 2)
    return Part(MinimalGatedUnit(recurrent.shape[0]), SingleGateParams(kernel, recurrent, b + b_hh))


def _multiplicative_lstm(weights: Source, options: dict[str, Any]) -> Part:
    inputs, hidden = _sizes(weights, 5)
    why = "m = (x W_m)(h U_m) of jaxrnn's MultiplicativeLSTM has no biases, as in the paper"
    if "bias_ih" in weights:
        check_zero("the first fifth of bias_ih", weights.left["bias_ih"][:hidden], why)
    if "bias_hh" in weights:
        check_zero("bias_hh", weights.left["bias_hh"], why)
    kernel = reorder(weights.take("weight_ih", 5 * hidden, inputs).T, "mifgo", "ifgom")
    multiplier = weights.take("weight_hh", hidden, hidden).T
    recurrent = weights.take("weight_mh", 4 * hidden, hidden).T
    bias = weights.take_or_zeros("bias_ih", 5 * hidden)[hidden:]
    bias = bias + weights.take_or_zeros("bias_mh", 4 * hidden)
    weights.take_or_zeros("bias_hh", hidden)
    params = MultiplicativeLSTMParams(kernel, multiplier, recurrent, bias)
    return Part(MultiplicativeLSTM(hidden), params)


def _mut2(weights: Source, options: dict[str, Any]) -> Part:
    kernel, recurrent, b, b_hh = _dense(weights, 3)

    def ordered(array: Array) -> Array:
        z, r, n = jnp.split(array, 3, axis=-1)
        return jnp.concatenate([r, -z, n], axis=-1)  # 1 - σ(z) = σ(-z)

    params = ResetBeforeGRUParams(ordered(kernel), ordered(recurrent), ordered(b + b_hh))
    return Part(ResetBeforeGRU(recurrent.shape[0]), params)


def _peephole_lstm(weights: Source, options: dict[str, Any]) -> Part:
    _require(options, nonlinearity="tanh", gate_nonlinearity="sigmoid")
    kernel, recurrent, b, b_hh = _dense(weights, 4)
    hidden = recurrent.shape[0]
    peepholes = weights.take("weight_ph", 3 * hidden)
    return Part(PeepholeLSTM(hidden), PeepholeLSTMParams(kernel, recurrent, b + b_hh, peepholes))


def _star(weights: Source, options: dict[str, Any]) -> Part:
    kernel, recurrent, b, b_hh = _dense(weights, 2, 1)
    hidden = recurrent.shape[0]
    bias = reorder(b, "zk", "kz") + jnp.pad(b_hh, (0, hidden))
    return Part(STAR(hidden), STARParams(reorder(kernel, "zk", "kz"), recurrent, bias))


def _trnn(weights: Source, options: dict[str, Any]) -> Part:
    _require(options, gate_nonlinearity="sigmoid")
    inputs, hidden = _sizes(weights, 2)

    def ordered(array: Array) -> Array:
        latent, forget = jnp.split(array, 2, axis=-1)
        return jnp.concatenate([-forget, latent], axis=-1)  # 1 - σ(f) = σ(-f)

    kernel = weights.take("weight_ih", 2 * hidden, inputs).T
    bias = weights.take_or_zeros("bias_ih", 2 * hidden)
    cell = MinGRU(hidden, activation=identity)
    return Part(cell, MinGRUParams(ordered(kernel), ordered(bias)))


def _ugrnn(weights: Source, options: dict[str, Any]) -> Part:
    kernel, recurrent, b, b_hh = _dense(weights, 2)
    arrays = (reorder(array, "cg", "gc") for array in (kernel, recurrent, b + b_hh))
    return Part(UpdateGateRNN(recurrent.shape[0]), SingleGateParams(*arrays))


def _unicornn(weights: Source, options: dict[str, Any]) -> Part:
    inputs, hidden = _sizes(weights)
    cell = UnICORNN(
        hidden,
        time_step=float(options.pop("dt", 0.1)),
        alpha=float(options.pop("alpha", 0.0)),
    )
    kernel = weights.take("weight_ih", hidden, inputs).T
    bias = weights.take_or_zeros("bias_ih", hidden) + weights.take_or_zeros("bias_hh", hidden)
    recurrent, control = (weights.take(name, hidden) for name in ("weight_hh", "weight_ch"))
    return Part(cell, UnICORNNParams(kernel, recurrent, bias, control))


_READERS: dict[str, Callable[[Source, dict[str, Any]], Part]] = {
    "AntisymmetricRNN": _antisymmetric,
    "GatedAntisymmetricRNN": _gated_antisymmetric,
    "BR": _bistable,
    "NBR": _neuromodulated,
    "coRNN": _cornn,
    "FastRNN": _fast_rnn,
    "FastGRNN": _fast_grnn,
    "IndRNN": _ind_rnn,
    "JANET": _janet,
    "MGU": _mgu,
    "MultiplicativeLSTM": _multiplicative_lstm,
    "MUT2": _mut2,
    "PeepholeLSTM": _peephole_lstm,
    "STAR": _star,
    "TRNN": _trnn,
    "UGRNN": _ugrnn,
    "UnICORNN": _unicornn,
}
