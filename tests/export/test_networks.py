"""Stacks, directions, whole models and dtypes as ONNX models; and what is refused."""

import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxrnn as rnn
from tests.support import onnx_runs
from tests.support.networks import random_params

pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")
pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra: onnx")

Stack, Bidirectional, Recurrent = rnn.layers.Stack, rnn.layers.Bidirectional, rnn.layers.Recurrent


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Features divided by their norm, with a scale."""

    def init(self, key, x):
        return jnp.ones_like(x)

    def apply(self, scale, x):
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


NETWORKS = {
    "residual": Stack(
        (rnn.LSTM(4), rnn.MinGRU(4), Recurrent(rnn.LEM(4), engine=rnn.engines.Newton())),
        dropout=0.5,
        residual=(False, True, True),
        normalization=Scaled(),
    ),
    "directions": Stack(
        (
            Bidirectional(rnn.LayerNormLSTM(3), rnn.S5(3, output_size=2)),
            Recurrent(rnn.SRU(5), reverse=True),
        )
    ),
    "nested": Bidirectional(
        Stack((rnn.wrappers.Zoneout(rnn.GRU(3), 0.2), rnn.LSTM(2))),
        Stack((rnn.MLSTM(4, num_heads=2, key_size=4), rnn.CoRNN(2))),
        merge=jnp.maximum,
    ),
}
QUICK = ("residual",)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in what a Where leaves out
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.thorough) for n in NETWORKS],
)
def test_stacks_and_directions(name):
    net = NETWORKS[name]
    params = jax.tree.map(lambda leaf: leaf / 2, random_params(net))
    narrow = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    flags = {"carry": True, "lengths": True, "starts": True}
    example = np.zeros((1, 2))
    double = onnx_runs.reference(rnn.export.to_onnx(net, params, x=example, **flags))
    model = rnn.export.to_onnx(net, narrow, x=example.astype("float32"), **flags)
    single = onnx_runs.onnxruntime_session(model)
    rng = np.random.default_rng(0)
    for time, batch in ((4, 3),) if name in QUICK else ((6, 2), (3, 1), (1, 2)):
        xs = jnp.asarray(rng.normal(size=(time, batch, 2)))
        state = net.init_state(params, (batch,))
        options = onnx_runs.flags(rng, time, batch)
        wanted = onnx_runs.run(net, params, xs, state, **options)
        given, names = double.run(None, wanted.feeds), double.output_names
        onnx_runs.assert_equal(given, names, wanted, 1e-10)
        feeds = {name: onnx_runs.narrowed(array) for name, array in wanted.feeds.items()}
        onnx_runs.assert_equal(single.run(None, feeds), names, wanted, 1e-5)


def test_a_model_around_layers_is_exported_as_a_function():
    layers = Stack((Recurrent(rnn.LSTM(4)), Recurrent(rnn.FastGRNN(4))))
    embedding, dense = nn.Embed(7, 3), nn.Dense(5)
    keys = jax.random.split(jax.random.key(0), 3)
    weights = {
        "embedding": embedding.init(keys[0], jnp.zeros((), "int32")),
        "layers": layers.init(keys[1], 3, "float32"),
        "dense": dense.init(keys[2], jnp.zeros(4, "float32")),
    }

    def model(tokens):
        xs = embedding.apply(weights["embedding"], tokens)
        final, ys = layers.apply(weights["layers"], None, xs)
        return {"logits": dense.apply(weights["dense"], ys), "last": final[0].hidden}

    time, batch = jax.export.symbolic_shape("time, batch", constraints=["time >= 1", "batch >= 1"])
    spec = jax.ShapeDtypeStruct((time, batch), "int32")
    session = onnx_runs.onnxruntime_session(rnn.export.function_to_onnx(model, tokens=spec))
    for size in ((6, 2), (1, 1)):
        tokens = np.random.default_rng(0).integers(0, 7, size, dtype=np.int32)
        logits, last = session.run(["logits", "last"], {"tokens": tokens})
        wanted = model(tokens)
        np.testing.assert_allclose(logits, wanted["logits"], atol=1e-5)
        np.testing.assert_allclose(last, wanted["last"], atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 4e-3), ("bfloat16", 3e-2)])
def test_narrow_floats(dtype, tolerance):
    cell = rnn.MinimalGatedUnit(4)
    params, xs = random_params(cell, dtype=dtype), np.random.default_rng(0).normal(size=(5, 2, 2))
    xs = jnp.asarray(xs, dtype)
    evaluator = onnx_runs.reference(rnn.export.to_onnx(cell, params, x=xs[0]))
    (ys, final) = evaluator.run(None, {"xs": np.asarray(xs)})
    state, wanted = rnn.unroll(cell, params, xs)
    assert str(ys.dtype) == dtype and ys.shape == wanted.shape
    np.testing.assert_allclose(ys.astype("float64"), wanted.astype("float64"), atol=tolerance)
    np.testing.assert_allclose(final, state.hidden, atol=tolerance)


def test_operators_need_no_example_and_other_cells_read_their_kernel():
    cell = rnn.CoupledLSTM(3)
    params = random_params(cell)
    model = rnn.export.to_onnx(cell, params)
    assert model.graph.input[0].type.tensor_type.shape.dim[2].dim_value == 2
    cell = rnn.from_step(sorting, init_state=lambda p, batch: jnp.zeros((*batch, 2)))
    with pytest.raises(ValueError, match="x must be an example of one step's input"):
        rnn.export.to_onnx(cell, {})


def sorting(params, state, x):
    return state + jnp.sort(x), x  # the line that the error names


def test_the_refusal_names_the_primitive_and_the_line():
    cell = rnn.from_step(sorting, init_state=lambda p, batch: jnp.zeros((*batch, 2)))
    line = sorting.__code__.co_firstlineno + 1
    with pytest.raises(TypeError, match=rf"primitive sort has no .*test_networks.py:{line}"):
        rnn.export.to_onnx(cell, {}, x=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="both wanted"):
        rnn.export.to_onnx(cell, {}, x=np.zeros((1, 2)), lengths=True, mask=True)
