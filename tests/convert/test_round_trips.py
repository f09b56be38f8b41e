"""Round trips through other frameworks: exact where a layout only permutes."""

import functools
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrnn import convert
from tests.parity import golden
from tests.parity.comparison import nest, under
from tests.parity.peers import haiku
from tests.support.networks import network, random_params

NAMES = {"cell": ["a"], "bidirectional": [("a", "b")], "stack": [("a", "b"), ("c", "d")]}


def through_pytorch(kind, form, net, params):
    activation = "relu" if kind == "relu" else "tanh"
    return convert.from_pytorch(convert.to_pytorch(net, params), activation=activation)


def through_keras(kind, form, net, params):
    arrays = convert.to_keras(net, params)
    activation = "relu" if kind == "relu" else "tanh"
    return convert.from_keras(arrays, bidirectional=form != "cell", activation=activation)


def through_flax(to, back, kind, form, net, params):
    return back(to(net, params), activation="relu" if kind == "relu" else "tanh")


def through_haiku(kind, form, net, params):
    return convert.from_haiku(convert.to_haiku(net, params, NAMES[form]), NAMES[form])


def through_equinox(kind, form, net, params):
    pytest.importorskip("equinox", reason="it comes with the extra: parity")
    return convert.from_equinox(convert.to_equinox(net, params))


def through_onnx(kind, form, net, params):
    return convert.from_onnx(convert.to_onnx(net, params))


def through_cudnn(kind, form, net, params):
    return convert.from_cudnn(
        convert.to_cudnn(net, params),
        input_size=2,
        hidden_size=3,
        num_layers=2 if form == "stack" else 1,
        bidirectional=form != "cell",
    )


ROUTES = {
    "pytorch": (through_pytorch, ("elman", "relu", "lstm", "projected", "gru")),
    "keras": (through_keras, ("elman", "relu", "lstm", "gru", "reset_before")),
    "linen": (
        functools.partial(through_flax, convert.to_linen, convert.from_linen),
        ("elman", "relu", "lstm", "gru"),
    ),
    "nnx": (
        functools.partial(through_flax, convert.to_nnx, convert.from_nnx),
        ("elman", "relu", "lstm"),
    ),
    "haiku": (through_haiku, ("relu", "reset_before")),
    "equinox": (through_equinox, ("lstm", "gru")),
    "onnx": (through_onnx, ("elman", "relu", "lstm", "peephole", "gru", "reset_before")),
    "cudnn": (through_cudnn, ("lstm",)),
}


@pytest.mark.parametrize(
    "form", ["cell", pytest.param("bidirectional", marks=pytest.mark.thorough), "stack"]
)
@pytest.mark.parametrize(
    "route, kind", [(route, kind) for route, (_, kinds) in ROUTES.items() for kind in kinds]
)
def test_a_round_trip_is_exact(route, kind, form):
    net = network(kind, form)
    params = random_params(net)
    net_back, params_back = ROUTES[route][0](kind, form, net, params)
    assert net_back == net
    assert_same_bits(params_back, params)


def test_a_gru_without_candidate_bias_goes_through_nnx():
    net = network("gru", "cell")
    params = random_params(net)
    params = params._replace(candidate_bias=jax.numpy.zeros(3))
    assert_same_bits(convert.from_nnx(convert.to_nnx(net, params))[1], params)


def test_haiku_lstm_round_trip_up_to_rounding_of_the_forget_bias():
    net = network("lstm", "stack")
    params = random_params(net)
    _, back = through_haiku("lstm", "stack", net, params)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=4e-16)


def weights_of(name):
    return under(golden.read(name), "weights")


@pytest.mark.parametrize("name", ["linen_gru", "linen_lstm_bidirectional_lengths", "linen_simple"])
def test_linen_weights_survive_a_round_trip(name):
    weights = nest(weights_of(name))
    weights = weights.get("cell", weights)
    assert_same_bits(convert.to_linen(*convert.from_linen(weights)), weights)


@pytest.mark.parametrize("name", ["nnx_gru", "nnx_optimized_lstm_bidirectional_lengths"])
def test_nnx_weights_survive_a_round_trip(name):
    weights = nest(weights_of(name))
    weights = weights.get("cell", weights)
    assert_same_bits(convert.to_nnx(*convert.from_nnx(weights)), weights)


@pytest.mark.parametrize(
    "name", ["keras_simple", "keras_lstm_two_layers", "keras_gru_reset_before"]
)
def test_keras_weights_survive_a_round_trip(name):
    weights = [array for _, array in sorted(weights_of(name).items())]
    assert_same_bits(convert.to_keras(*convert.from_keras(weights)), weights)


def test_haiku_gru_weights_survive_a_round_trip():
    weights = haiku.by_module(weights_of("haiku_gru"))
    assert_same_bits(convert.to_haiku(*convert.from_haiku(weights), ["gru"]), weights)


def test_two_biases_come_back_as_their_sum():
    theirs = weights_of("pytorch_lstm")
    back = convert.to_pytorch(*convert.from_pytorch(theirs))
    np.testing.assert_array_equal(back["bias_ih_l0"], theirs["bias_ih_l0"] + theirs["bias_hh_l0"])
    assert not back["bias_hh_l0"].any()
    assert (back["weight_ih_l0"] == theirs["weight_ih_l0"]).all()


def test_the_grus_inner_bias_is_kept_apart():
    theirs = weights_of("pytorch_gru")
    back = convert.to_pytorch(*convert.from_pytorch(theirs))
    hidden = theirs["weight_hh_l0"].shape[1]
    assert (back["bias_hh_l0"][2 * hidden :] == theirs["bias_hh_l0"][2 * hidden :]).all()
    assert (back["bias_ih_l0"][2 * hidden :] == theirs["bias_ih_l0"][2 * hidden :]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_dtype_is_kept(dtype):
    net = network("gru", "cell")
    params = random_params(net, dtype=dtype)
    back = convert.from_pytorch(convert.to_pytorch(net, params))[1]
    assert_same_bits(back, params)


def test_conversions_differentiate():
    net = network("lstm", "bidirectional")
    params = random_params(net)
    gradient = jax.grad(lambda p: (convert.to_cudnn(net, p) ** 2).sum())(params)
    for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(g, 2 * p)


def test_imports_no_framework():
    peers = ("torch", "keras", "flax", "haiku", "equinox", "onnx", "safetensors")
    code = "import sys, jaxrnn, jaxrnn.convert, jaxrnn.haiku\n"
    code += f"print([m for m in {peers} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def assert_same_bits(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
