"""Malformed weights: errors that name the array, what it is and what was expected."""

import re

import jax
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import convert
from tests.support.networks import network, random_params


def ones(*shape):
    return np.ones(shape)


def torch_lstm(**changes):
    arrays = {
        "weight_ih_l0": ones(12, 2),
        "weight_hh_l0": ones(12, 3),
        "bias_ih_l0": ones(12),
        "bias_hh_l0": ones(12),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def linen_gru(**changes):
    params = {f"i{k}": {"kernel": ones(2, 3), "bias": ones(3)} for k in "rzn"}
    params |= {f"h{k}": {"kernel": ones(3, 3)} for k in "rz"}
    params["hn"] = {"kernel": ones(3, 3), "bias": ones(3)}
    return {name: p for name, p in (params | changes).items() if p is not None}


def onnx_lstm(**changes):
    return {"op_type": "LSTM", "W": ones(1, 12, 2), "R": ones(1, 12, 3)} | changes


def cudnn(count, **sizes):
    return convert.from_cudnn(ones(count), **({"input_size": 2, "hidden_size": 3} | sizes))


GRU = {"gru": {"w_i": ones(2, 9), "w_h": ones(3, 9), "b": ones(9)}}
KERAS = [ones(2, 12), ones(3, 12), ones(12)]
NNX = {"dense_i": {"kernel": ones(2, 12)}, "dense_h": {"kernel": ones(3, 12), "bias": ones(12)}}
EQX = {"weight_ih": ones(9, 2), "weight_hh": ones(9, 3), "bias": ones(9), "bias_n": ones(3)}

MALFORMED = {
    # PyTorch
    "missing key": (
        lambda: convert.from_pytorch(torch_lstm(weight_hh_l0=None)),
        r"weight_hh_l0 \[gates \* hidden, hidden\], got only",
    ),
    "wrong shape": (
        lambda: convert.from_pytorch(torch_lstm(weight_ih_l0=ones(9, 2))),
        r"weight_ih_l0 must have shape \[12, 2\]|weight_hh_l0 must have shape \[9, 3\]",
    ),
    "wrong gate count": (
        lambda: convert.from_pytorch(
            {"weight_ih_l0": ones(6, 2), "weight_hh_l0": ones(6, 3)},
        ),
        r"weight_ih_l0 must hold 1 \(simple\), 3 \(GRU\) or 4 \(LSTM\) gates of 3 units.*\[6, 2\]",
    ),
    "one of two biases missing": (
        lambda: convert.from_pytorch(torch_lstm(bias_hh_l0=None)),
        r"must hold bias_hh_l0 \[12\], got only",
    ),
    "bias too long": (
        lambda: convert.from_pytorch(torch_lstm(bias_hh_l0=ones(13))),
        r"bias_hh_l0 must have shape \[12\].*got \[13\]",
    ),
    "one axis too few": (
        lambda: convert.from_pytorch(torch_lstm(weight_hh_l0=ones(36))),
        r"weight_hh_l0 must have shape \[gates \* hidden, hidden\], got \[36\]",
    ),
    "foreign key": (
        lambda: convert.from_pytorch(torch_lstm(**{"decoder.weight": ones(3)})),
        r"prefix='' must hold the weights of one recurrent module.*decoder\.weight",
    ),
    "prefix not given": (
        lambda: convert.from_pytorch({f"encoder.{k}": v for k, v in torch_lstm().items()}),
        r"weights under prefix='encoder\.'",
    ),
    "layer left out": (
        lambda: convert.from_pytorch(torch_lstm() | {"weight_ih_l2": ones(12, 3)}),
        r"must hold weight_ih_l1",
    ),
    "layers that do not fit": (
        lambda: convert.from_pytorch(
            torch_lstm(bias_ih_l0=None, bias_hh_l0=None)
            | {"weight_ih_l1": ones(12, 5), "weight_hh_l1": ones(12, 3)}
        ),
        r"layer 1 must have one row for each of the 3 output features of layer 0, got 5",
    ),
    "a layer without the others' biases": (
        lambda: convert.from_pytorch(
            torch_lstm() | {"weight_ih_l1": ones(12, 3), "weight_hh_l1": ones(12, 3)}
        ),
        r"must hold bias_ih_l1 \[12\]",
    ),
    "direction missing": (
        lambda: convert.from_pytorch(torch_lstm() | {"bias_ih_l0_reverse": ones(12)}),
        r"must hold weight_ih_l0_reverse",
    ),
    "projection of other width": (
        lambda: convert.from_pytorch(torch_lstm(weight_hr_l0=ones(2, 3))),
        r"weight_hr_l0 must have shape \[3, 3\]",
    ),
    "integers": (
        lambda: convert.from_pytorch(torch_lstm(bias_ih_l0=np.ones(12, int))),
        r"bias_ih_l0 must be an array of floating-point numbers, got int64",
    ),
    "two dtypes": (
        lambda: convert.from_pytorch(torch_lstm(bias_ih_l0=np.ones(12, "float32"))),
        r"share one dtype, but weight_ih_l0 has float64 and bias_ih_l0 has float32",
    ),
    "not an array": (
        lambda: convert.from_pytorch(torch_lstm(bias_ih_l0=[[1.0], [2.0, 3.0]])),
        r"bias_ih_l0 must be an array, got list",
    ),
    "unknown activation": (
        lambda: convert.from_pytorch(
            {"weight_ih_l0": ones(3, 2), "weight_hh_l0": ones(3, 3)}, activation="gelu"
        ),
        r"activation must be one of 'tanh', 'relu', got 'gelu'",
    ),
    "names that are no strings": (
        lambda: convert.from_pytorch({0: ones(3)}),
        r"source must map names to arrays, got the key 0",
    ),
    "longdouble": (
        lambda: convert.from_pytorch(torch_lstm(bias_ih_l0=np.ones(12, np.longdouble))),
        r"bias_ih_l0 has dtype float128|longdouble, which JAX lacks",
    ),
    "no source": (lambda: convert.from_pytorch(7), r"source must be a PyTorch module.*got int"),
    # Keras
    "an array too many": (
        lambda: convert.from_keras([*KERAS, ones(12)]),
        r"3 arrays per layer.*got 4",
    ),
    "two rows of biases in an LSTM": (
        lambda: convert.from_keras([*KERAS[:2], ones(2, 12)]),
        r"weights\[2\] must have shape \[12\].*got \[2, 12\]",
    ),
    "kernels in the wrong order": (
        lambda: convert.from_keras([ones(3, 12), ones(2, 12), ones(12)]),
        r"weights\[0\] must hold 1 \(simple\), 3 \(GRU\) or 4 \(LSTM\) gates of 2 units",
    ),
    # Flax
    "linen: gate missing": (
        lambda: convert.from_linen(linen_gru(hz=None)),
        r"must hold hz/kernel \[3, 3\], got only",
    ),
    "linen: gate of other width": (
        lambda: convert.from_linen(linen_gru(ir={"kernel": ones(2, 4), "bias": ones(4)})),
        r"i[rzn]/kernel must have shape \[2, 4\]|hr/kernel must have shape \[4, 4\]",
    ),
    "linen: extra bias": (
        lambda: convert.from_linen(linen_gru(hr={"kernel": ones(3, 3), "bias": ones(3)})),
        r"hr/bias \[3\], which this layer does not have",
    ),
    "linen: bias missing": (
        lambda: convert.from_linen({"i": {"kernel": ones(2, 3)}, "h": {"kernel": ones(3, 3)}}),
        r"must hold i/bias \[3\]",
    ),
    "linen: a layer without parameters": (
        lambda: convert.from_linen({f"layers_{i}": {"cell": linen_gru()} for i in (0, 2)}),
        r"layers of source must be numbered from 0 without gaps, got \[0, 2\]",
    ),
    "linen: two layers in one direction": (
        lambda: convert.from_linen(
            {
                "forward_rnn": {"layers_0": linen_gru(), "layers_1": linen_gru()},
                "backward_rnn": {"cell": linen_gru()},
            }
        ),
        r"forward_rnn and backward_rnn must each hold one cell",
    ),
    "linen: empty": (lambda: convert.from_linen({}), r"mapping of linen parameters.*nothing"),
    "nnx: bias missing": (
        lambda: convert.from_nnx(NNX | {"dense_h": {"kernel": ones(3, 12)}}),
        r"must hold dense_h/bias \[12\]",
    ),
    "nnx: another object": (lambda: convert.from_nnx(3), r"nnx module or a mapping.*got int"),
    # Haiku
    "haiku: which core": (
        lambda: convert.from_haiku(GRU | {"lstm/linear": {"w": ones(5, 12), "b": ones(12)}}),
        r"modules must list the cores.*got gru, lstm",
    ),
    "haiku: array missing": (
        lambda: convert.from_haiku({"gru": {k: v for k, v in GRU["gru"].items() if k != "w_i"}}),
        r"must hold gru/w_i \[input, 3 \* hidden\]",
    ),
    "haiku: no such core": (
        lambda: convert.from_haiku(GRU, ["gru_1"]),
        r"must hold the core 'gru_1', got only gru",
    ),
    "haiku: columns": (
        lambda: convert.from_haiku({"lstm/linear": {"w": ones(5, 13), "b": ones(13)}}),
        r"lstm/linear/w must have shape \[input \+ hidden, 4 \* hidden\], got \[5, 13\]",
    ),
    # Equinox
    "equinox: simple cell": (
        lambda: convert.from_equinox({"weight_ih": ones(3, 2), "weight_hh": ones(3, 3)}),
        r"weight_ih must have the rows of 3 .* or 4 .* gates",
    ),
    "equinox: one of two biases missing": (
        lambda: convert.from_equinox({k: v for k, v in EQX.items() if k != "bias_n"}),
        r"must hold bias_n \[3\]",
    ),
    "equinox: unknown field": (
        lambda: convert.from_equinox(EQX | {"gain": ones(3)}),
        r"gain \[3\], which this layer does not have",
    ),
    # ONNX
    "onnx: clip": (
        lambda: convert.from_onnx(onnx_lstm(clip=5.0)),
        r"attribute clip of ONNX LSTM must be absent.*got 5\.0",
    ),
    "onnx: coupled gates": (
        lambda: convert.from_onnx(onnx_lstm(input_forget=1)),
        r"attribute input_forget of ONNX LSTM must be absent",
    ),
    "onnx: activations": (
        lambda: convert.from_onnx(onnx_lstm(activations=["Sigmoid", "Tanh", "Relu"])),
        r"activations of ONNX LSTM must be \['Sigmoid', 'Tanh', 'Tanh'\], got",
    ),
    "onnx: directions": (
        lambda: convert.from_onnx(onnx_lstm(direction="bidirectional")),
        r"W must have shape \[2, 12, 2\].*got \[1, 12, 2\]",
    ),
    "onnx: hidden_size": (
        lambda: convert.from_onnx(onnx_lstm(hidden_size=4)),
        r"hidden_size=4, got \[1, 12, 3\]",
    ),
    "onnx: peepholes of a GRU": (
        lambda: convert.from_onnx(
            {"op_type": "GRU", "W": ones(1, 9, 2), "R": ones(1, 9, 3), "P": ones(1, 9)}
        ),
        r"P \[1, 9\], which this layer does not have",
    ),
    "onnx: operator": (
        lambda: convert.from_onnx({"op_type": "Gemm"}),
        r"op_type must be one of RNN, LSTM, GRU, got 'Gemm'",
    ),
    # cuDNN
    "cudnn: length": (
        lambda: cudnn(83),
        r"vector of 84 numbers for input_size=2.*got shape \[83\]",
    ),
    "cudnn: size": (lambda: cudnn(84, hidden_size=0), r"hidden_size must be a positive int, got 0"),
}


@pytest.mark.parametrize("call, words", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_input(call, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert re.search(words, str(caught.value), re.DOTALL), caught.value


UNKNOWN = {
    "pytorch": (convert.to_pytorch, "reset_before", r"PyTorch has counterparts of.*ResetBeforeGRU"),
    "keras": (convert.to_keras, "projected", r"Keras has counterparts of.*ProjectedLSTM"),
    "linen": (convert.to_linen, "peephole", r"linen has counterparts of.*PeepholeLSTM"),
    "nnx": (convert.to_nnx, "gru", r"candidate_bias must be zero.*to_linen"),
    "equinox": (convert.to_equinox, "elman", r"Equinox has counterparts of.*Elman"),
    "onnx": (convert.to_onnx, "projected", r"ONNX has counterparts of.*ProjectedLSTM"),
    "cudnn": (convert.to_cudnn, "gru", r"cuDNN has counterparts of.*GRU"),
    "haiku": (lambda n, p: convert.to_haiku(n, p, ["a"]), "elman", r"VanillaRNN has ReLU"),
}


@pytest.mark.parametrize("to, kind, words", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_cells_without_counterpart(to, kind, words):
    if to is convert.to_equinox:
        pytest.importorskip("equinox", reason="it comes with the extra: parity")
    net = network(kind, "cell")
    with pytest.raises((ValueError, TypeError)) as caught:
        to(net, random_params(net))
    assert re.search(words, str(caught.value), re.DOTALL), caught.value


def test_custom_activations_residuals_merges_and_reversed_layers_are_refused():
    cell = rnn.LSTM(2)
    for net, words in (
        (rnn.Elman(2, activation=jax.nn.silu), "activation=<"),
        (rnn.layers.Stack((cell, cell), residual=True), "no residual connections"),
        (rnn.layers.Bidirectional(cell, cell, merge=jax.numpy.add), "concatenates"),
        (rnn.layers.Stack((cell, rnn.layers.Recurrent(cell, reverse=True))), "reversed layers"),
    ):
        with pytest.raises(TypeError, match=words):
            convert.to_keras(net, random_params(net))


def test_weights_that_jax_would_narrow_are_refused():
    with (
        jax.enable_x64(False),
        pytest.raises(TypeError, match="weight_ih_l0 has dtype float64.*x64"),
    ):
        convert.from_pytorch(torch_lstm())


def test_a_foreign_byte_order_is_converted():
    weights = torch_lstm(weight_hh_l0=np.arange(36.0).reshape(12, 3))
    foreign = {name: array.astype(">f8") for name, array in weights.items()}
    (_, got), (_, want) = convert.from_pytorch(foreign), convert.from_pytorch(weights)
    assert (got.recurrent_kernel == want.recurrent_kernel).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named_in_a_warning(value):
    weights = torch_lstm(bias_hh_l0=np.full(12, value))
    with pytest.warns(UserWarning, match="PyTorch weights hold NaN or infinity: bias_hh_l0;"):
        _, params = convert.from_pytorch(weights)
    assert not np.isfinite(params.bias).any()
    with pytest.warns(UserWarning, match="cuDNN weights hold NaN or infinity: weights;"):
        convert.from_cudnn(np.full(84, value), input_size=2, hidden_size=3)


def test_nnx_needs_to_see_the_candidate_bias():
    net = network("gru", "cell")
    with pytest.raises(TypeError, match="outside jax.jit"):
        jax.jit(lambda params: convert.to_nnx(net, params))(random_params(net))


@pytest.mark.parametrize("kind", [rnn.LSTM, rnn.GRU, rnn.ResetBeforeGRU, rnn.PeepholeLSTM])
def test_candidates_other_than_tanh_are_refused(kind):
    net = kind(2, candidate_activation=jax.nn.silu)
    with pytest.raises(TypeError, match="ONNX has tanh in the candidate of every gated cell"):
        convert.to_onnx(net, random_params(net))
    net = kind(2, candidate_activation=jax.numpy.tanh)
    assert convert.to_onnx(net, random_params(net))
