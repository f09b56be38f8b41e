"""Haiku: `hk.dynamic_unroll`, time first.

Its GRU applies the reset gate before the product, so it stands beside `ResetBeforeGRU`. Its
`VanillaRNN` has rectified units, which is other work than tanh, so it stands nowhere.
"""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.benchmark.peers.work import JaxNetwork, Layer, Work, refusal, stack

CELLS = {"lstm": hk.LSTM, "reset-before-gru": hk.GRU}


def why_not(work: Work) -> str | None:
    """Its cells only."""
    return refusal(work, CELLS)


def build(work: Work) -> JaxNetwork:
    """One unroll a layer and direction."""

    def make_layer(input_size: int, reverse: bool) -> Layer:
        def run(xs, state):
            ys, state = hk.dynamic_unroll(CELLS[work.cell](work.hidden), xs, state, reverse=reverse)
            return state, ys

        net = hk.without_apply_rng(hk.transform(run))
        hidden: Any = jax.ShapeDtypeStruct((work.batch, work.hidden), work.dtype)
        state = hk.LSTMState(hidden, hidden) if work.cell == "lstm" else hidden
        xs = jax.ShapeDtypeStruct((1, work.batch, input_size), work.dtype)
        shapes = jax.eval_shape(net.init, jax.random.key(0), xs, state)

        def apply(weights, state, xs):
            return net.apply(weights, xs, state)

        return Layer(apply, work.fill(shapes, "weights"), work.fill(state, "state"))

    return stack(work, make_layer, jnp.asarray(work.draw_inputs(), work.dtype))
