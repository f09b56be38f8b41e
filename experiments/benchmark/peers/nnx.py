"""Flax nnx: `nnx.RNN`, time first, its parameters split off so that they are arguments."""

import jax.numpy as jnp
from flax import nnx

from experiments.benchmark.peers.work import JaxNetwork, Layer, Work, refusal, stack

CELLS = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "elman": nnx.SimpleCell}


def why_not(work: Work) -> str | None:
    """Its cells only."""
    return refusal(work, CELLS)


def build(work: Work) -> JaxNetwork:
    """One `nnx.RNN` a layer and direction."""

    def make_layer(input_size: int, reverse: bool) -> Layer:
        rngs = nnx.Rngs(0)
        cell = CELLS[work.cell](
            input_size,
            work.hidden,
            dtype=work.dtype,
            param_dtype=work.dtype,
            # The weights are drawn below; an orthogonal matrix cannot be drawn in bfloat16.
            recurrent_kernel_init=nnx.initializers.lecun_normal(),
            rngs=rngs,
        )
        net = nnx.RNN(cell, time_major=True, return_carry=True, reverse=reverse, keep_order=True)
        graph, weights, rest = nnx.split(net, nnx.Param, ...)
        carry = cell.initialize_carry((work.batch, input_size), rngs)

        def apply(weights, state, xs):
            final_state, ys = nnx.merge(graph, weights, rest)(xs, initial_carry=state)
            return final_state, ys

        return Layer(apply, work.fill(weights, "weights"), work.fill(carry, "state"))

    return stack(work, make_layer, jnp.asarray(work.draw_inputs(), work.dtype))
