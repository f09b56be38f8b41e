"""Conversion from minGRU-pytorch."""

from typing import Any

import jax.numpy as jnp

from jaxrnn._typing import PyTree
from jaxrnn.cells import MinGRU, MinGRUParams, MinLSTM, MinLSTMParams
from jaxrnn.convert._arrays import Source, reorder
from jaxrnn.convert._modules import Dense, named_arrays, take_dense
from jaxrnn.convert._network import Part, assemble
from jaxrnn.convert._state_files import accepts_files

_GRU, _LSTM = "to_hidden_and_gate.weight", "to_hidden_and_f_i_gate.weight"


@accepts_files
def from_mingru(source: Any, *, prefix: str = "") -> tuple[Any, PyTree]:
    """Reads ``minGRU`` or ``minLSTM`` of the package minGRU-pytorch.

    Args:
        source: a module, its state dict, or the path of a file with one, as for `from_pytorch`.
        prefix: the prefix of the module in a larger model, with its dot, as in a ``minLM``:
            ``"layers.0.2."``.

    Returns:
        ``(network, params)``: `MinGRU` or `MinLSTM`, whose activation is the package's g; for a
        module with an output projection (``expansion_factor`` other than 1, or ``proj_out=True``)
        a `layers.Stack` of the cell and the projection.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> arrays = {"to_hidden_and_gate.weight": np.ones((8, 4))}
        >>> rnn.convert.from_mingru(arrays)[0]
        MinGRU(hidden_size=4)

    Note:
        The state carried over is that of the package's steps of length 1. For longer inputs its
        ``minLSTM`` applies g to ``prev_hidden`` once more, which its own steps do not do, and takes
        its logarithm in ``minGRU``, which is the same for the positive states that occur.
    """
    weights = Source("minGRU-pytorch", named_arrays(source, prefix), prefix)
    name, gates = (_LSTM, 3) if _LSTM in weights else (_GRU, 2)
    rows, inputs = weights.shape(name, f"{gates} * hidden", "input")
    if rows % gates:
        raise ValueError(f"{prefix}{name} must have the rows of {gates} gates, got {rows} rows")
    hidden = rows // gates
    kernel = weights.take(name, rows, inputs).T
    bias = jnp.zeros(rows, kernel.dtype)
    if gates == 2:
        part = Part(MinGRU(hidden), MinGRUParams(reorder(kernel, "hz", "zh"), bias))
    else:
        part = Part(MinLSTM(hidden), MinLSTMParams(reorder(kernel, "hfi", "fih"), bias))
    stack = [[part]]
    if "to_out.weight" in weights:
        stack.append([Part(Dense(inputs), take_dense(weights, "to_out", hidden, inputs))])
    weights.close()
    return assemble(stack)
