"""Flax linen: `nn.RNN`, time first, over the quickest cell that it has."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.benchmark.peers.work import JaxNetwork, Layer, Work, refusal, stack

CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "elman": nn.SimpleCell}


def why_not(work: Work) -> str | None:
    """Its cells only."""
    return refusal(work, CELLS)


def build(work: Work) -> JaxNetwork:
    """One `nn.RNN` a layer and direction."""

    def make_layer(input_size: int, reverse: bool) -> Layer:
        cell = CELLS[work.cell](work.hidden, dtype=work.dtype, param_dtype=work.dtype)
        net = nn.RNN(cell, time_major=True, return_carry=True, reverse=reverse, keep_order=True)
        xs = jax.ShapeDtypeStruct((1, work.batch, input_size), work.dtype)
        shapes = jax.eval_shape(net.init, jax.random.key(0), xs)
        carry = jax.eval_shape(
            lambda key: cell.initialize_carry(key, xs.shape[1:]), jax.random.key(0)
        )

        def apply(weights, state, xs):
            return net.apply(weights, xs, initial_carry=state)

        return Layer(apply, work.fill(shapes, "weights"), work.fill(carry, "state"))

    return stack(work, make_layer, jnp.asarray(work.draw_inputs(), work.dtype))
