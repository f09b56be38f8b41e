"""Models that others trained: their networks in jaxrnn, and what is refused."""

import dataclasses
import functools
import inspect
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import convert
from jaxrnn.convert.torchrecurrent import _READERS
from tests.parity import golden
from tests.parity.comparison import under
from tests.support.helpers import assert_near

READ = {
    "memax_elman_two_layers": convert.from_memax,
    "xlstm_stack": convert.from_xlstm,
    "recurrentgemma_block": convert.from_recurrentgemma,
}
ALONE = {
    "xlstm_mlstm": convert.from_xlstm,
    "xlstm_slstm": convert.from_xlstm,
    "recurrentgemma_rg_lru": convert.from_recurrentgemma,
}


def peer(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed")


def weights_of(name):
    return under(golden.read(name), "weights")


@pytest.mark.parametrize("name", READ)
def test_steps_lengths_and_batch_axes_of_a_network(name):
    network, params = READ[name](weights_of(name))
    again, _ = READ[name](weights_of(name))
    assert network == again == pickle.loads(pickle.dumps(network)) and hash(network) == hash(again)
    xs = jnp.asarray(golden.read(name)["inputs/xs"])
    final, ys = jax.jit(lambda xs: network.apply(params, None, xs))(xs)

    step, state, outputs = jax.jit(network.step), network.init_state(params, (3,)), []
    middle = None
    for x in xs:
        state, y = step(params, state, x)
        outputs.append(y)
        middle = state if len(outputs) == 2 else middle
    assert_near((state, jnp.stack(outputs)), (final, ys), 1e-12)

    lengths = np.array([[4], [2], [0]])
    cut_short = jax.jit(lambda xs: network.apply(params, None, xs, lengths=lengths))
    short, cut = cut_short(xs[:, :, None])
    valid = (np.arange(4)[:, None] < lengths[:, 0])[..., None]
    assert_near(cut[:, :, 0], jnp.where(valid, ys, 0), 1e-12)
    rows = [jax.tree.map(lambda a, r=row: a[r], tree) for row, tree in enumerate((final, middle))]
    assert_near([jax.tree.map(lambda a, r=row: a[r, 0], short) for row in (0, 1)], rows, 1e-12)


@pytest.mark.parametrize("name", ALONE)
def test_gradients_of_saturated_gates_are_finite(name):
    kept = {n: 100 * a if "gate" in n else a for n, a in weights_of(name).items()}
    xs = jnp.asarray(golden.read(name)["inputs/xs"])

    def loss(weights, xs):
        network, params = ALONE[name](weights)
        if isinstance(network, rnn.layers.Layer):
            return (network.apply(params, None, xs)[1] ** 2).sum()
        return (rnn.unroll(network, params, xs)[1] ** 2).sum()

    gradients = jax.jit(jax.grad(loss, (0, 1)))(kept, xs)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", ALONE)
def test_bfloat16_weights_give_bfloat16_outputs_and_a_wider_state(name):
    def one_step(weights, x):
        network, params = ALONE[name](weights)
        return network.step(params, network.init_state(params, x.shape[:-1]), x)

    arrays = weights_of(name), golden.read(name)["inputs/xs"][0]
    low = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.bfloat16), arrays)
    state, y = jax.eval_shape(one_step, *low)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}


# xlstm ------------------------------------------------------------------------------------------


def test_both_backends_of_an_slstm():
    vanilla = weights_of("xlstm_slstm")
    heads, rows, head = vanilla["slstm_cell._recurrent_kernel_"].shape
    kernel = vanilla["slstm_cell._recurrent_kernel_"].swapaxes(1, 2)
    bias = vanilla["slstm_cell._bias_"].reshape(4, heads, head).swapaxes(0, 1).ravel()
    cuda = vanilla | {"slstm_cell._recurrent_kernel_": kernel, "slstm_cell._bias_": bias}
    ours, theirs = convert.from_xlstm(cuda), convert.from_xlstm(vanilla)
    assert ours[0] == theirs[0]
    assert_near(ours[1], theirs[1], 0)


def test_the_chunk_of_a_matrix_memory_is_its_steps():
    network, params = convert.from_xlstm(weights_of("xlstm_mlstm"))
    cell, own = network.layers[2].cell, params[2]
    keys = jax.random.split(jax.random.key(0), 5)
    xs = jax.random.normal(keys[0], (6, 2, 36), jnp.float64)
    drawn = cell.init_state(own, (2,))
    state = jax.tree.map(lambda a, k: jax.random.normal(k, a.shape), drawn, type(drawn)(*keys[1:4]))

    def run(form):
        def objective(own, state, xs):
            final, ys = form(own, state, xs)
            return (ys**2).sum() + (final.memory**3).sum() + final.normalizer.sum(), (final, ys)

        return jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))(own, state, xs)

    steps = run(lambda own, state, xs: jax.lax.scan(functools.partial(cell.step, own), state, xs))
    assert rnn.is_chunked(cell)
    assert_near(run(cell.chunk), steps, 1e-10)
    engine = rnn.engines.Associative(chunk_size=2)
    chunks = run(lambda own, state, xs: rnn.unroll(cell, own, xs, state, engine=engine))
    assert_near(chunks, steps, 1e-10)


def test_a_prefix_of_a_larger_model():
    weights = weights_of("xlstm_stack")
    larger = {f"stack.{n}": a for n, a in weights.items()} | {"lm_head.weight": np.ones((5, 6))}
    assert_near(convert.from_xlstm(larger, prefix="stack.")[1], convert.from_xlstm(weights)[1], 0)
    with pytest.raises(ValueError, match="must hold arrays under prefix='trunk.', got stack"):
        convert.from_xlstm(larger, prefix="trunk.")


XLSTM_REFUSED = {
    "function": "lstm",
    "num_states": 2,
    "num_gates": 3,
    "gradient_recurrent_cut": True,
    "gradient_recurrent_clipval": 1.0,
    "forward_clipval": 2.0,
    "constants": {"x": 1.0},
    "initial_val": 1.0,
    "channel_mixing": True,
    "conv1d_kwargs": {"dilation": 2},
    "expand_factor_up": 2,
    "ff_type": "other",
}


def test_every_option_of_xlstm():
    xlstm = peer("xlstm")
    from jaxrnn.convert.xlstm import _HANDLED

    s = xlstm.sLSTMLayerConfig(embedding_dim=4, num_heads=2, backend="vanilla")
    feed_forward = xlstm.FeedForwardConfig(embedding_dim=4)
    block = xlstm.sLSTMBlock(xlstm.sLSTMBlockConfig(s, feed_forward, 1, 0))
    m = xlstm.mLSTMLayerConfig(embedding_dim=4, num_heads=2, context_length=8)
    layer = xlstm.mLSTMLayer(m)
    config = xlstm.xLSTMBlockStackConfig(xlstm.mLSTMBlockConfig(m), None, 8, 1, 4)
    owners = (block, layer, xlstm.xLSTMBlockStack(config))
    seen = set()
    for owner, part in ((o, p) for o in owners for p in o.modules() if hasattr(p, "config")):
        for field in dataclasses.fields(part.config):
            if field.name.startswith("_") or field.name in _HANDLED:
                continue
            assert field.name in XLSTM_REFUSED, f"{field.name} of {type(part.config).__name__}"
            seen.add(field.name)
            kept = getattr(part.config, field.name)
            setattr(part.config, field.name, XLSTM_REFUSED[field.name])
            with pytest.raises(ValueError, match=f"^{field.name} of .* must be"):
                convert.from_xlstm(owner)
            setattr(part.config, field.name, kept)
    assert {"function", "forward_clipval", "conv1d_kwargs", "ff_type"} <= seen


def test_an_xlstm_module_shows_its_activation_and_dropout():
    xlstm = peer("xlstm")
    s = xlstm.sLSTMLayerConfig(embedding_dim=4, num_heads=2, backend="vanilla", dropout=0.3)
    feed_forward = xlstm.FeedForwardConfig(embedding_dim=4, act_fn="swish")
    block = xlstm.sLSTMBlock(xlstm.sLSTMBlockConfig(s, feed_forward, 1, 0))
    with pytest.warns(UserWarning, match=r"dropout=0.3 of xlstm \(sLSTMLayer\) is not converted"):
        network, params = convert.from_xlstm(block)
    assert network.layers[1].layers[2].cell.activation.__name__ == "silu"
    torch = peer("torch")
    xs = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    theirs = block.eval()(torch.tensor(xs)).detach().numpy()
    assert_near(network.apply(params, None, xs.swapaxes(0, 1))[1], theirs.swapaxes(0, 1), 1e-5)
    block.xlstm_norm.residual_weight = False
    with pytest.raises(ValueError, match="residual_weight of xlstm_norm"):
        convert.from_xlstm(block)


# RecurrentGemma ---------------------------------------------------------------------------------


def test_a_recurrentgemma_of_transformers_as_a_module():
    peer("torch")
    package = peer("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    for name, known in (("gelu", True), ("silu", True), ("gelu_new", False)):
        config = package.RecurrentGemmaConfig(
            hidden_size=4, lru_width=6, num_attention_heads=2, hidden_activation=name
        )
        block = package.RecurrentGemmaRecurrentBlock(config, 0)
        for parameter in block.parameters():
            parameter.data.normal_()
        if known:
            network, _ = convert.from_recurrentgemma(block)
            assert name in network.layers[2].cell.activation.__name__
        else:
            with pytest.raises(ValueError, match="activation must be one of gelu_pytorch_tanh"):
                convert.from_recurrentgemma(block)


# torchrecurrent ---------------------------------------------------------------------------------


def ones(**shapes):
    return {name: np.ones(shape) for name, shape in shapes.items()}


FAST = ones(weight_ih=(3, 2), weight_hh=(3, 3), zeta=1, nu=1)
BR = ones(weight_ih=(9, 2), weight_hh=(6,), bias_ih=(9,))
MLSTM = ones(weight_ih=(15, 2), weight_hh=(3, 3), weight_mh=(12, 3), bias_hh=(3,))
IND = ones(weight_ih=(3, 2), vector_u=(3,))
torchrecurrent = convert.from_torchrecurrent
REFUSED = {
    "no kind": (lambda: torchrecurrent(IND), TypeError, "kind must be the class"),
    "unknown kind": (lambda: torchrecurrent(IND, kind="NAS"), TypeError, "no counterpart"),
    "another paper": (
        lambda: torchrecurrent(IND, kind="LEM"),
        TypeError,
        "the old memory; LEM of the paper uses the new one",
    ),
    "default gate": (lambda: torchrecurrent(FAST, kind="FastGRNN"), ValueError, "got 'tanh'"),
    "candidate bias": (lambda: torchrecurrent(BR, kind="BR"), ValueError, "last third of bias_ih"),
    "multiplier bias": (
        lambda: torchrecurrent(MLSTM, kind="MultiplicativeLSTM"),
        ValueError,
        "bias_hh must be zero",
    ),
    "unknown option": (
        lambda: torchrecurrent(IND, kind="IndRNN", dt=0.1),
        ValueError,
        "without a counterpart in jaxrnn: dt=0.1",
    ),
    "unknown activation": (
        lambda: torchrecurrent(IND, kind="IndRNN", nonlinearity="gelu"),
        ValueError,
        "nonlinearity must be one of tanh, relu, identity, sigmoid, got 'gelu'",
    ),
    "left over": (
        lambda: torchrecurrent(IND | ones(extra=2), kind="IndRNN"),
        ValueError,
        r"hold extra \[2\]",
    ),
    "gap": (
        lambda: torchrecurrent({f"cells.1.{n}": a for n, a in IND.items()}, kind="IndRNN"),
        ValueError,
        r"numbered from 0 without gaps, got \[1\]",
    ),
    "minGRU": (
        lambda: convert.from_mingru(ones(**{"to_hidden_and_gate.weight": (5, 2)})),
        ValueError,
        "rows of 2 gates, got 5",
    ),
    "no mapping": (lambda: convert.from_mingru(3), TypeError, "PyTorch module or its state dict"),
    "memax": (lambda: convert.from_memax(np.linalg), TypeError, "got module"),
    "Griffin activation": (
        lambda: convert.from_recurrentgemma(ones(a_param=(2,)), activation="tanh"),
        ValueError,
        "activation must be one of",
    ),
    "Griffin blocks": (
        lambda: convert.from_recurrentgemma(
            weights_of("recurrentgemma_rg_lru") | ones(a_param=(7,))
        ),
        ValueError,
        "a_gate.w must have blocks of 7 features in all, got 2 blocks of 3",
    ),
    "xLSTM activation": (
        lambda: convert.from_xlstm(weights_of("xlstm_slstm"), activation="tanh"),
        ValueError,
        "activation must be one of gelu",
    ),
    "xLSTM without a gate": (
        lambda: convert.from_xlstm(
            {n: a for n, a in weights_of("xlstm_slstm").items() if n != "ogate.weight"}
        ),
        ValueError,
        "must hold ogate.weight",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    act, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        act()


# A value other than the default, and the words of the refusal; None where it is converted.
OPTIONS = {
    "nonlinearity": ("gelu", "nonlinearity must be"),
    "gate_nonlinearity": ("tanh", "gate_nonlinearity must be"),
    "epsilon": (0.5, None),
    "gamma": (0.5, None),
    "dt": (0.5, None),
    "alpha": (0.5, None),
    "beta": (0.5, None),
}


@pytest.mark.parametrize("kind", _READERS)
def test_every_option_of_torchrecurrent(kind):
    package = peer("torchrecurrent")
    cls = getattr(package, f"{kind}Cell")
    base = {"bias": False}
    if "recurrent_bias" in inspect.signature(cls.__init__).parameters:
        base["recurrent_bias"] = False
    if kind == "FastGRNN":
        base["nonlinearity"] = "sigmoid"
    plain, _ = convert.from_torchrecurrent(cls(2, 3, **base))
    for name in inspect.signature(cls.__init__).parameters:
        shown = name in ("self", "input_size", "hidden_size", "device", "dtype")
        if shown or name.endswith(("_init", "bias")):
            continue
        value, words = OPTIONS[name]
        cell = cls(2, 3, **(base | {name: value}))
        if words:
            with pytest.raises(ValueError, match=words):
                convert.from_torchrecurrent(cell)
        else:
            assert convert.from_torchrecurrent(cell)[0] != plain


def test_every_other_class_of_torchrecurrent_is_refused():
    package = peer("torchrecurrent")
    names = [
        n for n in dir(package) if n.endswith("Cell") and n.removesuffix("Cell") not in _READERS
    ]
    assert len(names) > 20
    for name in names:
        with pytest.raises(TypeError, match=f"got '{name.removesuffix('Cell')}', which has no"):
            convert.from_torchrecurrent(getattr(package, name)(3, 3))


def test_a_layer_of_torchrecurrent_keeps_its_dropout():
    package = peer("torchrecurrent")
    network, _ = convert.from_torchrecurrent(package.STAR(2, 3, num_layers=2, dropout=0.2))
    assert network.dropout == 0.2 and len(network.layers) == 2


# memax ------------------------------------------------------------------------------------------


def test_memaxs_modules_show_their_activations():
    peer("memax.equinox")
    from memax.equinox.models.residual import ResidualModel
    from memax.equinox.set_actions.elman import Elman
    from memax.equinox.set_actions.lstm import LSTM

    def elman(recurrent_size, key):
        return Elman(recurrent_size, 4, activation=jax.nn.relu, key=key)

    xs = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        model = ResidualModel(elman, 2, 5, 4, activation=jax.nn.silu, key=jax.random.key(0))
        network, params = convert.from_memax(model)
        _, theirs = model(model.initialize_carry(), (jnp.asarray(xs), jnp.zeros(6, bool)))
        _, ours = network.apply(params, None, jnp.asarray(xs))
    assert_near(ours, theirs, 1e-4)
    with pytest.raises(TypeError, match=r"got LSTM, .* its output is o c instead of o tanh\(c\)"):
        convert.from_memax(LSTM(4, key=jax.random.key(0)))
