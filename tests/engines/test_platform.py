"""The schedule of a program is that of the platform it is compiled for."""

import contextlib
import re
import types

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, NamedSharding, PartitionSpec

import jaxrnn as rnn
from jaxrnn._platform import ACCELERATOR, CPU, by_platform, platforms_of
from jaxrnn.engines import Associative, Auto, CuDNN, Fused, Hoisted, hoisted
from tests.support.helpers import assert_near
from tests.support.networks import random_params

recent = pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="needs JAX 0.11 or newer")
ALL = ("cpu", "cuda", "tpu")
TIME, BATCH, INPUT = 24, 8, 3
XS = np.random.default_rng(0).normal(size=(TIME, BATCH, INPUT)).astype("float32")
# Devices that this machine lacks, and meshes of them.
H200, A100 = (
    types.SimpleNamespace(platform="gpu", device_kind=name, compute_capability=capability)
    for name, capability in (("NVIDIA H200", "9.0"), ("NVIDIA A100-SXM4-40GB", "8.0"))
)
GPU, OLDER = (
    AbstractMesh((1,), ("x",), abstract_device=AbstractDevice(gpu.device_kind, 100, platform="gpu"))
    for gpu in (H200, A100)
)


def values(cell, engine):
    def run(params, xs):
        return rnn.unroll(cell, params, xs, engine=engine)

    return run


def gradients(cell, engine):
    def loss(params, xs):
        (*leaves,) = jax.tree.leaves(rnn.unroll(cell, params, xs, engine=engine))
        return sum((leaf**2).sum(dtype="float32") for leaf in leaves)

    return jax.grad(loss, argnums=(0, 1))


def float32(cell):
    params = random_params(cell, input_size=INPUT)
    return jax.tree.map(lambda leaf: leaf.astype("float32"), params)


def lowered(function, *args, platform):
    """The StableHLO for one platform of a program that is traced for the platforms in context."""
    # A new function each time: JAX does not trace one again that it has traced.
    traced = jax.jit(lambda *args: function(*args)).trace(*args)
    return inlined(traced.lower(lowering_platforms=(platform,)).as_text())


def inlined(text):
    """The main function of StableHLO, with the functions that it calls written out."""
    functions = dict(re.findall(r"func\.func \w+ @(\w+)\([^\n]*\n(.*?)\n  \}", text, re.DOTALL))

    def expand(body):
        def call(line):
            return f"{line[0]}\n{expand(functions[line[1]])}"

        return re.sub(r".*\bcall @(\w+)\(.*", call, body)

    return expand(functions["main"])


def counts(text):
    """The loops and products in StableHLO; an unrolled loop has a product for each of its steps."""
    return text.count("stablehlo.while"), text.count("stablehlo.dot_general")


ENGINES = {
    "Hoisted": (rnn.LSTM(4), Hoisted()),
    "Associative": (rnn.MinGRU(4), Associative()),
    "Auto": (rnn.MinGRU(4), Auto()),
    "Auto of a loop": (rnn.GRU(4), Auto()),
    "RTRL": (rnn.GRU(4), rnn.learning.RTRL()),
}


@pytest.mark.parametrize("what", [values, gradients])
@pytest.mark.parametrize(
    "name",
    [*list(ENGINES)[:3], *(pytest.param(n, marks=pytest.mark.thorough) for n in list(ENGINES)[3:])],
)
def test_one_artifact_has_the_schedule_of_each_platform(name, what, monkeypatch):
    monkeypatch.setattr(hoisted, "SMALL", 0)  # so that a CPU has chunks
    monkeypatch.setattr(hoisted, "BLOCK", 0)
    monkeypatch.setattr(hoisted, "CHUNK", (4 * BATCH * 100,) * 2)
    cell, engine = ENGINES[name]
    function, params = what(cell, engine), float32(cell)
    with rnn.for_platforms(*ALL):
        traced = jax.jit(function).trace(params, XS)
        lower = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ALL}
        exported = jax.export.export(jax.jit(function), platforms=ALL)(params, XS)
    found = {name: inlined(text) for name, text in lower.items()}
    alone = {}
    for platform in ALL:
        with rnn.for_platforms(platform):
            alone[platform] = lowered(function, params, XS, platform=platform)
    assert {name: counts(text) for name, text in found.items()} == {
        name: counts(text) for name, text in alone.items()
    }
    assert counts(found["cuda"]) == counts(found["tpu"]) != counts(found["cpu"])
    whiles = [counts(found[name])[0] for name in ("cpu", "cuda")]
    artifact = inlined(exported.mlir_module())
    assert "stablehlo.case" in artifact and counts(artifact) > counts(found["cpu"])
    if name in ("Associative", "Auto"):
        assert whiles[1] == 0 < whiles[0]  # a tree, and a loop
    wanted = jax.jit(lambda *args: function(*args))(params, XS)
    assert_near(jax.jit(exported.call)(params, XS), wanted, 0)


def test_chunks_of_time_are_for_a_cpu(monkeypatch):
    """The gradient of the inputs' kernel is one product of the whole sequence for a GPU."""
    monkeypatch.setattr(hoisted, "_steps_per_chunk", lambda plan, time: 6)
    cell = rnn.LSTM(5)  # not that of another test, which JAX has traced
    function, params = gradients(cell, Hoisted()), float32(cell)
    found = {}
    for platform in ("cpu", "cuda"):
        with rnn.for_platforms(platform):
            found[platform] = lowered(function, params, XS, platform=platform)

    def product(steps):
        return f"(tensor<{steps}x8x3xf32>, tensor<{steps}x8x20xf32>)"

    assert product(6) in found["cpu"] and product(TIME) not in found["cpu"]
    assert product(TIME) in found["cuda"] and product(6) not in found["cuda"]
    # Gates are separate arrays for a CPU only, and the loops are unrolled for a GPU only.
    assert found["cuda"].count("stablehlo.while") == 2 < found["cpu"].count("stablehlo.while")
    steps = re.findall(r"dot_general .*tensor<8x5xf32>, tensor<5x20xf32>", found["cuda"])
    assert len(steps) == hoisted.UNROLL[ACCELERATOR]
    assert "tensor<6x8x5xf32>" in found["cpu"] and "tensor<3x8x8x20xf32>" in found["cuda"]


def test_a_program_for_one_platform_is_traced_once():
    cell = rnn.LSTM(4)
    function, params = gradients(cell, Auto()), float32(cell)
    assert "platform_index" not in str(jax.make_jaxpr(function)(params, XS))
    with rnn.for_platforms("cuda", "tpu"):
        assert "platform_index" not in str(jax.make_jaxpr(lambda *a: function(*a))(params, XS))
    with rnn.for_platforms("cpu", "tpu"):
        assert "platform_index" in str(jax.make_jaxpr(lambda *a: function(*a))(params, XS))
    text = lowered(function, params, XS, platform=jax.default_backend())
    with rnn.for_platforms({"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())):
        assert text == lowered(function, params, XS, platform=jax.default_backend())


def test_the_mesh_of_the_inputs_tells_the_platform():
    """As in a program that is compiled ahead of time for a topology, without a device."""
    cell = rnn.GRU(4)
    function, params = gradients(cell, Auto()), float32(cell)
    found = lowered(function, *on_mesh(GPU, (params, XS)), platform="cuda")
    with rnn.for_platforms("cuda"):
        assert counts(found) == counts(lowered(function, params, XS, platform="cuda"))
    assert counts(found) != counts(lowered(function, params, XS, platform="cpu"))
    with jax.sharding.use_abstract_mesh(GPU):
        assert platforms_of() == ("cuda",)


def test_the_order_of_what_tells_the_platform(monkeypatch):
    cpu = jax.devices("cpu")[0]
    monkeypatch.setattr(jax, "devices", lambda backend=None: [H200])
    assert platforms_of(XS) == ("cuda",)
    with jax.default_device(cpu):
        assert platforms_of(XS) == ("cpu",)
        with jax.sharding.use_abstract_mesh(GPU):
            assert platforms_of(XS) == ("cuda",)
            with rnn.for_platforms("tpu", "cpu"):
                assert platforms_of(XS) == ("tpu", "cpu")
    monkeypatch.undo()
    assert platforms_of(XS) == ({"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend()),)


def on_mesh(mesh, work):
    """Types of arrays that are sharded over a mesh, as a function sees them that JAX traces."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), work
    )


WITH_KERNELS = [
    (CuDNN(), "float32", "cuDNN needs an NVIDIA GPU"),
    pytest.param(Fused(), "bfloat16", "Fused has kernels for cuda (Hopper) and tpu", marks=recent),
]


@pytest.mark.parametrize(("engine", "dtype", "words"), WITH_KERNELS)
def test_reasons_are_those_of_the_platform_of_the_program(engine, dtype, words, monkeypatch):
    cell = rnn.LSTM(64)
    params = cell.init(jax.random.key(0), INPUT, dtype)
    work = params, cell.init_state(params, (BATCH,)), XS.astype(dtype)
    cpu = jax.devices("cpu")[0]

    def reason(*context):
        with contextlib.ExitStack() as stack:
            for one in context:
                stack.enter_context(one)
            return engine.why_not(cell, *work)

    monkeypatch.setattr(jax, "devices", lambda backend=None: [cpu])
    assert words in reason() and "the platform is cpu" in reason()
    assert reason(rnn.for_platforms("cuda")) is None
    assert reason(rnn.for_platforms("cpu", "cuda")) is None
    assert "the platform is cpu and rocm" in reason(rnn.for_platforms("cpu", "rocm"))
    assert reason(jax.sharding.use_abstract_mesh(GPU)) is None
    monkeypatch.setattr(jax, "devices", lambda backend=None: [H200])
    assert reason() is None
    assert "the platform is cpu" in reason(jax.default_device(cpu))
    assert reason(jax.default_device(cpu), jax.sharding.use_abstract_mesh(GPU)) is None
    found = []
    jax.eval_shape(lambda *work: found.append(engine.why_not(cell, *work)), *on_mesh(GPU, work))
    assert found == [None]
    assert (reason(rnn.for_platforms("tpu")) is None) == isinstance(engine, Fused)


@recent
def test_the_fused_kernel_is_for_the_gpus_of_the_program(monkeypatch):
    """Of a mesh, of the default device, or of the process; Hopper where JAX knows none."""
    cell, engine = rnn.Elman(64), Fused()
    params = cell.init(jax.random.key(0), INPUT, "bfloat16")
    work = params, cell.init_state(params, (BATCH,)), XS.astype("bfloat16")
    cpu = jax.devices("cpu")[0]

    def kernels(*work):
        traced = jax.jit(lambda *work: engine(cell, *work)).trace(*work)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert "stablehlo.while" in text or "@mosaic_gpu_v2(" in text
        return text.count("@mosaic_gpu_v2(")

    assert kernels(*on_mesh(GPU, work)) == 1
    assert kernels(*on_mesh(OLDER, work)) == 0
    with jax.sharding.use_abstract_mesh(OLDER):
        reason = engine.why_not(cell, *work)
    assert "the platform is cuda (NVIDIA A100-SXM4-40GB)" in reason
    for gpus, count in (([H200], 1), ([A100], 0), ([H200, A100], 0), ([], 1)):
        monkeypatch.setattr(jax, "devices", lambda backend=None, gpus=gpus: gpus or [cpu])
        assert (engine.why_not(cell, *work) is None) == (count == 1 and gpus != [])
        with rnn.for_platforms("cuda"):
            assert (engine.why_not(cell, *work) is None) == (count == 1)
        assert kernels(*work) == count
        with jax.default_device(cpu), rnn.for_platforms("cpu", "cuda"):
            assert engine.why_not(cell, *work) is None
            assert kernels(*work) == 1


@recent
def test_a_grid_has_no_more_blocks_than_the_gpu_of_the_program(monkeypatch):
    """LSTM, H = 1024 needs 128; an H100 for PCIe has 114 multiprocessors, an H200 132."""
    cell = rnn.LSTM(1024)
    params = jax.eval_shape(lambda key: cell.init(key, INPUT, jnp.bfloat16), jax.random.key(0))
    state = jax.eval_shape(lambda params: cell.init_state(params, (2,)), params)
    work = params, state, jax.ShapeDtypeStruct((3, 2, INPUT), jnp.bfloat16)

    reasons = []

    def run(*work):
        reasons.append(Fused().why_not(cell, *work))
        return Fused()(cell, *work)

    for count, kernels in ((132, 1), (114, 0)):
        gpu = types.SimpleNamespace(**vars(H200), core_count=count)
        monkeypatch.setattr(jax, "devices", lambda backend=None, gpu=gpu: [gpu])
        traced = jax.jit(lambda *work: run(*work)).trace(*work)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("@mosaic_gpu_v2(") == kernels
    assert reasons[0] is None
    assert "has kernels for tpu at this size, and the platform is cuda" in reasons[1]


def test_a_branch_is_traced_for_its_own_platforms():
    """Engines within engines add no branches of their own."""
    seen = []

    def run(kind, x):
        seen.append((kind, platforms_of(x)))
        return by_platform(lambda inner, x: x * {True: 2, False: 3}[inner == kind], x)

    with rnn.for_platforms(*ALL):
        text = str(jax.make_jaxpr(lambda x: by_platform(run, x))(jnp.ones(2)))
        assert platforms_of() == ALL
    assert set(seen) == {(CPU, ("cpu",)), (ACCELERATOR, ("cuda", "tpu"))}
    assert text.count("platform_index") == 1


def test_an_unknown_platform_is_an_error():
    for names in ((), ("gpu",), ("cpu", "metal")):
        with pytest.raises(ValueError, match="cuda"), rnn.for_platforms(*names):
            pass


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_what_a_gpu_multiplies(name):
    """Products in bfloat16; kernels are neither cast nor transposed in the loops."""
    cell = getattr(rnn, name)(16)
    gates = {"LSTM": 4, "GRU": 3}[name] * 16
    params = cell.init(jax.random.key(0), INPUT, "bfloat16")
    with rnn.for_platforms("cuda"):
        text = lowered(gradients(cell, Hoisted()), params, XS.astype("bfloat16"), platform="cuda")
    bodies = loop_texts(text)
    assert len(bodies) == 2
    kernel = rf"tensor<(16x{gates}|{gates}x16)x"
    for body in bodies:
        assert not re.search(rf"stablehlo\.(convert|transpose) .*{kernel}", body)
        assert body.count("stablehlo.dot_general") == hoisted.UNROLL[ACCELERATOR]
    step = f"(tensor<8x16xbf16>, tensor<16x{gates}xbf16>) -> tensor<8x{gates}xf32>"
    assert bodies[0].count(step) == hoisted.UNROLL[ACCELERATOR]  # sums in float32
    assert (
        bodies[1].count(f"(tensor<8x{gates}xbf16>, tensor<{gates}x16xbf16>)")
        == hoisted.UNROLL[ACCELERATOR]
    )
    outside = text
    for body in bodies:
        outside = outside.replace(body, "")
    products = re.findall(r"stablehlo\.dot_general .*", outside)
    products = [line for line in products if not re.search(r"[<x]0x", line)]  # of no elements
    assert all(re.search(r"bf16>, tensor<\w+xbf16>\)", line) for line in products)
    whole = f"(tensor<{TIME}x8x3xbf16>, tensor<3x{gates}xbf16>)"
    assert sum(whole in line for line in products) == 1  # of the inputs
    weights = f"(tensor<{TIME}x8x16xbf16>, tensor<{TIME}x8x{gates}xbf16>)"
    assert sum(weights in line for line in products) == 1  # the gradient of the recurrent kernel


def loop_texts(text):
    """The bodies of the loops in StableHLO, none of which is nested."""
    found = []
    for begin in re.finditer(r"^( *)\} do \{\n", text, re.MULTILINE):
        end = text.index(f"\n{begin[1]}}}\n", begin.end())
        found.append(text[begin.end() : end])
    return found
