"""Models of networks that ONNX's LSTM, GRU and RNN operators compute, and damaged files."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import convert
from tests.support import onnx_runs
from tests.support.networks import FORMS, network, random_params

XS = np.random.default_rng(0).normal(size=(5, 3, 2))
KINDS = ("elman", "lstm", "peephole", "gru", "reset_before")


def peer(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} comes with the extra: parity")


PAIRS = (("lstm", "cell"), ("gru", "bidirectional"), ("peephole", "stack"))
PAIRS += (("elman", "bidirectional"), ("reset_before", "stack"), ("relu", "cell"))
PRODUCT = [
    pytest.param(kind, form, marks=() if (kind, form) in PAIRS else pytest.mark.thorough)
    for kind in (*KINDS, "relu")
    for form in FORMS
]


def operators(model):
    return {node.op_type for node in model.graph.node} & {"LSTM", "GRU", "RNN", "Scan"}


@pytest.mark.parametrize("kind, form", [case for case in PRODUCT if case.values[0] != "relu"])
def test_onnx_reference_gives_equal_outputs(kind, form):
    peer("onnx")
    net = network(kind, form)
    params = random_params(net)
    model = rnn.export.to_onnx(net, params)
    assert operators(model) <= {"LSTM", "GRU", "RNN"}
    evaluator = onnx_runs.reference(model)
    wanted = onnx_runs.run(net, params, XS, None)
    given = evaluator.run(None, wanted.feeds)
    onnx_runs.assert_equal(given, evaluator.output_names, wanted, 1e-12)


@pytest.mark.parametrize("kind, form", PRODUCT)
def test_onnxruntime_gives_equal_outputs_with_state_and_lengths(kind, form):
    peer("onnx")
    peer("onnxruntime")
    net = network(kind, form)
    params = random_params(net, dtype="float32")
    params = jax.tree.map(lambda leaf: leaf / 2, params)  # ReLU's states grow without bound
    model = rnn.export.to_onnx(net, params, carry=True, lengths=True)
    assert operators(model) <= {"LSTM", "GRU", "RNN"}
    session = onnx_runs.onnxruntime_session(model)
    rng = np.random.default_rng(1)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), "float32"),
        net.init_state(params, (3,)),
    )
    xs, lengths = XS.astype("float32"), jnp.array([2, 5, 1], "int32")
    wanted = onnx_runs.run(net, params, xs, state, lengths=lengths)
    names = [output.name for output in session.get_outputs()]
    onnx_runs.assert_equal(session.run(None, wanted.feeds), names, wanted, 2e-6)
    scan = rnn.export.to_onnx(net, params, carry=True, lengths=True, operators=False)
    assert operators(scan) == {"Scan"}
    assert [i.name for i in scan.graph.input] == [i.name for i in session.get_inputs()]
    assert [o.name for o in scan.graph.output] == names


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
    (second,) = (node for node in apart.graph.node if node.name == "layer1")
    second.input[0] = "xs"  # the second GRU no longer follows the first
    with pytest.raises(
        ValueError, match="the input of GRU 'layer1' is a graph input, not output 0 of GRU 'layer0'"
    ):
        convert.from_onnx(apart)
    computed = onnx.ModelProto()
    computed.CopyFrom(model)
    (first,) = (node for node in computed.graph.node if node.name == "layer0")
    first.input[1] = "xs"
    with pytest.raises(ValueError, match="W of GRU 'layer0' must be an initializer"):
        convert.from_onnx(computed)
