import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.cells.golden import tflite_lstm as tflite
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

COUPLED = Case(rnn.CoupledLSTM(4))
MULTIPLICATIVE = Case(rnn.MultiplicativeLSTM(4))


def test_coupled_lstm_follows_the_paper():
    def step(p, s, x):
        gates = {}
        for k, name in enumerate("fgo"):
            block = slice(4 * k, 4 * k + 4)
            gates[name] = x @ p.input_kernel[:, block] + s.hidden @ p.recurrent_kernel[:, block]
            gates[name] = gates[name] + p.bias[block]
        # The paper's input gate, with the signs of its weights turned: f = 1 - i.
        i = sigmoid(-gates["f"])
        c = (1 - i) * s.cell + i * np.tanh(gates["g"])
        h = sigmoid(gates["o"]) * np.tanh(c)
        return [h, c], h

    assert_follows(COUPLED, step)


def lstm_with_input_gate(leaf):
    """The blocks i, f, g, o of an LSTM whose input gate has the forget gate's weights, negated."""
    f, g, o = jnp.split(leaf, 3, axis=-1)
    return jnp.concatenate([-f, f, g, o], axis=-1)


def test_coupled_lstm_is_an_lstm_with_opposite_gates():
    params, xs = random_params(COUPLED), random_inputs(COUPLED, (5, 2))
    lstm = rnn.cells.LSTMParams(*map(lstm_with_input_gate, params))
    want = rnn.unroll(rnn.LSTM(4), lstm, xs)
    assert_near(rnn.unroll(COUPLED.cell, params, xs), want, 1e-12)


def test_coupled_lstm_is_onnx_with_input_forget():
    ort = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    params, xs = random_params(COUPLED, "float32"), random_inputs(COUPLED, (5, 2), "float32")

    def onnx_order(leaf):  # i, o, f, c; the block f goes unused
        f, g, o = np.split(np.asarray(leaf), 3, axis=-1)
        return np.concatenate([-f, o, 0 * f, g], axis=-1)

    w, r, b = map(onnx_order, params)
    feeds = {
        "X": np.asarray(xs),
        "W": w.T[None],
        "R": r.T[None],
        "B": np.concatenate([b, 0 * b])[None],
    }
    node = helper.make_node("LSTM", list(feeds), ["Y"], hidden_size=4, input_forget=1)
    inputs = [
        helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "lstm", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, feeds)
    _, got = rnn.unroll(COUPLED.cell, params, xs)
    assert_near(got, want[:, 0], 1e-6)


def as_tflite(data):
    """TensorFlow Lite keeps the forget gate, as we do, and an array a gate, turned."""

    def packed(kind):
        return jnp.concatenate([jnp.asarray(data[f"{kind}_{gate}"]).T for gate in "fgo"], axis=-1)

    params = rnn.cells.CoupledLSTMParams(*map(packed, ("input", "recurrent", "bias")))
    return rnn.unroll(rnn.CoupledLSTM(tflite.HIDDEN), params, jnp.asarray(data["xs"]))[1]


def test_coupled_lstm_is_tensorflow_lite_as_it_was_recorded():
    with np.load(tflite.FILE) as data:
        assert_near(as_tflite(data), data["ys"], 1e-6)
        for name, array in tflite.draw().items():
            np.testing.assert_array_equal(array, data[name])


def test_coupled_lstm_is_tensorflow_lite():
    pytest.importorskip("ai_edge_litert", reason="not installed; what it gave is tested above")
    drawn = tflite.draw()
    assert_near(as_tflite(drawn), tflite.run(drawn), 1e-6)


def test_multiplicative_lstm_follows_the_paper():
    def step(p, s, x):
        m = (x @ p.input_kernel[:, 16:]) * (s.hidden @ p.multiplier_kernel)
        gates = {}
        for k, name in enumerate("ifgo"):
            block = slice(4 * k, 4 * k + 4)
            gates[name] = x @ p.input_kernel[:, block] + m @ p.recurrent_kernel[:, block]
            gates[name] = gates[name] + p.bias[block]
        c = sigmoid(gates["f"]) * s.cell + sigmoid(gates["i"]) * np.tanh(gates["g"])
        h = sigmoid(gates["o"]) * np.tanh(c)
        return [h, c], h

    assert_follows(MULTIPLICATIVE, step)


def test_multiplicative_lstm_with_a_constant_factor_is_lstm():
    params, xs = random_params(MULTIPLICATIVE), random_inputs(MULTIPLICATIVE, (5, 2))
    xs = xs.at[..., 0].set(1.0)  # a feature that the factor x W_m may read as a constant
    factor = jnp.zeros((3, 4)).at[0].set(1.0)
    kernel = params.input_kernel.at[:, 16:].set(factor)
    params = params._replace(input_kernel=kernel, multiplier_kernel=jnp.eye(4))
    lstm = rnn.cells.LSTMParams(kernel[:, :16], params.recurrent_kernel, params.bias)
    want = rnn.unroll(rnn.LSTM(4), lstm, xs)
    assert_near(rnn.unroll(MULTIPLICATIVE.cell, params, xs), want, 1e-12)
