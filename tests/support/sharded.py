"""Run in a separate process with four devices: `unroll` with the batch sharded.

With ``--all``, on all engines.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import conftest  # noqa: F401  (the suite's settings)
import jaxrnn as rnn
from jaxrnn.engines import Hoisted, Newton
from tests.support.cases import CELLS, ENGINES, random_inputs, random_params
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH = 4, 8
ROWS = P(None, "batch")  # [time, batch, ...]


def agrees(case, engine, params, xs, mask, typed):
    def run(params, xs, mask):  # the initial state must be sharded, too
        return rnn.unroll(case.cell, params, xs, mask=mask, engine=engine)

    def results(run):
        def loss(*work):
            out = run(*work)
            return weighted_sum(out), out

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    def placed(mesh):
        return [
            jax.device_put(tree, NamedSharding(mesh, spec))
            for tree, spec in ((params, P()), (xs, ROWS), (mask, ROWS))
        ]

    want = results(run)(params, xs, mask)
    for kind in (AxisType.Explicit, AxisType.Auto):
        mesh = jax.make_mesh((4,), ("batch",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            if kind == AxisType.Explicit and not typed:
                refuses(results(run), placed(mesh))
                continue
            got = results(run)(*placed(mesh))
            assert_near(got, want, 1e-12)
            _, (_, ys) = got
            assert len(ys.sharding.device_set) == 4, "the outputs were gathered on fewer devices"
    mapped = jax.shard_map(run, mesh=mesh, in_specs=(P(), ROWS, ROWS), out_specs=(P("batch"), ROWS))
    with jax.set_mesh(mesh):
        if typed:
            assert_near(results(mapped)(*placed(mesh)), want, 1e-12)
        else:
            refuses(results(mapped), placed(mesh))


def refuses(run, work):
    with pytest.raises(ValueError, match="hold a sharding"):
        run(*work)


def main(everything: bool):
    case = next(case for case in CELLS if isinstance(case.cell, rnn.LSTM))
    mask = np.random.default_rng(0).integers(0, 2, size=(TIME, BATCH)).astype(bool)
    work = random_params(case), random_inputs(case, (TIME, BATCH)), jnp.asarray(mask)
    for engine in ENGINES:
        if engine.takes(case) and (everything or engine.engine in (Hoisted(), Newton())):
            agrees(case, engine.engine, *work, engine.typed)


if __name__ == "__main__":
    main("--all" in sys.argv)
