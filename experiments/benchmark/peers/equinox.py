"""Equinox: its cells, written for one example, under `jax.vmap` inside one scan.

`jax.vmap` around the scan gives nearly the same program and about the same times.
"""

import equinox as eqx
import jax

from experiments.benchmark.peers.workload import Contender, Layer, Workload, stacked, supports

CELLS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}


def make_layer(workload: Workload, input_size: int, reverse: bool) -> Layer:
    """One scan."""
    cell = CELLS[workload.cell](
        input_size, workload.hidden, dtype=workload.dtype, key=jax.random.key(0)
    )
    hidden = jax.ShapeDtypeStruct((workload.batch, workload.hidden), workload.dtype)
    state = (hidden, hidden) if workload.cell == "lstm" else hidden

    def apply(cell, state, xs):
        def body(state, x):
            state = jax.vmap(cell)(x, state)
            return state, state[0] if workload.cell == "lstm" else state

        return jax.lax.scan(body, state, xs, reverse=reverse)

    return Layer(apply, workload.fill(cell, "weights"), workload.fill(state, "state"))


contender = Contender("Equinox", "jax", supports(CELLS), stacked(make_layer))
