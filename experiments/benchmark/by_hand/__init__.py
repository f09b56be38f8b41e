"""Cells hoisted by hand in plain JAX, as an experienced engineer would write them.

Three of each kind: with one product in the loop, with two, with none (a diagonal recurrence), and
with a convolution; and `TwoSpeed`, which no library has. What does not depend on the state is
computed for all steps before the loop, one array per gate. The backward pass saves the activations
of every step, keeps in its loop only what must be there, and computes each weight gradient after
the loop in one contraction over time and batch.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

import jaxrnn as rnn
from experiments.benchmark.by_hand import convolution, diagonal, one_product, two_products
from experiments.benchmark.by_hand.hoisted import Run
from experiments.benchmark.peers import plain
from experiments.benchmark.peers.workload import JaxNetwork, Peer, Workload


class ByHand(NamedTuple):
    """A cell of the library and its handwritten version."""

    kind: str
    cell: Any
    run: Run


def cells(hidden: int, points: int = 8, features: int = 8) -> dict[str, ByHand]:
    """Twelve cells by name.

    Args:
        hidden: features of the state.
        points: points of space along each of two axes; their square on one axis, half in three.
        features: features of the state at every point.
    """
    half = max(points // 2, 1)
    spaces = {"1D": (points**2,), "2D": (points, points), "3D": (half,) * 3}
    dense = {
        "one product": {
            rnn.LSTM: one_product.lstm,
            rnn.CoupledLSTM: one_product.coupled_lstm,
            rnn.JANET: one_product.janet,
        },
        "two products": {
            rnn.ResetBeforeGRU: two_products.reset_before_gru,
            rnn.MinimalGatedUnit: two_products.minimal_gated_unit,
            rnn.LEM: two_products.lem,
        },
        "diagonal": {
            rnn.IndRNN: diagonal.indrnn,
            rnn.BRC: diagonal.brc,
            rnn.ParaGRU: diagonal.para_gru,
        },
    }
    found = {
        make.__name__: ByHand(kind, make(hidden), run)
        for kind, runs in dense.items()
        for make, run in runs.items()
    }
    for name, shape in spaces.items():
        cell = rnn.ConvLSTM(features, (3,) * len(shape), shape)
        found[f"ConvLSTM({name})"] = ByHand("convolution", cell, convolution.conv_lstm)
    return found


# The benchmark's peer -----------------------------------------------------------------------------

RUNS = {"two-speed": one_product.two_speed, "reset-before-gru": two_products.reset_before_gru}


def _limit(workload: Workload) -> str | None:
    if workload.layers > 1 or workload.bidirectional or workload.dtype != "float32":
        return "supports one layer in float32 only"
    return None


def _build(workload: Workload) -> JaxNetwork:
    """The function of the cell, with the weights that the library's engines get."""
    weights, state = plain.draw(workload, workload.inputs)
    xs = jnp.asarray(workload.draw_inputs(), workload.dtype)
    return JaxNetwork(workload, RUNS[workload.cell], weights, state, xs)


peer = Peer(RUNS, _build, _limit)
