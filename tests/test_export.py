"""Exported models against the network."""

import warnings

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import convert
from tests.support.networks import FORMS, network, random_params

XS = np.random.default_rng(0).normal(size=(5, 3, 2))
KINDS = ("elman", "lstm", "peephole", "gru", "reset_before")


def peer(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} comes with the extra: parity")


def run(net, params, xs, state=None, **options):
    layer = net if isinstance(net, rnn.layers.Layer) else rnn.layers.Recurrent(net)
    return layer.apply(params, state, xs, **options)


def by_role(state, form):
    """The leaves of a state as ONNX has them: a row a direction, hidden then cell."""
    rows = [list(part) for part in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "hidden"))]
    directions = 1 if form == "cell" else 2
    return [
        np.stack(leaves)
        for start in range(0, len(rows), directions)
        for leaves in zip(*rows[start : start + directions], strict=True)
    ]


PAIRS = (("lstm", "cell"), ("gru", "bidirectional"), ("peephole", "stack"))
PAIRS += (("elman", "bidirectional"), ("reset_before", "stack"), ("relu", "cell"))
PRODUCT = [
    pytest.param(kind, form, marks=() if (kind, form) in PAIRS else pytest.mark.thorough)
    for kind in (*KINDS, "relu")
    for form in FORMS
]


@pytest.mark.parametrize("kind, form", [case for case in PRODUCT if case.values[0] != "relu"])
def test_onnx_reference_gives_equal_outputs(kind, form):
    peer("onnx")
    from onnx.reference import ReferenceEvaluator

    net = network(kind, form)
    params = random_params(net)
    model = rnn.export.to_onnx(net, params)
    ys, *final = ReferenceEvaluator(model).run(None, {"xs": XS})
    state, wanted = run(net, params, XS)
    np.testing.assert_allclose(ys, wanted, atol=1e-12)
    for theirs, ours in zip(final, by_role(state, form), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-12)


@pytest.mark.parametrize("kind, form", PRODUCT)
def test_onnxruntime_gives_equal_outputs_with_state_and_lengths(kind, form):
    peer("onnx")
    onnxruntime = peer("onnxruntime")
    net = network(kind, form)
    params = random_params(net, dtype="float32")
    params = jax.tree.map(lambda leaf: leaf / 2, params)  # ReLU's states grow without bound
    model = rnn.export.to_onnx(net, params, carry=True, lengths=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(1)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), "float32"),
        net.init_state(params, (3,)),
    )
    xs, lengths = XS.astype("float32"), np.array([2, 5, 1], np.int32)
    final, wanted = run(net, params, xs, state, lengths=lengths)
    names = [i.name for i in session.get_inputs() if i.name.startswith("initial_")]
    feeds = dict(zip(names, by_role(state, form), strict=True))
    ys, *theirs = session.run(None, {"xs": xs, "lengths": lengths, **feeds})
    np.testing.assert_allclose(ys, wanted, atol=2e-6)
    for a, b in zip(theirs, by_role(final, form), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_through_a_file_is_exact(kind, tmp_path):
    onnx = peer("onnx")
    net = network(kind, "stack")
    params = random_params(net)
    onnx.save(rnn.export.to_onnx(net, params), tmp_path / "model.onnx")
    net_back, back = convert.from_onnx(tmp_path / "model.onnx")
    assert net_back == net
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert (a == b).all()
    one, _ = convert.from_onnx(tmp_path / "model.onnx", node="layer1")
    assert one == net.layers[1]


def test_onnx_files_that_cannot_be_read(tmp_path):
    onnx = peer("onnx")
    net = network("gru", "stack")
    model = rnn.export.to_onnx(net, random_params(net))
    (tmp_path / "half.onnx").write_bytes(model.SerializeToString()[:200])
    with pytest.raises(ValueError, match="half.onnx must be a complete ONNX model"):
        convert.from_onnx(tmp_path / "half.onnx")
    with pytest.raises(ValueError, match=r"node must name one.*'layer0', 'layer1'.*got 'layer7'"):
        convert.from_onnx(model, node="layer7")
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    apart.graph.node[3].input[0] = "xs"  # the second GRU no longer follows the first
    with pytest.raises(
        ValueError, match="the input of GRU 'layer1' is a graph input, not output 0 of GRU 'layer0'"
    ):
        convert.from_onnx(apart)
    computed = onnx.ModelProto()
    computed.CopyFrom(model)
    computed.graph.node[0].input[1] = "xs"
    with pytest.raises(ValueError, match="W of GRU 'layer0' must be an initializer"):
        convert.from_onnx(computed)


def test_onnx_takes_no_bfloat16():
    peer("onnx")
    net = network("gru", "cell")
    with pytest.raises(TypeError, match="float16, float32 or float64, .* got bfloat16; cast"):
        rnn.export.to_onnx(net, random_params(net, dtype="bfloat16"))


def test_a_step_in_stablehlo_survives_its_file_and_takes_any_batch():
    stack = rnn.layers.Stack((rnn.GRU(3), rnn.LSTM(4)), dropout=0.5)
    params = random_params(stack)
    (batch,) = jax.export.symbolic_shape("batch")
    exported = rnn.export.to_stablehlo(stack, params, jax.ShapeDtypeStruct((batch, 2), "float64"))
    read = jax.export.deserialize(exported.serialize())
    for size in (1, 3):
        state = stack.init_state(params, (size,))
        leaves = tuple(jax.tree.leaves(state))
        for x in XS[:, :size]:
            state, wanted = stack.step(params, state, x)
            leaves, y = read.call(leaves, x)
            np.testing.assert_allclose(y, wanted, atol=1e-14)
        for a, b in zip(leaves, jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-14)
    assert "stablehlo.dot_general" in exported.mlir_module()


def test_a_network_without_a_step_function_is_refused():
    net = network("gru", "bidirectional")
    with pytest.raises(TypeError, match="needs the whole sequence"):
        rnn.export.to_stablehlo(net, random_params(net), jnp.ones((3, 2)))
