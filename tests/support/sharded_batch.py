"""Run in a separate process with four devices: the batch is sharded, and each device does its part.

Values and gradients agree with one device's, and the compiled program is read: the multiply-adds
of a device are a quarter, nothing as long as time is exchanged, and each parameter's gradient is
summed over devices once.
"""

import itertools
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import conftest  # noqa: F401  (the suite's settings)
import jaxrnn as rnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn.engines import Associative, Hoisted, Newton, Sequential, hoisted
from jaxrnn.learning import RTRL, TBPTT, EProp
from tests.support.compiled import Program, read_program
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH, SIZE = 13, 12, 8


class EngineCase(NamedTuple):
    """An engine, the cell that it runs, and how often it may sum a gradient over devices.

    Under automatic sharding, a loop over time or chunks that accumulates a gradient sums it over
    devices in each iteration. ``steps`` is the size of the chunks of `Hoisted`. ``columns`` is the
    part of the multiply-adds that is left to each of four devices if columns are sharded too.
    """

    engine: Any
    cell: Any
    sums: int = 1
    steps: int = TIME
    columns: float = 1 / 4


ENGINES = {
    "hoisted": EngineCase(Hoisted(), rnn.LSTM(SIZE)),
    "checkpoints": EngineCase(Hoisted(checkpoint_every=4), rnn.LSTM(SIZE), sums=4),
    "loop": EngineCase(Associative(), rnn.MinGRU(SIZE)),
    "newton": EngineCase(Newton(), rnn.IndRNN(SIZE)),
    "sequential": EngineCase(Sequential(), rnn.LSTM(SIZE), sums=TIME),
    "gru": EngineCase(Hoisted(unroll=2), rnn.GRU(SIZE)),
    "gru_in_chunks": EngineCase(Hoisted(), rnn.GRU(SIZE), sums=4, steps=4),
    "tree": EngineCase(Associative(tree=True), rnn.LRU(SIZE)),
    "chunks": EngineCase(Associative(chunk_size=4), rnn.MinGRU(SIZE), sums=4),
    "closed_form": EngineCase(Associative(), rnn.MLSTM(SIZE, num_heads=2)),
    # Both branches of a choice count: in parallel, and the loop.
    "newton_dense": EngineCase(Newton(), rnn.GRU(SIZE), sums=2),
    "rtrl": EngineCase(RTRL(), rnn.GRU(SIZE), sums=TIME + 1),
    "rtrl_diagonal": EngineCase(RTRL(), rnn.LRU(SIZE), sums=TIME + 1),
    # XLA shards the rows of the traces alone, which have the gates on an axis of their own.
    "eprop": EngineCase(EProp(), rnn.LSTM(SIZE), sums=TIME + 1, columns=0.35),
    "tbptt": EngineCase(TBPTT(4), rnn.GRU(SIZE), sums=5),
}
WHAT = ("plain", "lengths", "starts", "stack", "bidirectional", "linen", "nnx")
MODES = ("auto", "explicit", "shard_map")
MESHES = (("rows",), ("rows", "more"))


class Work(NamedTuple):
    """A function of parameters, inputs and flags, and its arguments."""

    run: Any  # (params, xs, flags) -> pytree with leaves [batch, ...] or [time, batch, ...]
    params: Any
    xs: Any
    flags: dict[str, Any]


def work(case: EngineCase, what: str) -> Work:
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(TIME, BATCH, SIZE)))
    flags: dict[str, Any] = {}
    if what == "lengths":
        flags["lengths"] = jnp.asarray(rng.integers(0, TIME + 1, BATCH))
    if what == "starts":
        flags["starts"] = jnp.asarray(rng.random((TIME, BATCH)) < 0.3)
    if what == "linen":
        return linen_work(case, xs)
    if what == "nnx":
        return nnx_work(case, xs)
    if what in ("stack", "bidirectional"):
        one = rnn.layers.Recurrent(case.cell, engine=case.engine)
        pair = rnn.layers.Bidirectional(one, one)
        layer = pair if what == "bidirectional" else rnn.layers.Stack((one, one))

        def apply(params, xs, flags):
            return layer.apply(params, None, xs, **flags)

        params = layer.init(jax.random.key(0), SIZE, dtype="float64")
        return Work(apply, noisy(params), xs, flags)

    def run(params, xs, flags):
        return rnn.unroll(case.cell, params, xs, engine=case.engine, **flags)

    params = case.cell.init(jax.random.key(0), SIZE, "float64")
    return Work(run, noisy(params), xs, flags)


def linen_work(case: EngineCase, xs) -> Work:
    module = jaxrnn.linen.RNN(case.cell, engine=case.engine, time_major=True)
    params = noisy(module.init(jax.random.key(0), xs))
    return Work(lambda params, xs, flags: module.apply(params, xs), params, xs, {})


def nnx_work(case: EngineCase, xs) -> Work:
    module = jaxrnn.nnx.RNN(
        jaxrnn.nnx.Cell(case.cell, SIZE, rngs=nnx.Rngs(0)), engine=case.engine, time_major=True
    )
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def run(params, xs, flags):
        return nnx.merge(graph, params, rest)(xs)

    return Work(run, noisy(params), xs, {})


def noisy(params):
    """The parameters in float64, with no bias zero."""
    rng = np.random.default_rng(1)

    def draw(leaf):
        return leaf.astype("float64") + 0.3 * rng.normal(size=leaf.shape)

    return jax.tree.map(draw, params)


def results(run, gradient: bool):
    if not gradient:
        return jax.jit(run)

    def loss(*arguments):
        out = run(*arguments)
        return weighted_sum(out), out

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))


def rows_of(mesh_axes, tree):
    """Specs of leaves ``[time, batch, ...]`` or ``[batch, ...]``, by where the batch is."""

    def spec(leaf):
        return P(None, mesh_axes) if leaf.ndim > 1 and leaf.shape[1] == BATCH else P(mesh_axes)

    return jax.tree.map(spec, tree)


def check(name: str, gradient: bool, mode: str, axes: tuple[str, ...], what: str) -> None:
    case = ENGINES[name]
    hoisted._steps_per_chunk = lambda plan, time: case.steps
    jax.clear_caches()
    run, params, xs, flags = work(case, what)
    kind = AxisType.Explicit if mode == "explicit" else AxisType.Auto
    shape = (4,) if len(axes) == 1 else (2, 2)
    mesh = jax.make_mesh(shape, axes, axis_types=(kind,) * len(axes))
    flag_specs = {key: P(axes) if key == "lengths" else P(None, axes) for key in flags}
    specs = P(), P(None, axes), flag_specs

    alone = results(run, gradient).lower(params, xs, flags).compile()
    want = alone(params, xs, flags)
    sharded = run
    if mode == "shard_map":
        out = jax.eval_shape(run, params, xs, flags)
        sharded = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=rows_of(axes, out))
    placed = jax.device_put(
        (params, xs, flags),
        (
            NamedSharding(mesh, P()),
            NamedSharding(mesh, P(None, axes)),
            {key: NamedSharding(mesh, spec) for key, spec in flag_specs.items()},
        ),
    )
    with jax.set_mesh(mesh):
        together = results(sharded, gradient).lower(*placed).compile()
        got = together(*placed)
    assert_near(got, want, 1e-10)

    before, after = read_program(alone), read_program(together)
    quarter = after.multiply_adds() / before.multiply_adds()
    assert quarter <= 1.1 / 4, f"a device does {quarter:.2f} of the multiply-adds of one"
    check_exchanges(after, params, 1 if mode == "shard_map" else case.sums)


def check_exchanges(program: Program, params: Any, sums: int) -> None:
    """Nothing is exchanged but gradients of parameters, and what a batch shares of a few rows."""
    leaves = jax.tree.leaves(params)
    row = BATCH * 4 * SIZE  # of one step: all gates
    for item in program.collectives():
        elements = max(int(np.prod(shape)) for shape in item.shapes)
        if item.opcode != "all-reduce":
            assert elements <= row and item.times <= sums, f"exchanged: {item.text[:300]}"
    reduced = sum(
        item.times
        for item in program.collectives("all-reduce")
        for shape in item.shapes
        if len(shape) > 1 and shape in [leaf.shape for leaf in leaves]
    )
    matrices = sum(leaf.ndim > 1 for leaf in leaves)
    assert reduced <= sums * matrices, f"{reduced} sums over devices for {matrices} matrices"


def check_columns(name: str) -> None:
    """Tensor parallelism: the columns of all kernels are sharded, over two devices of four."""
    case = ENGINES[name]
    run, params, xs, flags = work(case, "plain")
    mesh = jax.make_mesh((2, 2), ("rows", "columns"), axis_types=(AxisType.Auto,) * 2)
    columns = jax.tree.map(
        lambda leaf: NamedSharding(mesh, P(*[None] * (leaf.ndim - 1), "columns")), params
    )
    placed = jax.device_put((params, xs), (columns, NamedSharding(mesh, P(None, "rows"))))
    alone = results(run, gradient=True).lower(params, xs, flags).compile()
    together = results(run, gradient=True).lower(*placed, flags).compile()
    assert_near(together(*placed, flags), alone(params, xs, flags), 1e-10)
    part = read_program(together).multiply_adds() / read_program(alone).multiply_adds()
    assert part <= 1.1 * case.columns, f"a device does {part:.2f} of the multiply-adds of one"


def check_16_bits(name: str) -> None:
    """A gradient is rounded after the sum over devices: it is that of one device."""
    run, params, xs, flags = work(ENGINES[name], "plain")
    params, xs = jax.tree.map(lambda x: x.astype("bfloat16"), (params, xs))
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(
        (params, xs), (NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "rows")))
    )
    run = results(run, gradient=True)
    together, alone = run(*placed, flags)[0][0], run(params, xs, flags)[0][0]
    for got, want in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        got, want = got.astype("float64"), want.astype("float64")
        if want.ndim == 2:
            assert jnp.linalg.norm(got - want) <= 3e-4 * jnp.linalg.norm(want)


def few(name: str):
    """A few combinations, in which every mode, mesh and kind of work occurs."""
    start = list(ENGINES).index(name)
    for n, mode in enumerate(MODES):
        yield n != start % 6, mode, MESHES[(start + n) % 2], WHAT[(3 * start + n) % len(WHAT)]


def main(names: list[str], everything: bool) -> None:
    for name in names:
        product = itertools.product((True, False), MODES, MESHES, WHAT)
        for combination in product if everything else few(name):
            if name == "closed_form" and "starts" in combination:
                continue  # refused
            try:
                check(name, *combination)
            except Exception as error:
                error.add_note(f"{name}: {combination}")
                raise
        if everything or name == "hoisted":
            check_columns(name)
        if name == "hoisted":
            check_16_bits(name)


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name in ENGINES]
    main(chosen or list(ENGINES), "--all" in sys.argv)
