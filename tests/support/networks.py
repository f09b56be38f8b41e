"""Networks with random parameters and biases for every cell with a counterpart in a framework."""

from typing import Any

import jax
import numpy as np

import jaxrnn as rnn
from jaxrnn.activations import relu

CELLS = {
    "elman": rnn.Elman(3),
    "relu": rnn.Elman(3, activation=relu),
    "lstm": rnn.LSTM(3),
    "peephole": rnn.PeepholeLSTM(3),
    "projected": rnn.ProjectedLSTM(3, 2),
    "gru": rnn.GRU(3),
    "reset_before": rnn.ResetBeforeGRU(3),
}


def network(kind: str, form: str) -> Any:
    """A cell alone, in two directions, or in a stack of two such layers."""
    cell = CELLS[kind]
    if form == "cell":
        return cell
    layer = rnn.layers.Bidirectional(cell, cell)
    return layer if form == "bidirectional" else rnn.layers.Stack((layer, layer))


FORMS = ("cell", "bidirectional", "stack")


def random_params(net: Any, input_size: int = 2, dtype: Any = "float64") -> Any:
    """Random parameters, biases included."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(lambda key: net.init(key, input_size, dtype), jax.random.key(0))
    return jax.tree.map(lambda s: jax.numpy.asarray(rng.normal(size=s.shape), s.dtype), shapes)
