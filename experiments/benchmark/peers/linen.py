"""Flax linen: `nn.RNN`, time first, with its fastest cells."""

import jax
from flax import linen as nn

from experiments.benchmark.peers.workload import Contender, Layer, Workload, stacked, supports

CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "elman": nn.SimpleCell}


def make_layer(workload: Workload, input_size: int, reverse: bool) -> Layer:
    """One `nn.RNN`."""
    cell = CELLS[workload.cell](workload.hidden, dtype=workload.dtype, param_dtype=workload.dtype)
    net = nn.RNN(cell, time_major=True, return_carry=True, reverse=reverse, keep_order=True)
    xs = jax.ShapeDtypeStruct((1, workload.batch, input_size), workload.dtype)
    shapes = jax.eval_shape(net.init, jax.random.key(0), xs)
    carry = jax.eval_shape(lambda key: cell.initialize_carry(key, xs.shape[1:]), jax.random.key(0))

    def apply(weights, state, xs):
        return net.apply(weights, xs, initial_carry=state)

    return Layer(apply, workload.fill(shapes, "weights"), workload.fill(carry, "state"))


contender = Contender("Flax linen", "jax", supports(CELLS), stacked(make_layer))
