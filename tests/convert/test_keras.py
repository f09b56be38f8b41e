"""Keras' layers beyond one cell, and models in files, against Keras and TensorFlow themselves."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import convert
from tests.convert.golden import tensorflow as golden
from tests.convert.test_objects import KERAS_OWN, keras_call, keras_layers, peer

RNG = np.random.default_rng(4)
XS = RNG.normal(size=(3, 5, 2)).astype("float32")  # batch-major, as Keras is


def build(layer, xs=XS):
    """Builds a layer and gives it random weights, biases included."""
    layer.build(xs.shape)
    layer.set_weights([0.7 * RNG.normal(size=array.shape) for array in layer.get_weights()])
    return layer


def run(net, params, xs=XS):
    """The final state's leaves and the outputs, batch-major."""
    xs = jnp.swapaxes(xs, 0, 1)
    if isinstance(net, rnn.layers.Layer):
        state, ys = net.apply(params, None, xs)
    else:
        state, ys = rnn.unroll(net, params, xs)
    return jax.tree.leaves(state), jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), ys)


def near(got, want):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=2e-6)


CONVOLUTIONS = {
    "1D same": (1, {"padding": "same"}),
    "1D backwards": (1, {"padding": "valid", "go_backwards": True}),
    "2D valid": (2, {"kernel_size": (3, 2)}),
    "2D no bias": (2, {"kernel_size": 2, "padding": "same", "use_bias": False}),
    "2D channels first": (2, {"data_format": "channels_first", "padding": "valid"}),
    "3D valid": (3, {"kernel_size": (1, 2, 3)}),
}


REST = [name for name in CONVOLUTIONS if name not in ("1D same", "2D channels first")]


def thorough(value):
    return pytest.param(value, marks=pytest.mark.thorough)


@KERAS_OWN
@pytest.mark.parametrize("name", ["1D same", "2D channels first", *map(thorough, REST)])
def test_convolutional_layers(name):
    rank, options = CONVOLUTIONS[name]
    options = {"kernel_size": 3, "return_sequences": True, "return_state": True} | options
    xs = RNG.normal(size=(2, 4, *(4, 3, 5)[:rank], 2)).astype("float32")
    first = options.get("data_format") == "channels_first"
    theirs = np.moveaxis(xs, -1, 2) if first else xs
    layer = build(getattr(keras_layers(), f"ConvLSTM{rank}D")(3, **options), theirs)
    ys, *state = map(np.asarray, keras_call_tree(layer, theirs))
    if first:
        ys, state = np.moveaxis(ys, 2, -1), [np.moveaxis(a, 1, -1) for a in state]
    if options.get("go_backwards"):
        ys = ys[:, ::-1]
    net, params = convert.from_keras(layer)
    near(run(net, params, xs), (state, ys))
    assert_same_arrays(convert.to_keras(net, params), layer, options.get("use_bias", True))


def assert_same_arrays(written, layer, biased=True):
    kept = layer.get_weights()
    for ours, theirs in zip(written if biased else written[: len(kept)], kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@KERAS_OWN
def test_a_stack_of_convolutional_layers():
    layers = keras_layers()
    xs = RNG.normal(size=(2, 4, 5, 4, 2)).astype("float32")
    options = {"return_sequences": True, "kernel_size": 2}
    both = build(layers.Bidirectional(layers.ConvLSTM2D(2, **options), merge_mode="sum"), xs)
    middle = keras_call(both, xs)
    top = build(layers.ConvLSTM2D(3, **options), middle)
    _, ys = run(*convert.from_keras([both, top]), xs)
    near(ys, keras_call(top, middle))


@KERAS_OWN
@pytest.mark.parametrize("mode", ["ave", None, *map(thorough, ("concat", "sum", "mul"))])
def test_merge_modes_and_states(mode):
    layers = keras_layers()
    options = {"return_sequences": True, "return_state": True}
    layer = layers.Bidirectional(layers.LSTM(3, **options), merge_mode=mode)
    outputs = [np.asarray(a) for a in keras_call_tree(build(layer))]
    ys, state = (outputs[:2], outputs[2:]) if mode is None else (outputs[0], outputs[1:])
    net, params = convert.from_keras(layer)
    near(run(net, params), (state, ys))
    assert net == convert.from_keras(layer)[0]  # merge is a value that compares equal
    if mode is None:
        assert net.output_size is None
        with pytest.raises(ValueError, match="the None output features of layer 0"):
            convert.from_keras([layer, build(layers.GRU(3))])
    assert_same_arrays(convert.to_keras(net, params), layer)


@KERAS_OWN
@pytest.mark.parametrize("backwards", [False, thorough(True)])
def test_stacked_cells(backwards):
    layers = keras_layers()
    cells = [layers.LSTMCell(3), layers.GRUCell(2, reset_after=False), layers.SimpleRNNCell(4)]
    options = {"return_sequences": True, "return_state": True, "go_backwards": backwards}
    layer = build(layers.RNN(layers.StackedRNNCells(cells), **options))
    ys, *state = keras_call_tree(layer)
    net, params = convert.from_keras(layer)
    near(run(net, params), (state, ys[:, ::-1] if backwards else ys))
    if not backwards:
        assert net == convert.from_keras(layer.cell)[0]
        assert_same_arrays(convert.to_keras(net, params), layer)


def keras_call_tree(layer, xs=XS):
    """The outputs of a layer that returns its states too."""
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.leaves(layer(xs))


@KERAS_OWN
@pytest.mark.thorough
def test_both_directions_of_stacked_cells_below_a_layer():
    layers = keras_layers()
    inner = layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], return_sequences=True)
    both = build(layers.Bidirectional(inner))
    middle = keras_call(both, XS)
    top = build(layers.RNN(layers.GRUCell(3), return_sequences=True), middle)
    net, params = convert.from_keras([both, top])
    near(run(net, params)[1], keras_call(top, middle))
    with pytest.raises(TypeError, match="one cell in each direction"):
        convert.to_keras(net, params)


@KERAS_OWN
def test_convolutions_without_a_counterpart():
    layers = keras_layers()
    for layer, words in (
        (layers.ConvLSTM2D(3, 3, strides=2), r"strides of ConvLSTM2D must be 1.*got \(2, 2\)"),
        (layers.ConvLSTM1D(3, 3, dilation_rate=2), "dilation_rate of ConvLSTM1D must be 1"),
        (layers.ConvLSTM1D(3, 3, activation="relu"), "activation of ConvLSTM1D must be 'tanh'"),
    ):
        layer.build((2, 4, 9, 9, 2)[: 3 + int(type(layer).__name__[-2])])
        with pytest.raises(ValueError, match=words):
            convert.from_keras(layer)


# Files ------------------------------------------------------------------------------------------


def model():
    keras, layers = peer("keras"), keras_layers()
    stack = [
        layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="ave", name="both"),
        layers.LSTM(4, return_sequences=True, name="middle"),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True, name="cells"),
        layers.LSTM(2, return_sequences=True, name="top"),
    ]
    whole = keras.Sequential([keras.Input((5, 2)), *stack])
    whole.set_weights([0.7 * RNG.normal(size=array.shape) for array in whole.get_weights()])
    return whole


@KERAS_OWN
@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_models_in_files(tmp_path, suffix):
    whole = model()
    path = tmp_path / f"model.{suffix}"
    whole.save(path)
    wanted = keras_call(whole, XS)
    net, params = convert.from_keras(path)
    near(run(net, params)[1], wanted)
    if suffix == "keras":
        zipfile.ZipFile(path).extractall(tmp_path / "folder")
        near(convert.from_keras(tmp_path / "folder")[1], params)
    assert (net, len(params)) == (convert.from_keras(whole)[0], 4)
    chosen, own = convert.from_keras(str(path), layer=["middle", "cells"])
    inner = keras_call(whole.layers[0], XS)
    near(
        run(chosen, own, inner)[1], keras_call(whole.layers[2], keras_call(whole.layers[1], inner))
    )
    assert convert.from_keras(path, layer="top")[0] == rnn.LSTM(2)
    with pytest.raises(ValueError, match=r"model\.\w+: layer must name layers.*got 'absent'"):
        convert.from_keras(path, layer="absent")


@KERAS_OWN
def test_layers_of_nested_models_and_convolutions_in_a_file(tmp_path):
    keras, layers = peer("keras"), keras_layers()
    xs = RNG.normal(size=(2, 3, 6, 5, 2)).astype("float32")
    inner = keras.Sequential([layers.ConvLSTM2D(2, 2, return_sequences=True, name="deep")])
    inputs = keras.Input(xs.shape[1:])
    outputs = layers.Dense(1)(layers.ConvLSTM2D(2, 3, name="top")(inner(inputs)))
    whole = keras.Model(inputs, outputs)
    whole.save(tmp_path / "model.keras")
    name = f"{inner.name}/deep"
    near(
        run(*convert.from_keras(tmp_path / "model.keras", layer=name), xs)[1], keras_call(inner, xs)
    )
    for source in (tmp_path / "model.keras", whole):
        with pytest.raises(ValueError, match=r"layer must name the recurrent layers.*Dense"):
            convert.from_keras(source)
    assert convert.from_keras(whole, layer="top")[0].spatial_shape == (5, 4)


TF_KERAS = ("saved_model", "tf_keras.h5", "tf_keras.keras")


@pytest.mark.parametrize("name", TF_KERAS)
def test_models_of_tf_keras(name):
    peer("pyfive")
    with np.load(golden.OUTPUTS) as file:
        wanted = dict(file)
    ys = golden.XS
    for layer in ("both", "cells", "top"):
        _, ys = run(*convert.from_keras(golden.FOLDER / name, layer=layer), ys)
        near(ys, wanted[layer])
    net, params = convert.from_keras(golden.FOLDER / name, layer=["both", "cells", "top"])
    near(run(net, params, golden.XS)[1], wanted["top"])


def test_the_variables_of_a_checkpoint():
    arrays = convert.tensorflow_variables(golden.CHECKPOINT)
    assert arrays["half"].dtype == jnp.bfloat16 and arrays["half"].tolist() == [1.0, 2.5]
    for name, wanted in golden.CHECKPOINTED.items():
        np.testing.assert_array_equal(arrays[name], wanted)
        assert arrays[name].dtype == wanted.dtype
    variables = convert.tensorflow_variables(golden.FOLDER / "saved_model")
    numbers = [int(n.split("/")[1]) for n in variables if n.startswith("variables/")]
    assert numbers == list(range(len(numbers))) and len(numbers) > 10
    net, params = convert.from_keras([variables[f"variables/{i}"] for i in (12, 13, 14)])
    assert net.hidden_size == 2 and params.bias.shape == (2,)
