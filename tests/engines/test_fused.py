"""`Fused`: its kernels, interpreted with race detection, and its derivatives through references."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn._numerics import state_dtype
from jaxrnn._schedule.flat_state import is_inexact
from jaxrnn.engines import Fused, fused
from jaxrnn.engines._fused import hopper, tpu
from tests.support.cases import (
    CELLS,
    WRAPPERS,
    Case,
    random_inputs,
    random_params,
    random_state,
)
from tests.support.helpers import split, thorough_but, weighted_sum
from tests.support.interpreted import AVAILABLE, Interpreted, races

needs_kernels = pytest.mark.skipif(not AVAILABLE, reason="needs JAX 0.11 or newer")
TIME, HIDDEN = 3, 64


def objective(case, engine, floats, join, options):
    params, state, xs = join(floats)
    results = rnn.unroll(case.cell, params, xs, state, engine=engine, key=case.key, **options)
    return weighted_sum(results), results


def differentiated(case, engine, work, options):
    floats, join = split(work)
    run = functools.partial(objective, case, engine, join=join, options=options)
    gradients, results = jax.jit(jax.grad(run, has_aux=True))(floats)
    return jax.block_until_ready((results, gradients))


def work_of(case, batch, dtype="bfloat16"):
    xs = random_inputs(case, (TIME, *batch), dtype)
    return random_params(case, dtype), random_state(case, batch, dtype), xs


def largest_error(got, want):
    """The largest difference of a leaf, relative to the leaf's largest element (at least 1)."""
    errors = [
        np.abs(np.asarray(g, np.float64) - np.asarray(w, np.float64)).max()
        / max(1.0, np.abs(np.asarray(w, np.float64)).max())
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    ]
    assert np.isfinite(errors).all()
    return max(errors)


def check(case, batch=(3,), units=32, reverse=False, flags=(), mode="cluster"):
    """Values and gradients in bfloat16 against `Sequential`, and no race.

    The mode "reference" is what runs on a platform without a kernel. There are two blocks: each
    that waits for the others occupies a thread of XLA, which has one for each core.
    """
    rng = np.random.default_rng(2)
    options = {"reverse": reverse}
    options |= {name: rng.random((TIME, *batch)) < 0.6 for name in flags}
    work = work_of(case, batch)
    engine = Fused() if mode == "reference" else Interpreted(units, mode=mode)
    with races(mode) as found:
        got = differentiated(case, engine, work, options)
    assert not found()
    want = differentiated(case, rnn.engines.Sequential(), work, options)
    exact = jax.tree.map(lambda x: x.astype("float64") if is_inexact(x) else x, work)
    exact = differentiated(case, rnn.engines.Sequential(), exact, options)
    for number, limit in enumerate((1e-2, 2e-2)):
        rounding = largest_error(want[number], exact[number])
        error = largest_error(got[number], want[number])
        assert error <= max(limit, 3 * rounding), (number, error, rounding)


# Cells of a user ---------------------------------------------------------------------------------


def wide(x):
    return x.astype(state_dtype(x.dtype))


def product(h, kernel):
    dtype = state_dtype(kernel.dtype)
    return jnp.matmul(h.astype(kernel.dtype), kernel, preferred_element_type=dtype)


@jax.custom_jvp
def steep(x):
    return jnp.tanh(x)


@steep.defjvp
def _steep_jvp(primals, tangents):  # not the derivative of tanh: the rule must be used
    return steep(*primals), 3 * tangents[0] * jnp.cos(primals[0])


def own_rule(p, state, x):
    h, c = state
    c = steep(product(x, p["W"]) + product(h, p["U"]) + wide(p["b"]))
    return (jnp.sin(h) + c, h * c), c.astype(x.dtype)


def timed(p, state, x):
    """A time constant of each row, used by a decay of its own gradient."""
    h, c = state
    x, dt = x[..., :-1], jnp.abs(wide(x[..., -1:])) + 0.1
    z = product(x, p["W"][:-1]) + product(h, p["U"]) + wide(p["b"])
    decay = jnp.exp(-dt * jax.nn.softplus(z))
    h = decay * h + (1 - decay) * jnp.tanh(c)
    return (h, c + jnp.expm1(-jnp.abs(z))), h.astype(x.dtype)


def tied(p, state, x):
    """One kernel in two products, the second of which reads the result of the first."""
    h, c = state
    first = jnp.tanh(product(x, p["W"]) + product(h, p["U"]))
    second = jax.nn.sigmoid(product(first * c, p["U"]) + wide(p["b"]))
    return (second * h + (1 - second) * first, first), second.astype(x.dtype)


def clipped(p, state, x):
    h, c = state
    z = jnp.clip(product(x, p["W"]) + product(h, p["U"]), -0.7, 0.9)
    h = jnp.where(z > 0, z, 0.2 * z) + wide(p["b"]) * c**2
    return (h, jax.nn.silu(c + h)), jax.nn.relu(h).astype(x.dtype)


def packed(p, state, x):
    """Two gates as slices of one packed product, and an output layer after the loop."""
    h, c = state
    both = product(h, p["V"])
    a, b = both[..., :HIDDEN], both[..., HIDDEN:]
    c = jax.nn.sigmoid(a + product(x, p["W"])) * c + jnp.tanh(b)
    return (jnp.tanh(c), c), product(c, p["U"]).astype(x.dtype)


def held(p, state, x):
    """A state that meets no product, and a scalar parameter."""
    h, slow = state
    slow = slow + wide(p["b"][0]) * jax.lax.stop_gradient(h)
    h = jnp.sqrt(1 + jnp.square(product(h, p["U"]) + product(x, p["W"]))) - jnp.cos(slow)
    return (h, slow), (slow * h).astype(x.dtype)


USER_STEPS = [own_rule, timed, tied, clipped, packed, held]


def user_case(step):
    def init(key, input_size, dtype):
        shapes = {"W": (input_size, HIDDEN), "U": (HIDDEN, HIDDEN), "b": (HIDDEN,)}
        shapes |= {"V": (HIDDEN, 2 * HIDDEN)}
        return {name: jnp.zeros(shape, dtype) for name, shape in shapes.items()}

    def init_state(params, batch_shape=()):
        start = jnp.full((*batch_shape, HIDDEN), 0.25, state_dtype(params["b"].dtype))
        return start, start

    def params(rng, zeros):
        scale = {"W": 0.4, "U": 0.12, "V": 0.12, "b": 0.3}
        return {n: jnp.asarray(scale[n] * rng.normal(size=p.shape)) for n, p in zeros.items()}

    cell = rnn.from_step(step, init_state=init_state, init=init)
    return Case(cell, name=step.__name__, params=params)


# Kernels -----------------------------------------------------------------------------------------


ACCEPTED = (
    "Elman LSTM PeepholeLSTM GRU ResetBeforeGRU IRNN FastRNN FastGRNN CoupledLSTM "
    "MultiplicativeLSTM LightGRU MinimalGatedUnit UpdateGateRNN JANET STAR NBRC RecurrentHighway "
    "AntisymmetricRNN AntisymmetricRNN(gated) LEM LTC SLSTM EmitState(LSTM) RecurrentDropout(GRU) "
    "Residual(GRU) VariationalDropout(GRU) WeightDrop(LSTM) Zoneout(LSTM)".split()
)
TABLE = [case for case in CELLS + WRAPPERS if str(case) in ACCEPTED]
FLAGS = "mask", "starts"


@needs_kernels
def test_kernels_agree_with_sequential(monkeypatch):
    monkeypatch.setattr(hopper, "DEPTH", HIDDEN)  # two parts of the depth of each product
    check(Case(rnn.LSTM(2 * HIDDEN)), units=HIDDEN, flags=FLAGS)


@needs_kernels
def test_the_kernels_of_a_tpu_agree_with_sequential(monkeypatch):
    monkeypatch.setattr(tpu, "BLOCK", 1)  # byte: one step, so that there are several blocks of time
    check(user_case(timed), batch=(2, 2), reverse=True, flags=("mask",), mode="tpu")


@needs_kernels
@pytest.mark.parametrize("mode", ["cluster", "tpu"])
def test_each_product_of_a_step_has_its_own_kernel(mode):
    check(Case(rnn.ResetBeforeGRU(HIDDEN)), mode=mode)


EVERY = TABLE + [user_case(step) for step in USER_STEPS]


@needs_kernels
@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["cluster", "tpu", "reference"])
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_every_accepted_cell_agrees_with_sequential(case, mode):
    check(case, reverse=bool(EVERY.index(case) % 2), flags=FLAGS, mode=mode)


@needs_kernels
@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["cluster", "tpu"])
@pytest.mark.parametrize(
    ("cell", "batch"),
    [
        (rnn.GRU(HIDDEN), ()),
        (rnn.GRU(HIDDEN), (65,)),  # two tiles of rows
        (rnn.GRU(HIDDEN), (HIDDEN,)),  # as many rows as units
        (rnn.LSTM(HIDDEN), (30,)),  # two of four operands are rows of one
        (rnn.ResetBeforeGRU(48), (3, 3)),  # padded units, in a block with others
        (rnn.SLSTM(2 * HIDDEN, num_heads=2), (3,)),
        (rnn.SLSTM(48, num_heads=2), (65,)),  # padded units and two tiles of each head
    ],
    ids=str,
)
def test_batches_and_sizes(cell, batch, mode, monkeypatch):
    monkeypatch.setattr(tpu, "BLOCK", 1)  # byte: one step
    check(Case(cell), batch=batch, flags=FLAGS, mode=mode)


@needs_kernels
@pytest.mark.thorough
def test_accepts_the_cells_of_the_table():
    found = []
    for case in CELLS + WRAPPERS:
        work = work_of(case, (2,)) if "bfloat16" in case.dtypes else None
        if work and (Fused().why_not(case.cell, *work) or "").startswith("Fused has kernels for"):
            found.append(str(case))
    assert found == ACCEPTED


def plant(monkeypatch, fault, kernel):
    """Plants a fault in the "forward" or the "backward" kernel.

    A "race": the barrier before a product is missing. "block" and "head": the weights are those of
    another one.
    """
    run, pack, axis = hopper.run, hopper._pack, 0 if fault == "head" else 1

    def faulty(scan, *args, **options):
        with pytest.MonkeyPatch.context() as patch:
            if scan.name == kernel and fault == "race":
                patch.setattr(hopper, "_meet_in_cluster", lambda *args: None)
            elif scan.name == kernel:
                patch.setattr(hopper, "_pack", lambda *args: jnp.roll(pack(*args), 1, axis=axis))
            return run(scan, *args, **options)

    monkeypatch.setattr(hopper, "run", faulty)


@needs_kernels
@pytest.mark.parametrize("kernel", thorough_but("forward", "backward"))
@pytest.mark.parametrize("fault", ["race", "block", "head"])
def test_planted_faults_are_found(fault, kernel, monkeypatch):
    plant(monkeypatch, fault, kernel)
    case = Case(rnn.SLSTM(HIDDEN, num_heads=2) if fault == "head" else rnn.Elman(HIDDEN))
    params, state, xs = work = work_of(case, (3,))
    options: dict = {"on_race": "warn"} if jax.__version_info__ >= (0, 12) else {}
    engine = Interpreted(32, name=f"{fault} {kernel}", **options)

    def results(engine):
        if kernel == "backward":
            return differentiated(case, engine, work, {})[1]
        return jax.block_until_ready(rnn.unroll(case.cell, params, xs, state, engine=engine))

    with races() as found:
        got = results(engine)
    assert found() == (fault == "race")
    if fault != "race":
        assert largest_error(got, results(rnn.engines.Sequential())) > 0.1


REFUSED = {
    rnn.LRU(4): "no matrix product",
    rnn.LayerNormLSTM(4): "(4, 16) for 1 results",
    rnn.ClockworkRNN(4, (1, 2)): "a state is int32",
    rnn.ProjectedLSTM(4, projection_size=3): "(3, 16) for 4 results",
}


@needs_kernels
@pytest.mark.parametrize(("cell", "words"), REFUSED.items(), ids=lambda value: str(value)[:12])
def test_says_why_it_refuses(cell, words):
    case = Case(cell)
    params, state, xs = work_of(case, (2,))
    assert words in Fused().why_not(cell, params, state, xs)
    with pytest.raises(ValueError, match="cannot run this: .* use engines.Hoisted"):
        rnn.unroll(cell, params, xs, state, engine=Fused())


@needs_kernels
def test_refuses_full_precision_and_blocks_that_do_not_fit():
    case = Case(rnn.GRU(HIDDEN))
    assert "float32" in Fused().why_not(case.cell, *work_of(case, (2,), "float32"))
    work = work_of(case, (2,))
    assert "the platform is cpu" in Fused(units=8).why_not(case.cell, *work)
    assert "do not fit" in Fused(units=40).why_not(case.cell, *work)
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        Fused(units=12)
    with pytest.raises(TypeError, match="got True"):
        Fused(units=True)


@pytest.mark.skipif(AVAILABLE, reason="needs JAX before 0.11")
def test_refuses_an_old_jax():
    case = Case(rnn.GRU(4))
    work = work_of(case, (2,))
    assert "needs JAX 0.11" in Fused().why_not(case.cell, *work)
    with pytest.raises(ValueError, match="needs JAX 0.11 or newer"):
        rnn.unroll(case.cell, work[0], work[2], work[1], engine=Fused())


@needs_kernels
@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["cluster", "tpu"])
def test_many_rows_of_heads_equal_the_loop_of_other_platforms(mode, monkeypatch):
    """On a TPU in tiles of 16 rows each, where all rows of a step are more than VMEM holds.

    The loop of other platforms rounds as a kernel does; float64 differs by more than 1.
    """
    monkeypatch.setattr(tpu, "PART", 2**20)
    case = Case(rnn.SLSTM(48, num_heads=2))
    work, flags = work_of(case, (35,)), np.random.default_rng(2).random((2, TIME, 35)) < 0.6
    options: dict = dict(zip(FLAGS, flags, strict=True))
    with races(mode) as found:
        got = differentiated(case, Interpreted(32, mode=mode, name="tiles"), work, options)
    assert not found()
    assert largest_error(got, differentiated(case, Fused(), work, options)) < 1e-3


# Platforms ---------------------------------------------------------------------------------------


CASE = re.compile(r'^( *)%\S+ = "stablehlo.case"\(%\w+\) \(\{\n(.*?)\n\1\}\)', re.M | re.S)


def part_of(text, platform):
    """What an exported program runs on the platform of this number, of what platforms differ in.

    One case turns the number of the platform into that of a branch of the next one.
    """
    taken = []
    for function in text.split("\n  func.func "):
        numbers = dict(
            re.findall(r"(%\w+) = stablehlo.constant dense<(\d+)> : tensor<i32>", function)
        )
        cases = CASE.findall(function)
        for (_, chosen), (indent, branches) in zip(cases[::2], cases[1::2], strict=True):
            name = re.findall(r"stablehlo.return (%\w+)", chosen)[platform]
            taken.append(branches.split(f"\n{indent}}}, {{\n")[int(numbers[name])])
    return "\n".join(taken)


@needs_kernels
def test_a_program_contains_the_kernel_of_its_platform():
    """One exported artifact for several platforms; its CPU part runs here."""
    case = Case(rnn.GRU(HIDDEN))
    params, state, xs = work_of(case, (2,))

    def loss(params, state, xs):
        return weighted_sum(rnn.unroll(case.cell, params, xs, state, engine=Fused()))

    program = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    exported = jax.export.export(
        program,
        platforms=("cpu", "cuda", "tpu"),
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")],
    )(params, state, xs)
    names = "@mosaic_gpu_v2(", "@tpu_custom_call(", "stablehlo.while("
    text = exported.mlir_module()
    parts = [part_of(text, platform) for platform in range(3)]
    found = [[part.count(name) for name in names] for part in parts]
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert found == [[0, 0, 2], [2, 0, 0], [0, 2, 0]]  # the forward and the backward pass
    got = exported.call(params, state, xs)
    want = program(params, state, xs)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@needs_kernels
@pytest.mark.thorough
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_every_accepted_cell_is_lowered(case):
    """Forward and backward, for both devices: what the interpreters take, a compiler may lack."""
    params, state, xs = work_of(case, (3,))
    flags = {name: np.ones((TIME, 3), bool) for name in FLAGS[: EVERY.index(case) % 3]}
    floats, join = split((params, state, xs))
    run = functools.partial(objective, case, Fused(), join=join, options=flags)
    traced = jax.jit(jax.grad(run, has_aux=True)).trace(floats)
    for platform, kernel in (("cuda", "mosaic_gpu_v2"), ("tpu", "tpu_custom_call")):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count(f"@{kernel}(") == 2


@needs_kernels
def test_a_grid_is_lowered_and_meets_by_a_counter():
    """Two batch tiles run one after the other; the interpreter has no grid-wide counters."""
    case = Case(rnn.Elman(HIDDEN))
    work = work_of(case, (65,))
    _, machines, _ = Fused(units=8)._machines(fused._plan(case.cell, *work), "grid")
    assert list(machines) == ["cuda"]

    def run(params, state, xs):
        return Fused(units=8)._run(case.cell, params, state, xs, False, "grid")

    lowered = jax.jit(run).trace(*work).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("@mosaic_gpu_v2(") == 1


@needs_kernels
@pytest.mark.parametrize(
    ("platform", "kernel"), [("cuda", "mosaic_gpu_v2"), ("tpu", "tpu_custom_call")]
)
def test_a_kernel_is_lowered_under_shard_map(platform, kernel):
    case = Case(rnn.Elman(HIDDEN))
    work = work_of(case, (2,), "float16")
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    whole, rows, spec = spec(), spec("batch"), spec(None, "batch")
    run = jax.shard_map(
        lambda params, state, xs: rnn.unroll(case.cell, params, xs, state, engine=Fused()),
        mesh=mesh,
        in_specs=(whole, rows, spec),
        out_specs=(rows, spec),
    )

    def gradients(*work):
        return jax.grad(lambda *work: weighted_sum(run(*work)), (0, 1, 2))(*work)

    lowered = jax.jit(gradients).trace(*work).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count(f"@{kernel}(") == 2


# vmap --------------------------------------------------------------------------------------------


def mapped_work(case, examples):
    params, state, xs = work_of(case, (2,))
    stacked = jax.tree.map(lambda x: jnp.stack([x * (n + 1) for n in range(examples)]), (state, xs))
    return params, *stacked


def over_examples(case, engine, order):
    """The gradients of `jax.vmap`, or the `jax.vmap` of gradients."""

    def run(params, state, xs):
        return rnn.unroll(case.cell, params, xs, state, engine=engine)

    def loss(*work):
        return weighted_sum(jax.vmap(run, (None, 0, 0))(*work))

    if order == "grad of vmap":
        return jax.grad(loss, (0, 1, 2))
    return jax.vmap(jax.grad(lambda *work: weighted_sum(run(*work)), (0, 1, 2)), (None, 0, 0))


ORDERS = ["grad of vmap", "vmap of grad"]


@needs_kernels
@pytest.mark.parametrize("order", ORDERS)
def test_examples_of_vmap_are_rows_of_one_kernel(order):
    case = Case(rnn.Elman(HIDDEN))
    work = mapped_work(case, 3)
    lowered = jax.jit(over_examples(case, Fused(), order)).trace(*work)
    text = lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@mosaic_gpu_v2(") == 2  # the forward and the backward pass
    assert "stablehlo.while" not in text
    assert f"tensor<{TIME}x64x{HIDDEN}xf32>" in text  # one tile of rows for all examples


@needs_kernels
def test_examples_with_weights_of_their_own_take_the_reference():
    case = Case(rnn.Elman(HIDDEN))
    params, states, xss = mapped_work(case, 3)
    params = jax.tree.map(lambda x: jnp.stack([x, -x, 2 * x]), params)
    run = jax.vmap(lambda *work: rnn.unroll(case.cell, work[0], work[2], work[1], engine=Fused()))
    text = jax.jit(run).trace(params, states, xss).lower(lowering_platforms=("cuda",)).as_text()
    assert "@mosaic_gpu_v2(" not in text and "stablehlo.while" in text


@needs_kernels
@pytest.mark.thorough
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("engine", [Fused(), Interpreted(HIDDEN)], ids=str)
def test_gradients_over_examples(engine, order):
    case = Case(rnn.GRU(HIDDEN))
    work = mapped_work(case, 3)
    with races() as found:
        got = jax.block_until_ready(jax.jit(over_examples(case, engine, order))(*work))
    assert not found()
    want = jax.jit(over_examples(case, rnn.engines.Sequential(), order))(*work)
    assert largest_error(got, want) < 2e-2


# Derivatives -------------------------------------------------------------------------------------


def curvature(run, direction, floats):
    """Reverse over forward mode, then the squared norm of a gradient differentiated once more."""
    forward = jax.grad(lambda floats: jax.jvp(run, (floats,), (direction,))[1])(floats)
    again = jax.grad(lambda floats: weighted_sum(jax.grad(run)(floats)))(floats)
    return forward, again


@needs_kernels
def test_every_transformation_works_through_the_references():
    """`jvp`, second derivatives, `vmap` and `shard_map`, as `Hoisted` computes them."""
    case = Case(rnn.GRU(4))
    work = work_of(case, (2,))
    floats, join = split(work)
    direction = jax.tree.map(lambda x: jnp.cos(3 * x), floats)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, spec = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec(None, "batch")

    def results(engine):
        def run(params, state, xs):
            return rnn.unroll(case.cell, params, xs, state, engine=engine)

        def loss(floats):
            params, state, xs = join(floats)
            flags = {"mask": np.arange(TIME)[:, None] > np.array([-1, 1])}
            return weighted_sum(rnn.unroll(case.cell, params, xs, state, engine=engine, **flags))

        def sharded(params, state, xs):
            final, ys = run(params, state, xs)
            return jax.lax.psum(weighted_sum((final, ys)), "batch")

        whole = jax.sharding.PartitionSpec()
        sharded = jax.shard_map(sharded, mesh=mesh, in_specs=(whole, rows, spec), out_specs=whole)
        states, xss = jax.tree.map(lambda x: jnp.stack([x, -x]), work[1:])
        mapped = jax.vmap(jax.grad(lambda *work: weighted_sum(run(*work)), (0, 1, 2)), (None, 0, 0))
        return jax.jit(
            lambda: (
                curvature(loss, direction, floats),
                mapped(work[0], states, xss),
                jax.grad(sharded, (0, 1, 2))(*work),
            )
        )()

    got, want = results(Fused()), results(rnn.engines.Hoisted())
    assert largest_error(got, want) < 2e-2
