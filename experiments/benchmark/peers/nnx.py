"""Flax nnx: `nnx.RNN`, time first, with its parameters as arguments."""

from flax import nnx

from experiments.benchmark.peers.workload import Contender, Layer, Workload, stacked, supports

CELLS = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "elman": nnx.SimpleCell}


def make_layer(workload: Workload, input_size: int, reverse: bool) -> Layer:
    """One `nnx.RNN`."""
    rngs = nnx.Rngs(0)
    cell = CELLS[workload.cell](
        input_size,
        workload.hidden,
        dtype=workload.dtype,
        param_dtype=workload.dtype,
        # The weights are drawn below; an orthogonal matrix cannot be drawn in bfloat16.
        recurrent_kernel_init=nnx.initializers.lecun_normal(),
        rngs=rngs,
    )
    net = nnx.RNN(cell, time_major=True, return_carry=True, reverse=reverse, keep_order=True)
    graph, weights, rest = nnx.split(net, nnx.Param, ...)
    carry = cell.initialize_carry((workload.batch, input_size), rngs)

    def apply(weights, state, xs):
        final_state, ys = nnx.merge(graph, weights, rest)(xs, initial_carry=state)
        return final_state, ys

    return Layer(apply, workload.fill(weights, "weights"), workload.fill(carry, "state"))


contender = Contender("Flax nnx", "jax", supports(CELLS), stacked(make_layer))
