"""One of several processes over whose devices time is sharded: values and gradients of one process.

python -m tests.support.time_over_processes --coordinator=HOST:PORT --processes=2 --process=0
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import conftest  # noqa: F401  (the suite's settings)
import jaxrnn as rnn
from jaxrnn.engines import Associative, Sequential
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH = 12, 2
CELLS = {
    "LRU": rnn.LRU(3),
    "MinGRU": rnn.MinGRU(4),
    "S5": rnn.S5(4, output_size=3),
    "GatedLinearAttention": rnn.GatedLinearAttention(4, num_heads=2),
    "MLSTM": rnn.MLSTM(4, num_heads=2),
}


def check(cell, mesh, reverse: bool) -> None:
    case = Case(cell)
    work = random_params(case), random_state(case, (BATCH,)), random_inputs(case, (TIME, BATCH))

    def results(engine):
        def loss(params, state, xs):
            out = rnn.unroll(cell, params, xs, state, engine=engine, reverse=reverse)
            return weighted_sum(out), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))

    want = jax.device_get(results(Sequential())(*work))
    specs = P(), P(), P("time")
    placed = [
        jax.tree.map(lambda leaf, spec=spec: spread(leaf, NamedSharding(mesh, spec)), tree)
        for tree, spec in zip(work, specs, strict=True)
    ]
    with jax.set_mesh(mesh):
        got = results(Associative(axis_name="time"))(*placed)
    got = multihost_utils.process_allgather(got, tiled=True)
    assert_near(jax.tree.map(jnp.asarray, got), jax.tree.map(jnp.asarray, want), 1e-10)


def spread(leaf, sharding):
    """An array over all processes; each gives the part of its own devices."""
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--cells", default=",".join(CELLS))
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    jax.distributed.initialize(
        options.coordinator, options.processes, options.process, initialization_timeout=60
    )
    mesh = jax.make_mesh((jax.device_count(),), ("time",), axis_types=(AxisType.Auto,))
    for number, name in enumerate(options.cells.split(",")):
        check(CELLS[name], mesh, reverse=number % 2 == 1)
    print("agree on", jax.device_count(), "devices of", jax.process_count(), "processes")


if __name__ == "__main__":
    main()
