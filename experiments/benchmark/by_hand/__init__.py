"""Cells hoisted by hand in plain JAX, as an experienced engineer would write them.

Three of each kind: with one product in the loop, with two, with none (a diagonal recurrence), and
with a convolution; and the two-speed cell, which no library has. What does not depend on the
state is computed for all steps before the loop, one array per gate. The backward pass saves the
activations of every step, keeps in its loop only what must be there, and computes each weight
gradient after the loop in one contraction over time and batch.
"""

from typing import Any, NamedTuple

import jaxrnn as rnn
from experiments.benchmark.by_hand import convolution, diagonal, one_product, two_products
from experiments.benchmark.by_hand.hoisted import Run
from experiments.benchmark.peers import plain
from experiments.benchmark.peers.workload import Contender, JaxNetwork, Workload, supports


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
    found = [
        ByHand("one product", rnn.LSTM(hidden), one_product.lstm),
        ByHand("one product", rnn.CoupledLSTM(hidden), one_product.coupled_lstm),
        ByHand("one product", rnn.JANET(hidden), one_product.janet),
        ByHand("two products", rnn.ResetBeforeGRU(hidden), two_products.reset_before_gru),
        ByHand("two products", rnn.MinimalGatedUnit(hidden), two_products.minimal_gated_unit),
        ByHand("two products", rnn.LEM(hidden), two_products.lem),
        ByHand("diagonal", rnn.IndRNN(hidden), diagonal.indrnn),
        ByHand("diagonal", rnn.BRC(hidden), diagonal.brc),
        ByHand("diagonal", rnn.ParaGRU(hidden), diagonal.para_gru),
    ]
    named = {type(entry.cell).__name__: entry for entry in found}
    for shape in ((points**2,), (points, points), (half, half, half)):
        cell = rnn.ConvLSTM(features, (3,) * len(shape), shape)
        named[f"ConvLSTM({len(shape)}D)"] = ByHand("convolution", cell, convolution.conv_lstm)
    return named


# The benchmark's peer -----------------------------------------------------------------------------

RUNS = {"two-speed": one_product.two_speed, "reset-before-gru": two_products.reset_before_gru}


def limit(workload: Workload) -> str | None:
    """One layer, forward in time, in float32."""
    if workload.layers > 1 or workload.bidirectional or workload.dtype != "float32":
        return "supports one layer in float32 only"
    return None


def build(workload: Workload) -> JaxNetwork:
    """The function of the cell, with the weights of the library's cell."""
    weights, state = plain.draw(workload, workload.inputs)
    return JaxNetwork(workload, RUNS[workload.cell], weights, state, workload.xs())


contender = Contender("hoisted by hand", "by hand", supports(RUNS, limit), build, same_weights=True)
