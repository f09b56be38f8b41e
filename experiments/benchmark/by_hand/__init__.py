"""Twelve cells of `jaxrnn.cells` as a good engineer would hoist them by hand, in plain JAX.

Three of each kind: with one product in the loop, with two, with none (a diagonal recurrence), and
with a convolution. What needs no state is done for all steps before the loop, an array a gate. The
backward pass keeps the activations of every step, leaves in its loop what must be there, and takes
each weight gradient in one contraction over time and batch after it.
"""

from typing import NamedTuple

import jaxrnn as rnn
from experiments.benchmark.by_hand import convolution, diagonal, one_product, two_products
from experiments.benchmark.by_hand.hoisted import Run


class Peer(NamedTuple):
    """A cell and the same cell by hand."""

    kind: str
    cell: rnn.Cell
    run: Run


def peers(hidden: int, points: int = 8, features: int = 8) -> dict[str, Peer]:
    """All of them by name.

    Args:
        hidden: features of the state.
        points: points of space along each axis, where there is space; in three dimensions half.
        features: features of the state at every point.
    """
    half = max(points // 2, 1)
    return {
        "LSTM": Peer("one product", rnn.LSTM(hidden), one_product.lstm),
        "CoupledLSTM": Peer("one product", rnn.CoupledLSTM(hidden), one_product.coupled_lstm),
        "JANET": Peer("one product", rnn.JANET(hidden), one_product.janet),
        "ResetBeforeGRU": Peer(
            "two products", rnn.ResetBeforeGRU(hidden), two_products.reset_before_gru
        ),
        "MinimalGatedUnit": Peer(
            "two products", rnn.MinimalGatedUnit(hidden), two_products.minimal_gated_unit
        ),
        "LEM": Peer("two products", rnn.LEM(hidden), two_products.lem),
        "IndRNN": Peer("diagonal", rnn.IndRNN(hidden), diagonal.indrnn),
        "BRC": Peer("diagonal", rnn.BRC(hidden), diagonal.brc),
        "ParaGRU": Peer("diagonal", rnn.ParaGRU(hidden), diagonal.para_gru),
        "ConvLSTM(1D)": Peer(
            "convolution", rnn.ConvLSTM(features, (3,), (points**2,)), convolution.conv_lstm
        ),
        "ConvLSTM(2D)": Peer(
            "convolution", rnn.ConvLSTM(features, (3, 3), (points, points)), convolution.conv_lstm
        ),
        "ConvLSTM(3D)": Peer(
            "convolution", rnn.ConvLSTM(features, (3, 3, 3), (half,) * 3), convolution.conv_lstm
        ),
    }
