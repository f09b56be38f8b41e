"""Run in a separate process with four devices: `unroll` with time sharded.

With ``--all``, the full product of cells and engines.
"""

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import conftest  # noqa: F401  (the suite's settings)
import jaxrnn as rnn
from jaxrnn.engines import Associative, Sequential
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.compiled import read_program
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH = 12, 4
REPLICATED, SHARDED = P(), P("time")


def work(case):
    rng = np.random.default_rng(0)
    flags = {"mask": rng.random((TIME, BATCH)) < 0.7, "starts": rng.random((TIME, BATCH)) < 0.2}
    arrays = random_params(case), random_state(case, (BATCH,)), random_inputs(case, (TIME, BATCH))
    return *arrays, jax.tree.map(jnp.asarray, flags)


def results(run):
    def loss(*floats_and_flags):
        out = run(*floats_and_flags)
        return weighted_sum(out), out

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))


def agrees(case, mesh, spec, engine, reverse, flags):
    params, state, xs, both = work(case)
    both = {name: both[name] for name in flags}

    def run(params, state, xs, flags, engine):
        return rnn.unroll(case.cell, params, xs, state, engine=engine, reverse=reverse, **flags)

    want = results(functools.partial(run, engine=Sequential()))(params, state, xs, both)
    with jax.set_mesh(mesh):
        xs, both = jax.device_put((xs, both), NamedSharding(mesh, spec))
        program = results(functools.partial(run, engine=engine))
        program = program.lower(params, state, xs, both).compile()
        got = program(params, state, xs, both)
    assert_near(got, want, 1e-12)
    for item in read_program(program).collectives():  # the mask's first valid step is exchanged
        assert flags or not any(TIME in shape for shape in item.shapes), item.text
    _, (_, ys) = got
    assert len(ys.sharding.device_set) == 4, "the outputs were gathered on fewer devices"
    return want


def agrees_within_shard_map(case, mesh, engine, reverse, rows=REPLICATED, times=SHARDED):
    params, state, xs, _ = work(case)

    def run(params, state, xs, engine):
        return rnn.unroll(case.cell, params, xs, state, engine=engine, reverse=reverse)

    want = results(functools.partial(run, engine=Sequential()))(params, state, xs)
    mapped = jax.shard_map(
        functools.partial(run, engine=engine),
        mesh=mesh,
        in_specs=(P(), rows, times),
        out_specs=(rows, times),
    )
    assert_near(results(mapped)(params, state, xs), want, 1e-12)


def refuses(line):
    case, engine = Case(rnn.MinGRU(4)), Associative(axis_name="time")
    params, _, xs, flags = work(case)
    with jax.set_mesh(line), pytest.raises(ValueError, match="not a multiple of the 4 devices"):
        rnn.unroll(case.cell, params, xs[:-1], engine=engine)

    def masked(params, xs, mask):
        return rnn.unroll(case.cell, params, xs, mask=mask, engine=engine)[1]

    mapped = jax.shard_map(masked, mesh=line, in_specs=(P(), SHARDED, SHARDED), out_specs=SHARDED)
    with pytest.raises(ValueError, match="call with whole arrays"):
        mapped(params, xs, flags["mask"])
    explicit = jax.make_mesh((4,), ("time",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(explicit), pytest.raises(ValueError, match="axis with explicit shardings"):
        rnn.unroll(case.cell, params, xs, engine=engine)

    masked = {"mask": flags["mask"]}
    delta, mlstm = Case(rnn.DeltaNet(4, num_heads=2)), Case(rnn.MLSTM(4, num_heads=2))
    for case, arguments, what in ((delta, {}, "chunks on"), (mlstm, masked, "a mask on")):
        params, _, xs, _ = work(case)
        with jax.set_mesh(line), pytest.raises(ValueError, match=f"{what} different devices"):
            rnn.unroll(case.cell, params, xs, engine=engine, **arguments)


def main(everything: bool):
    line = jax.make_mesh((4,), ("time",), axis_types=(AxisType.Auto,))
    grid = jax.make_mesh((2, 2), ("time", "batch"), axis_types=(AxisType.Auto,) * 2)
    engines = Associative(axis_name="time"), Associative(axis_name="time", tree=True)
    affine = Case(rnn.MinGRU(4)), Case(rnn.LRU(3))
    for n, m in itertools.product(range(2), range(2)):
        case, engine, reverse = affine[n], engines[m], m == 1
        if n == m or everything:
            agrees(case, line, P("time"), engine, reverse, ("mask", "starts"))
        if n != m or everything:
            agrees(case, grid, P("time", "batch"), engine, reverse, ())
        if n == m or everything:
            agrees_within_shard_map(case, line, engine, reverse)
    batch_engines = Associative(chunk_size=5), Associative(tree=True)
    for n, case in enumerate((Case(rnn.LRU(3)), Case(rnn.DeltaNet(4, num_heads=2)))):
        for m, engine in enumerate(batch_engines):  # the batch is sharded
            if n != m or everything:
                agrees_within_shard_map(case, line, engine, False, P("time"), P(None, "time"))
    spanned = Case(rnn.MLSTM(4, num_heads=2)), Case(rnn.GatedLinearAttention(4, num_heads=2))
    for n, case in enumerate(spanned):
        for reverse in (False, True) if everything else (n == 0,):
            agrees(case, line, P("time"), engines[0], reverse, ())
            agrees_within_shard_map(case, line, engines[0], not reverse)
            if everything:
                agrees(case, grid, P("time", "batch"), engines[0], reverse, ())
    agrees(spanned[1], line, P("time"), engines[0], False, ("mask", "starts"))  # affine
    refuses(line)


if __name__ == "__main__":
    main("--all" in sys.argv)
