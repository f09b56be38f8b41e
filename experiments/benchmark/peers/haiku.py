"""Haiku: `hk.dynamic_unroll`, time first.

Its GRU applies the reset gate before the product, so it is compared with `ResetBeforeGRU`. Its
`VanillaRNN` has rectified linear units instead of tanh, so it is compared with nothing.
"""

from typing import Any

import haiku as hk
import jax

from experiments.benchmark.peers.workload import Contender, Layer, Workload, stacked, supports

CELLS = {"lstm": hk.LSTM, "reset-before-gru": hk.GRU}


def make_layer(workload: Workload, input_size: int, reverse: bool) -> Layer:
    """One unroll."""

    def run(xs, state):
        ys, state = hk.dynamic_unroll(
            CELLS[workload.cell](workload.hidden), xs, state, reverse=reverse
        )
        return state, ys

    net = hk.without_apply_rng(hk.transform(run))
    hidden: Any = jax.ShapeDtypeStruct((workload.batch, workload.hidden), workload.dtype)
    state = hk.LSTMState(hidden, hidden) if workload.cell == "lstm" else hidden
    xs = jax.ShapeDtypeStruct((1, workload.batch, input_size), workload.dtype)
    shapes = jax.eval_shape(net.init, jax.random.key(0), xs, state)

    def apply(weights, state, xs):
        return net.apply(weights, xs, state)

    return Layer(apply, workload.fill(shapes, "weights"), workload.fill(state, "state"))


contender = Contender("Haiku", "jax", supports(CELLS), stacked(make_layer))
