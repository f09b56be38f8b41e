"""Learning rules under `jax.shard_map` over the batch, in a process with four devices."""

import functools

import jax
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxrnn as rnn
from jaxrnn.learning import RTRL, TBPTT, UORO, EProp
from tests.support.helpers import assert_near, weighted_sum

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")


def main():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    cell = rnn.GRU(3)
    params = cell.init(jax.random.key(0), 2, "float64")
    xs = jax.random.normal(jax.random.key(1), (5, 8, 2), "float64")
    mask = np.arange(40).reshape(5, 8) % 3 > 0

    def loss(params, xs, mask, rule):
        key = jax.random.key(2) if rule == UORO() else None
        return weighted_sum(rnn.unroll(cell, params, xs, mask=mask, key=key, engine=rule)[1][:, :2])

    for rule in (RTRL(), EProp(), TBPTT(2), UORO()):

        @functools.partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(P(), P(None, "rows"), P(None, "rows")),
            out_specs=P(),
        )
        def sharded(params, xs, mask):
            total, found = jax.value_and_grad(loss)(params, xs, mask, rule)  # noqa: B023
            return jax.lax.psum(total, "rows"), found

        total, got = jax.jit(sharded)(params, xs, mask)
        assert np.isfinite(total)
        if rule != UORO():
            want = jax.tree.map(np.zeros_like, params)
            for n in range(4):
                part = jax.grad(loss)(
                    params, xs[:, 2 * n : 2 * n + 2], mask[:, 2 * n : 2 * n + 2], rule
                )
                want = jax.tree.map(np.add, want, part)
            assert_near(jax.tree.map(np.asarray, got), want, 1e-10)


if __name__ == "__main__":
    main()
