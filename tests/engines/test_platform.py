"""The schedule of a program is that of the platform it is compiled for."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, NamedSharding, PartitionSpec

import jaxrnn as rnn
from jaxrnn._platform import ACCELERATOR, CPU, by_platform, platforms_of
from jaxrnn.engines import Associative, Auto, Hoisted, hoisted
from tests.support.helpers import assert_near
from tests.support.networks import random_params

ALL = ("cpu", "cuda", "tpu")
TIME, BATCH, INPUT = 24, 8, 3
XS = np.random.default_rng(0).normal(size=(TIME, BATCH, INPUT)).astype("float32")
# A mesh of a device that this machine lacks.
GPU = AbstractMesh((1,), ("x",), abstract_device=AbstractDevice("NVIDIA H200", 132, platform="gpu"))


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
    sharding = NamedSharding(GPU, PartitionSpec())
    specs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), (params, XS)
    )
    found = lowered(function, *specs, platform="cuda")
    with rnn.for_platforms("cuda"):
        assert counts(found) == counts(lowered(function, params, XS, platform="cuda"))
    assert counts(found) != counts(lowered(function, params, XS, platform="cpu"))
    with jax.sharding.use_abstract_mesh(GPU):
        assert platforms_of() == ("cuda",)


def test_the_order_of_what_tells_the_platform(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert platforms_of(XS) == ("cuda",)
    with jax.default_device(jax.devices("cpu")[0]):
        assert platforms_of(XS) == ("cpu",)
        with jax.sharding.use_abstract_mesh(GPU):
            assert platforms_of(XS) == ("cuda",)
            with rnn.for_platforms("tpu", "cpu"):
                assert platforms_of(XS) == ("tpu", "cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert platforms_of(XS) == ("cpu",)


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
