"""Attributes of foreign objects that their weights do not contain: converted or refused."""

import inspect
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxrnn as rnn
import jaxrnn.nnx
from jaxrnn import convert
from tests.convert.test_objects import KERAS_OWN, XS, keras_layers, peer, run, same

ROWS = jnp.asarray(XS.swapaxes(0, 1))  # batch-major
F64 = {"param_dtype": "float64", "dtype": "float64"}


def nnx_cell(kind="GRUCell", inputs=2, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flax deprecates carry_init and keep_rngs
        return getattr(nnx, kind)(inputs, 3, rngs=nnx.Rngs(0), **(F64 | options))


def nnx_both(**options):
    layers = nnx.RNN(nnx_cell("LSTMCell")), nnx.RNN(nnx_cell("SimpleCell", activation_fn=nnx.relu))
    return nnx.Bidirectional(*layers, **options)


NNX_READ = {
    "a reversed layer in order": lambda: nnx.RNN(nnx_cell(), reverse=True, keep_order=True),
    "a reversed layer in a stack": lambda: nnx.Sequential(
        nnx.RNN(nnx_cell(), reverse=True, keep_order=True), nnx.RNN(nnx_cell("LSTMCell", 3))
    ),
    "relu": lambda: nnx.RNN(nnx_cell("SimpleCell", activation_fn=jax.nn.relu)),
    "both directions": nnx_both,
    "jaxrnn's layer": lambda: rnn.nnx.RNN(nnx_cell(), reverse=True, keep_order=True),
}


@pytest.mark.parametrize("make", NNX_READ.values(), ids=NNX_READ.keys())
def test_nnx_objects_are_read(make):
    module = make()
    same(run(*convert.from_nnx(module)), module(ROWS).swapaxes(0, 1))


NNX_REFUSED = {
    "order": (
        lambda: nnx.RNN(nnx_cell(), reverse=True),
        "reverse=True of RNN needs keep_order=True",
    ),
    "merge": (lambda: nnx_both(merge_fn=jnp.add), "merge_fn of Bidirectional must be"),
    "layers": (lambda: nnx.Sequential(nnx.RNN(nnx_cell()), nnx.relu), "got .*relu"),
    "stack inside": (
        lambda: nnx.Bidirectional(nnx_both(), nnx.RNN(nnx_cell())),
        "forward_rnn and backward_rnn must each hold one cell",
    ),
    "subclass": (
        lambda: type("Own", (nnx.GRUCell,), {})(2, 3, rngs=nnx.Rngs(0)),
        "SimpleCell, .* got Own",
    ),
}


@pytest.mark.parametrize("make, words", NNX_REFUSED.values(), ids=NNX_REFUSED.keys())
def test_nnx_objects_without_a_counterpart(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        convert.from_nnx(make())


def test_a_prefix_reads_the_inner_module_of_pytorch():
    torch = peer("torch")
    model = torch.nn.Module()
    model.encoder = torch.nn.Module()
    model.encoder.rnn = torch.nn.RNN(
        2, 3, 2, nonlinearity="relu", dropout=0.25, dtype=torch.float64
    ).eval()
    net, params = convert.from_pytorch(model, prefix="encoder.rnn.")
    assert net.dropout == 0.25
    same(run(net, params), model.encoder.rnn(torch.tensor(XS))[0].detach())


@KERAS_OWN
def test_keras_bidirectional_of_reversed_layers_is_refused():
    layers = keras_layers()
    both = layers.Bidirectional(
        layers.GRU(3, go_backwards=True, return_sequences=True),
        backward_layer=layers.GRU(3, return_sequences=True),
    )
    both.build((3, 5, 2))
    with pytest.raises(ValueError, match="forward_layer of a Bidirectional must have go_backwards"):
        convert.from_keras(both)


def test_onnx_takes_a_stack_from_the_output_of_all_steps():
    peer("onnx")
    stack = rnn.layers.Stack((rnn.GRU(3), rnn.GRU(3)))
    model = rnn.export.to_onnx(stack, stack.init(jax.random.key(0), 2))
    first, second = (node for node in model.graph.node if node.op_type == "GRU")
    second.input[0] = first.output[1]
    words = "the input of GRU 'layer1' is output 1 of GRU 'layer0', not output 0 of"
    with pytest.raises(ValueError, match=words):
        convert.from_onnx(model)


# Every attribute of every class: a new one in a newer release is not in these tables ------------


def unknown(constructor, table):
    """The attributes of a class that a table does not have."""
    return [
        name
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and name not in table and name != "self"
    ]


INITIAL = dict.fromkeys(
    ("kernel_init", "recurrent_kernel_init", "bias_init", "kernel_metadata", "bias_metadata")
    + ("recurrent_kernel_metadata", "in_features", "hidden_features", "rngs", "keep_rngs")
)
# A value other than the default, if the converter must refuse it; None where outputs stay the same.
NNX_GATED = INITIAL | {
    "gate_fn": jax.nn.hard_sigmoid,
    "activation_fn": jax.nn.relu,
    "carry_init": nnx.initializers.ones,
    "promote_dtype": lambda tree, dtype: tree,
    "dtype": None,  # the compute dtype is that of the weights
    "param_dtype": None,
}
NNX_SIMPLE = {**NNX_GATED, "residual": True, "activation_fn": jax.nn.gelu}
NNX = {
    "SimpleCell": NNX_SIMPLE,
    "LSTMCell": NNX_GATED,
    "OptimizedLSTMCell": NNX_GATED,
    "GRUCell": NNX_GATED,
}


@pytest.mark.parametrize("kind", NNX)
def test_every_attribute_of_nnxs_cells(kind):
    assert not unknown(getattr(nnx, kind).__init__, NNX[kind])
    for name in inspect.signature(getattr(nnx, kind).__init__).parameters:
        if NNX[kind].get(name) is not None:
            with pytest.raises(ValueError, match=f"{name} of {kind} must be"):
                convert.from_nnx(nnx_cell(kind, **{name: NNX[kind][name]}))


def test_every_attribute_of_nnxs_layers():
    layer = {"cell", "time_major", "return_carry", "unroll", "rngs", "broadcast_rngs", "state_axes"}
    assert not unknown(nnx.RNN.__init__, layer | {"reverse", "keep_order"})
    both = {"forward_rnn", "backward_rnn", "time_major", "return_carry", "rngs", "merge_fn"}
    assert not unknown(nnx.Bidirectional.__init__, both)


KERAS_SAME = dict.fromkeys(
    ("units", "use_bias", "unit_forget_bias", "seed", "return_sequences", "return_state")
    + ("stateful", "unroll", "use_cudnn", "go_backwards", "reset_after")
)
KERAS = KERAS_SAME | {
    "activation": "gelu",
    "recurrent_activation": "hard_sigmoid",
    "dropout": 0.2,
    "recurrent_dropout": 0.3,
}


@KERAS_OWN
@pytest.mark.parametrize("suffix", ["", "Cell"])
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_every_attribute_of_keras(kind, suffix):
    cls = getattr(keras_layers(), kind + suffix)
    names = inspect.signature(cls.__init__).parameters
    training = {n for n in names if re.search("_(initializer|regularizer|constraint)$", n)}
    assert not unknown(cls.__init__, KERAS.keys() | training)
    for name in names:
        if KERAS.get(name) is None:
            continue
        layer = cls(3, **{name: KERAS[name]})
        layer.build((3, 2) if suffix else (3, 5, 2))
        if "dropout" in name:
            with pytest.warns(UserWarning, match=f"{name}={KERAS[name]} of {kind}.*Variational"):
                convert.from_keras(layer)
        else:
            with pytest.raises(ValueError, match=f"^{name} of {kind}{suffix} must be"):
                convert.from_keras(layer)


CONVOLUTION = {
    **dict.fromkeys(KERAS_SAME.keys() - {"units", "use_cudnn", "reset_after", "unroll"}),
    **dict.fromkeys(("filters", "kernel_size", "padding", "data_format")),  # test_keras.py
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "strides": 2,
    "dilation_rate": 2,
    "dropout": 0.2,
    "recurrent_dropout": 0.3,
}


@KERAS_OWN
def test_every_attribute_of_keras_convolutional_layers_and_wrappers():
    layers = keras_layers()
    for rank in (1, 2, 3):
        cls = getattr(layers, f"ConvLSTM{rank}D")
        names = inspect.signature(cls.__init__).parameters
        training = {n for n in names if re.search("_(initializer|regularizer|constraint)$", n)}
        assert not unknown(cls.__init__, CONVOLUTION.keys() | training)
        for name, value in CONVOLUTION.items():
            if value is None or (rank == 3 and "dropout" not in name):
                continue
            layer = cls(2, 2, **{name: value})
            layer.build((1, 2, *(3,) * rank, 2))
            if "dropout" in name:
                with pytest.warns(UserWarning, match=f"{name}={value} of {cls.__name__}"):
                    convert.from_keras(layer)
            else:
                with pytest.raises(ValueError, match=f"^{name} of {cls.__name__} must be"):
                    convert.from_keras(layer)
    layer = {"cell", "return_sequences", "return_state", "go_backwards", "stateful", "unroll"}
    assert not unknown(layers.RNN.__init__, layer | {"zero_output_for_mask"})
    assert not unknown(layers.StackedRNNCells.__init__, {"cells"})
    both = {"layer", "merge_mode", "weights", "backward_layer"}
    assert not unknown(layers.Bidirectional.__init__, both)


@KERAS_OWN
def test_a_new_attribute_of_keras_is_refused():
    layers = keras_layers()

    class GRU(layers.GRU):
        def __init__(self, *args, peepholes=False, **options):
            super().__init__(*args, **options)
            self.peepholes = peepholes

        def get_config(self):
            return super().get_config() | {"peepholes": self.peepholes}

    layer = GRU(3, peepholes=True)
    layer.build((3, 5, 2))
    with pytest.raises(TypeError, match="GRU must be one of Keras' own, got a class of tests"):
        convert.from_keras(layer)
    GRU.__module__ = layers.GRU.__module__  # as in a later release of Keras
    with pytest.raises(ValueError, match="peepholes of GRU must be False, got True"):
        convert.from_keras(layer)


def test_every_attribute_of_pytorch():
    torch = peer("torch")
    layer = {"mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"}
    layer |= {"bidirectional", "proj_size", "device", "dtype"}
    assert not unknown(torch.nn.RNNBase.__init__, layer)
    cell = {"input_size", "hidden_size", "bias", "device", "dtype", "nonlinearity"}
    for kind in ("RNNCell", "LSTMCell", "GRUCell"):
        assert not unknown(getattr(torch.nn, kind).__init__, cell)


def test_every_attribute_of_equinox_and_haiku():
    eqx, hk = peer("equinox"), peer("haiku")
    cell = {"input_size", "hidden_size", "use_bias", "dtype", "key"}
    for kind in ("LSTMCell", "GRUCell"):
        assert not unknown(getattr(eqx.nn, kind).__init__, cell)
    core = {"hidden_size", "name", "double_bias", "w_i_init", "w_h_init", "b_init"}
    for kind in ("VanillaRNN", "LSTM", "GRU"):
        assert not unknown(getattr(hk, kind).__init__, core)


def test_every_attribute_of_onnx():
    onnx = peer("onnx")
    read = {"activations", "direction", "hidden_size", "linear_before_reset", "layout"}
    refused = {"clip": 3.0, "input_forget": 1, "activation_alpha": [0.1], "activation_beta": [0.1]}
    for kind, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        weights = {"W": np.ones((1, gates * 3, 2)), "R": np.ones((1, gates * 3, 3))}
        for name in set(onnx.defs.get_schema(kind).attributes) - read - {"output_sequence"}:
            with pytest.raises(ValueError, match=f"attribute {name} of ONNX {kind}"):
                convert.from_onnx({"op_type": kind, **weights, name: refused[name]})
