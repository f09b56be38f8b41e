"""Conversion of the frameworks' modules, layers and files, in both directions."""

import os
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import convert
from tests.support.networks import network, random_params

XS = np.random.default_rng(0).normal(size=(5, 3, 2))


def peer(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} comes with the extra: parity")


def run(net, params, xs=XS):
    if isinstance(net, rnn.layers.Layer):
        return np.asarray(net.apply(params, None, xs)[1])
    return np.asarray(rnn.unroll(net, params, xs)[1])


def same(ours, theirs):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-12)


# PyTorch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_pytorch_module_and_its_files(tmp_path, dropout):
    torch = peer("torch")
    import safetensors.numpy

    options = {"num_layers": 2, "bidirectional": True, "dropout": dropout, "dtype": torch.float64}
    module = torch.nn.LSTM(2, 3, **options).eval()
    wanted = module(torch.tensor(XS))[0].detach().numpy()
    net, params = convert.from_pytorch(module)
    assert net.dropout == dropout
    same(run(net, params), wanted)

    torch.save(module.state_dict(), tmp_path / "w.pt")
    same(run(*convert.from_pytorch(tmp_path / "w.pt")), wanted)
    arrays = {f"encoder.{n}": t.numpy() for n, t in module.state_dict().items()}
    safetensors.numpy.save_file(arrays | {"head": np.ones(1)}, tmp_path / "w.safetensors")
    same(run(*convert.from_pytorch(tmp_path / "w.safetensors", prefix="encoder.")), wanted)

    fresh = torch.nn.LSTM(2, 3, **options).eval()
    fresh.load_state_dict({n: torch.tensor(a) for n, a in convert.to_pytorch(net, params).items()})
    same(fresh(torch.tensor(XS))[0].detach().numpy(), wanted)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_pytorchs_cells_and_nonlinearity(kind):
    torch = peer("torch")
    options = {"nonlinearity": "relu"} if kind == "RNNCell" else {}
    module = getattr(torch.nn, kind)(2, 3, dtype=torch.float64, **options)
    theirs = module(torch.tensor(XS[0]))
    theirs = theirs[0] if kind == "LSTMCell" else theirs
    same(run(*convert.from_pytorch(module))[0], theirs.detach().numpy())


def test_bfloat16_tensors_keep_their_bits():
    torch = peer("torch")
    module = torch.nn.GRU(2, 3, dtype=torch.bfloat16)
    _, params = convert.from_pytorch(module)
    theirs = module.weight_ih_l0.detach().T.float().numpy()
    assert params.input_kernel.dtype == jnp.bfloat16
    assert (np.asarray(params.input_kernel.astype("float32")) == theirs).all()


class Touch:
    """A pickle that creates a directory when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path):
    peer("torch")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Touch(tmp_path / "made"), protocol=2))
    with pytest.raises(ValueError, match="evil.pt must contain tensors only"):
        convert.from_pytorch(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch = peer("torch")
    torch.save(torch.nn.GRU(2, 3), tmp_path / "module.pt")
    with pytest.raises(ValueError, match="loading a pickled module would run its code"):
        convert.from_pytorch(tmp_path / "module.pt")


def test_a_truncated_safetensors_file_is_named(tmp_path):
    import safetensors.numpy

    net = network("gru", "cell")
    whole = safetensors.numpy.save(convert.to_pytorch(net, random_params(net)))
    path = tmp_path / "half.safetensors"
    for length in (4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="half.safetensors must be a complete safetensors"):
            convert.from_pytorch(path)


# Keras ------------------------------------------------------------------------------------------


KERAS_OWN = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def keras_layers():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return peer("keras").layers


def keras_call(layer, xs):
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        return np.asarray(layer(xs))


@KERAS_OWN
def test_keras_layers_and_their_stack():
    layers = keras_layers()
    xs = XS.astype("float32").swapaxes(0, 1)
    first = layers.Bidirectional(layers.GRU(3, return_sequences=True))
    second = layers.SimpleRNN(4, return_sequences=True, activation="relu")
    middle = keras_call(first, xs)
    wanted = keras_call(second, middle).swapaxes(0, 1)
    net, params = convert.from_keras([first, second])
    assert isinstance(net.layers[0].forward.cell, rnn.GRU)
    np.testing.assert_allclose(run(net, params, XS.astype("float32")), wanted, atol=1e-5)


@KERAS_OWN
def test_keras_go_backwards_is_a_reversed_layer():
    layers = keras_layers()
    xs = XS.astype("float32").swapaxes(0, 1)
    layer = layers.GRU(3, return_sequences=True, go_backwards=True, reset_after=False)
    wanted = keras_call(layer, xs)[:, ::-1].swapaxes(0, 1)
    net, params = convert.from_keras(layer)
    assert net.reverse and isinstance(net.cell, rnn.ResetBeforeGRU)
    np.testing.assert_allclose(run(net, params, XS.astype("float32")), wanted, atol=1e-5)


@KERAS_OWN
@pytest.mark.parametrize("reset_after", [True, False])
def test_a_keras_gru_without_biases_keeps_its_form(reset_after):
    layers = keras_layers()
    xs = XS.astype("float32").swapaxes(0, 1)
    layer = layers.GRU(3, return_sequences=True, use_bias=False, reset_after=reset_after)
    with jax.enable_x64(False):  # without biases the dtype of Keras's loop would change
        wanted = keras_call(layer, xs).swapaxes(0, 1)
    net, params = convert.from_keras(layer)
    arrays = layer.get_weights()
    assert net == convert.from_keras(arrays, use_bias=False, reset_after=reset_after)[0]
    np.testing.assert_allclose(run(net, params, XS.astype("float32")), wanted, atol=1e-5)


def test_keras_layers_without_a_counterpart():
    layers = keras_layers()
    for layer, words in (
        (layers.Dense(3), "must be one of SimpleRNN, .* got Dense"),
        (layers.LSTM(3), "must be built"),
        (layers.GRU(3, activation="relu"), "activation of GRU must be 'tanh', got 'relu'"),
        (layers.LSTM(3, recurrent_activation="hard_sigmoid"), "recurrent_activation of LSTM"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            convert.from_keras(layer)


# Flax, Equinox ----------------------------------------------------------------------------------


def test_linens_sequential_of_layers():
    nn = peer("flax.linen")

    def layers():
        rnns = [nn.RNN(nn.GRUCell(3, param_dtype="float64")) for _ in range(3)]
        return nn.Sequential([rnns[0], nn.Bidirectional(rnns[1], rnns[2])])

    xs = XS.swapaxes(0, 1)
    variables = layers().init(jax.random.key(0), xs)
    net, params = convert.from_linen(variables)
    wanted = layers().apply(variables, xs).swapaxes(0, 1)
    same(run(net, params), wanted)
    back = convert.to_linen(net, params)
    same(layers().apply({"params": back}, xs).swapaxes(0, 1), wanted)


def test_nnx_modules():
    nnx = peer("flax.nnx")

    def module(seed):
        rngs = nnx.Rngs(seed)
        first = nnx.RNN(nnx.OptimizedLSTMCell(2, 3, rngs=rngs, param_dtype="float64"))
        second = nnx.RNN(nnx.GRUCell(3, 4, rngs=rngs, param_dtype="float64"))
        return nnx.Sequential(first, second)

    ours, theirs = module(0), module(1)
    xs = jnp.asarray(XS.swapaxes(0, 1))
    net, params = convert.from_nnx(ours)
    same(run(net, params), ours(xs).swapaxes(0, 1))
    nnx.update(theirs, convert.to_nnx(net, params))
    same(ours(xs), theirs(xs))
    _, from_state = convert.from_nnx(nnx.state(ours, nnx.Param))
    same(run(net, from_state), run(net, params))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_equinox_cells(kind):
    peer("equinox")
    net = network(kind, "cell")
    params = random_params(net)
    cell = convert.to_equinox(net, params)
    x = jnp.asarray(XS[0])
    zeros = jnp.zeros((3, 3))
    theirs = jax.vmap(cell)(x, (zeros, zeros) if kind == "lstm" else zeros)
    same(run(net, params)[0], theirs[0] if kind == "lstm" else theirs)
