"""Conversion from and to Haiku's recurrent cores."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import LSTM, Elman, ResetBeforeGRU, ResetBeforeGRUParams
from jaxrnn.convert._arrays import Source, flatten, reorder
from jaxrnn.convert._network import (
    Part,
    activation_name,
    assemble,
    lstm_part,
    parts,
    refuse,
    simple_part,
)

_CORE = re.compile(r"(?:.*/)?(vanilla_rnn|lstm|gru)(?:_(\d+))?")


def from_haiku(
    source: Mapping[str, Mapping[str, Any]],
    modules: Sequence[str | tuple[str, str]] | None = None,
) -> tuple[Any, PyTree]:
    """Reads ``hk.VanillaRNN``, ``hk.LSTM`` or ``hk.GRU``.

    Haiku's LSTM has the gates in the order i, g, f, o and adds 1 to f in its forward pass; the
    conversion adds the 1 to the bias. In its GRU, z selects the candidate,
    ``h' = (1 - z) h + z n``; since 1 - σ(z) = σ(-z), the conversion negates the weights of z. Its
    ``VanillaRNN`` has ReLU.

    Args:
        source: the parameters that ``init`` of a transformed function returns.
        modules: the names of the cores, first layer first; a pair of names is the forward and the
            backward core of one layer. Optional if there is one core.

    Returns:
        ``(network, params)``: `Elman`, `LSTM` or `ResetBeforeGRU`, or layers of them.

    Raises:
        ValueError: a core or an array is missing, unexpected, or inconsistent in shape.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> source = {"lstm/linear": {"w": np.ones((3 + 4, 16)), "b": np.zeros(16)}}
        >>> cell, params = rnn.convert.from_haiku(source)
        >>> print(params.bias.reshape(4, 4)[:, 0])
        [0. 1. 0. 0.]

    Note:
        Adding 1 rounds: `to_haiku` restores a forget bias up to rounding.
    """
    if not isinstance(source, Mapping) or not all(isinstance(v, Mapping) for v in source.values()):
        raise TypeError(
            "source must be Haiku's parameters, arrays by module and name, got "
            f"{type(source).__name__}"
        )
    found = sorted({match[0] for name in source if (match := _CORE.match(name))})
    if modules is None:
        if len(found) != 1:
            raise ValueError(
                "modules must list the cores in order unless source has exactly one, got "
                f"{', '.join(found) or 'no core'} (modules: {', '.join(source) or 'none'})"
            )
        modules = found
    if isinstance(modules, str) or not modules:
        raise TypeError(f"modules must be a sequence of core names, got {modules!r}")
    return assemble(
        [
            [_read(source, name) for name in ((entry,) if isinstance(entry, str) else entry)]
            for entry in modules
        ]
    )


def to_haiku(
    network: Any, params: PyTree, modules: Sequence[str | tuple[str, str]]
) -> dict[str, dict[str, Array]]:
    """Writes the parameters of ``hk.VanillaRNN``, ``hk.LSTM`` or ``hk.GRU``.

    Args:
        network: a cell, or layers, of `Elman` with ReLU, `LSTM` or `ResetBeforeGRU`.
        params: its parameters.
        modules: the names of the cores, as for `from_haiku`.

    Returns:
        Arrays by module and name; merge them into the parameters of the whole model.

    Raises:
        TypeError: a cell of the network has no counterpart in Haiku.
        ValueError: ``modules`` does not have one name for each cell.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.ResetBeforeGRU(hidden_size=4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> sorted(rnn.convert.to_haiku(cell, params, ["gru"])["gru"])
        ['b', 'w_h', 'w_i']
    """
    stack = parts("Haiku", network, params)
    names = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in modules]
    if [len(n) for n in names] != [len(directions) for directions in stack]:
        raise ValueError(
            "modules must have one name per layer, and a pair of names for a bidirectional layer: "
            f"expected {[len(directions) for directions in stack]} names, got {list(modules)}"
        )
    written = {}
    for directions, cores in zip(stack, names, strict=True):
        for part, core in zip(directions, cores, strict=True):
            written.update(_write(part, core))
    return written


def _read(source: Mapping[str, Mapping[str, Any]], name: str) -> Part:
    """One core, identified by the names of its arrays."""
    own = {k: v for k, v in source.items() if k == name or k.startswith(f"{name}/")}
    if not own:
        raise ValueError(f"source must hold the core {name!r}, got only {', '.join(source)}")
    weights = Source("Haiku", flatten(own))
    if {f"{name}/{array}" for array in ("w_i", "w_h", "b")} & weights.left.keys():
        inputs, columns = weights.shape(f"{name}/w_i", "input", "3 * hidden")
        hidden, _ = weights.shape(f"{name}/w_h", "hidden", "3 * hidden")
        arrays = (
            weights.take(f"{name}/w_i", inputs, 3 * hidden),
            weights.take(f"{name}/w_h", hidden, 3 * hidden),
            weights.take(f"{name}/b", 3 * hidden),
        )
        part = Part(ResetBeforeGRU(hidden), ResetBeforeGRUParams(*map(_from_zra, arrays)))
    elif f"{name}/linear_1/w" in weights:
        inputs, hidden = weights.shape(f"{name}/linear/w", "input", "hidden")
        bias = weights.take(f"{name}/linear/b", hidden)
        bias = bias + weights.take_or_zeros(f"{name}/linear_1/b", hidden)
        part = simple_part(
            weights.take(f"{name}/linear/w", inputs, hidden),
            weights.take(f"{name}/linear_1/w", hidden, hidden),
            bias,
            "relu",
        )
    else:
        rows, columns = weights.shape(f"{name}/linear/w", "input + hidden", "4 * hidden")
        hidden = columns // 4
        if columns % 4 or rows <= hidden:
            raise ValueError(
                f"{name}/linear/w must have shape [input + hidden, 4 * hidden], got "
                f"{[rows, columns]}"
            )
        both = reorder(weights.take(f"{name}/linear/w", rows, columns), "igfo", "ifgo")
        bias = reorder(weights.take(f"{name}/linear/b", columns), "igfo", "ifgo")
        forget = jnp.repeat(jnp.array([0, 1, 0, 0], bias.dtype), hidden)
        part = lstm_part(both[: rows - hidden], both[rows - hidden :], bias + forget)
    weights.close()
    return part


def _write(part: Part, name: str) -> dict[str, dict[str, Array]]:
    cell, params = part
    if isinstance(cell, LSTM):
        both = jnp.concatenate([params.input_kernel, params.recurrent_kernel])
        forget = jnp.repeat(jnp.array([0, 1, 0, 0], both.dtype), cell.hidden_size)
        w, b = (reorder(array, "ifgo", "igfo") for array in (both, params.bias - forget))
        return {f"{name}/linear": {"w": w, "b": b}}
    if isinstance(cell, ResetBeforeGRU):
        w_i, w_h, b = map(_to_zra, params)
        return {name: {"w_i": w_i, "w_h": w_h, "b": b}}
    if not isinstance(cell, Elman):
        raise refuse("Haiku", cell, (Elman, LSTM, ResetBeforeGRU))
    if activation_name("Haiku", cell) != "relu":
        raise TypeError(
            f"Haiku's VanillaRNN has ReLU, got {cell!r}; no core has another activation"
        )
    return {
        f"{name}/linear": {"w": params.input_kernel, "b": params.bias},
        f"{name}/linear_1": {"w": params.recurrent_kernel, "b": jnp.zeros_like(params.bias)},
    }


def _from_zra(array: Array) -> Array:
    """From the gates z, r, a to r, z, n, with z negated."""
    z, r, n = jnp.split(array, 3, axis=-1)
    return jnp.concatenate([r, -z, n], axis=-1)


def _to_zra(array: Array) -> Array:
    r, z, n = jnp.split(array, 3, axis=-1)
    return jnp.concatenate([-z, r, n], axis=-1)
