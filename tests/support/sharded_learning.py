"""Learning rules over the four devices of a process of their own.

Within `jax.shard_map`, the gradient of `unroll` is the sum over devices. A stream whose batch is
sharded, automatically, explicitly or within `jax.shard_map`, has the values of one device, and the
compiled program is read: a device does a quarter of the multiply-adds, makes no array as large as
the influence of all rows, and exchanges gradients of parameters only.
"""

import functools
import itertools
import math
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import conftest  # noqa: F401  (the suite's settings)
import jaxrnn as rnn
from jaxrnn.learning import RFLO, RTRL, TBPTT, UORO, EProp, Online, SnAp
from jaxrnn.wrappers import LearnedInitialState, Masked, MaskedInput
from tests.support.compiled import read_program
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH, SIZE, DEVICES = 5, 12, 8, 4


class StreamCase(NamedTuple):
    """A rule and the cell that learns by it."""

    rule: Any
    cell: Any


STREAMS = {
    "episodes": StreamCase(RTRL(), Masked(LearnedInitialState(rnn.GRU(SIZE)))),
    "dense": StreamCase(RTRL(), rnn.LSTM(SIZE)),
    "diagonal": StreamCase(RTRL(), rnn.LRU(SIZE)),
    "old_state": StreamCase(RTRL(), rnn.Jordan(SIZE, output_size=SIZE, decay=0.5)),
    "snap": StreamCase(SnAp(1), rnn.LSTM(SIZE)),
    "uoro": StreamCase(UORO(), rnn.GRU(SIZE)),
    "rflo": StreamCase(RFLO(), rnn.FastRNN(SIZE)),
    "eprop": StreamCase(EProp(), rnn.LSTM(SIZE)),
    "tbptt": StreamCase(TBPTT(3), rnn.GRU(SIZE)),
}
MODES = ("explicit", "shard_map", "auto")
MESHES = (("rows",), ("rows", "more"))


def stream(case: StreamCase, params, xs):
    """The outputs, the last state, and the sum of all steps' gradients of ``Σ y² / 2``."""
    learner = Online(case.cell, case.rule)
    key = jax.random.key(2) if case.rule == UORO() else None
    rows = jax.tree.leaves(xs)[0].shape[1]
    state = case.cell.init_state(params, (rows,))
    carry = learner.init(params, state, key, x=jax.tree.map(lambda x: x[0], xs))

    def body(loop, x):
        carry, y = learner.step(params, loop[0], x)
        found = learner.gradient(params, carry, y)
        return (carry, jax.tree.map(jnp.add, loop[1], found)), y

    zeros = jax.tree.map(jnp.zeros_like, params)
    (carry, total), ys = jax.lax.scan(body, (carry, zeros), xs)
    return total, carry.state, ys


def work(case: StreamCase):
    rng = np.random.default_rng(0)
    xs: Any = jnp.asarray(rng.normal(size=(TIME, BATCH, SIZE)))
    params = case.cell.init(jax.random.key(0), SIZE, "float64")
    params = jax.tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape), params)
    if isinstance(case.cell, Masked):
        flags = rng.random((2, TIME, BATCH)) < [[[0.7]], [[0.3]]]
        xs = MaskedInput(xs, *map(jnp.asarray, flags))
    return params, xs


def by_blocks(run, params, xs):
    """Each device's rows by themselves: those of `jax.shard_map`, which draw the same numbers."""
    size = BATCH // DEVICES
    blocks = [
        run(params, jax.tree.map(lambda x: x[:, n : n + size], xs))  # noqa: B023
        for n in range(0, BATCH, size)
    ]
    totals, states, ys = zip(*blocks, strict=True)
    return (
        jax.tree.map(lambda *parts: sum(parts), *totals),
        jax.tree.map(lambda *parts: jnp.concatenate(parts), *states),
        jnp.concatenate(ys, axis=1),
    )


def check_stream(name: str, mode: str, axes: tuple[str, ...]) -> None:
    case = STREAMS[name]
    params, xs = work(case)
    run = functools.partial(stream, case)
    kind = AxisType.Explicit if mode == "explicit" else AxisType.Auto
    shape = (4,) if len(axes) == 1 else (2, 2)
    mesh = jax.make_mesh(shape, axes, axis_types=(kind,) * len(axes))
    alone = jax.jit(run).lower(params, xs).compile()
    sharded, want = run, alone(params, xs)
    if mode == "shard_map":
        specs = P(), P(None, axes)
        sharded = jax.shard_map(
            run, mesh=mesh, in_specs=specs, out_specs=(P(), P(axes), P(None, axes))
        )
        want = by_blocks(jax.jit(run), params, xs)
    placed = jax.device_put(
        (params, xs), (NamedSharding(mesh, P()), NamedSharding(mesh, P(None, axes)))
    )
    with jax.set_mesh(mesh):
        together = jax.jit(sharded).lower(*placed).compile()
        got = together(*placed)
    assert_near(got, want, 1e-10)

    before, after = read_program(alone), read_program(together)
    quarter = after.multiply_adds() / before.multiply_adds()
    assert quarter <= 1.1 / 4, f"a device does {quarter:.2f} of the multiply-adds of one"
    part = largest(after) / largest(before)
    assert part <= 1.1 / 4, f"the largest array of a device has {part:.2f} of the elements of one"
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    for item in after.collectives():
        elements = max(map(math.prod, item.shapes))
        assert item.opcode == "all-reduce" and elements <= max(sizes), item.text[:300]


def largest(program) -> int:
    """Elements of the largest array that a program makes."""
    return max(math.prod(shape) for item in program.instructions for shape in item.shapes)


def check_unroll() -> None:
    """Gradients of `unroll` within `jax.shard_map`, with a mask."""
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
        want = jax.tree.map(np.zeros_like, params)
        for n in range(4):
            rows = slice(2 * n, 2 * n + 2)
            part = jax.grad(loss)(params, xs[:, rows], mask[:, rows], rule)
            want = jax.tree.map(np.add, want, part)
        assert_near(jax.tree.map(np.asarray, got), want, 1e-10)


def main(names: list[str], everything: bool) -> None:
    if everything:
        check_unroll()
    modes = itertools.product(MODES, MESHES) if everything else [(m, MESHES[0]) for m in MODES[:2]]
    for name, (mode, axes) in itertools.product(names or STREAMS, list(modes)):
        try:
            check_stream(name, mode, axes)
        except Exception as error:
            error.add_note(f"{name}: {mode}, {axes}")
            raise


if __name__ == "__main__":
    main([name for name in sys.argv[1:] if name in STREAMS], "--all" in sys.argv)
