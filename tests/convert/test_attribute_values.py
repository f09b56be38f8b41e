"""Equinox, Haiku and nnx: with each attribute changed, both compute the same, or it is refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxrnn as rnn
from jaxrnn import convert
from tests.convert.test_attributes import nnx_cell
from tests.convert.test_objects import XS, peer, run, same
from tests.support.flavours import noisy
from tests.support.helpers import thorough_but

ROWS = jnp.asarray(XS.swapaxes(0, 1))  # batch-major

# Equinox ----------------------------------------------------------------------------------------

EQUINOX = {"use_bias": False, "dtype": jnp.float32}  # the others are sizes and the key


@pytest.mark.parametrize("kind", thorough_but("GRUCell", "LSTMCell"))
def test_every_attribute_of_equinox(kind):
    cls = getattr(peer("equinox").nn, kind)
    names = inspect.signature(cls.__init__).parameters.keys() - {"self", "input_size"}
    assert names - {"hidden_size", "key"} == EQUINOX.keys()
    for name, value in EQUINOX.items():
        options = {"dtype": jnp.float64} | {name: value}
        cell = noisy(cls(2, 3, key=jax.random.key(0), **options))
        xs = jnp.asarray(XS, options["dtype"])
        zeros = jnp.zeros((3, 3), xs.dtype)

        def step(state, x, cell=cell):
            state = jax.vmap(cell)(x, state)
            return state, state[0] if isinstance(state, tuple) else state

        wanted = jax.lax.scan(step, (zeros, zeros) if kind == "LSTMCell" else zeros, xs)[1]
        ys = run(*convert.from_equinox(cell), xs)
        assert ys.dtype == wanted.dtype
        np.testing.assert_allclose(ys, wanted, rtol=0, atol=1e-6 if name == "dtype" else 1e-12)


def test_another_class_with_the_same_arrays_is_refused():
    eqx = peer("equinox")

    class Negated(eqx.nn.GRUCell):
        def __call__(self, x, hidden, *, key=None):
            return -super().__call__(x, hidden)

    with pytest.raises(TypeError, match="must be an equinox.nn.LSTMCell or GRUCell, got Negated"):
        convert.from_equinox(Negated(2, 3, key=jax.random.key(0)))


# Haiku ------------------------------------------------------------------------------------------

INITIAL = ("w_i_init", "w_h_init", "b_init")  # values of the parameters
CORES = {
    "VanillaRNN": [{}, {"double_bias": True}, {"double_bias": False}],
    "LSTM": [{}],
    "GRU": [{}],
}
ABSTRACT = {"RNNCore"}


def haiku_run(hk, make, xs):
    def forward(xs):
        core = make()
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    model = hk.without_apply_rng(hk.transform(forward))
    shapes = jax.eval_shape(model.init, jax.random.key(0), xs)
    weights = noisy(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    with jax.numpy_dtype_promotion("standard"):
        return weights, model.apply(weights, xs)


@pytest.mark.parametrize("kind", CORES)
def test_every_attribute_of_haikus_cores(kind):
    hk = peer("haiku")
    names = inspect.signature(getattr(hk, kind).__init__).parameters.keys()
    changed = {name for options in CORES[kind] for name in options}
    assert names - {"self", "hidden_size", "name", *INITIAL} == changed
    for options in CORES[kind]:
        weights, wanted = haiku_run(
            hk, lambda o=options: getattr(hk, kind)(3, **o), jnp.asarray(XS)
        )
        same(run(*convert.from_haiku(weights)), wanted)
        named = {f"model/~/{name}": arrays for name, arrays in weights.items()}
        same(run(*convert.from_haiku(named)), wanted)


def test_every_other_core_of_haiku_is_refused():
    hk = peer("haiku")
    cores = {n for n, c in vars(hk).items() if inspect.isclass(c) and issubclass(c, hk.RNNCore)}
    others = {
        "Conv1DLSTM": lambda: hk.Conv1DLSTM((4,), 2, 3),
        "Conv2DLSTM": lambda: hk.Conv2DLSTM((4, 4), 2, 3),
        "Conv3DLSTM": lambda: hk.Conv3DLSTM((4, 4, 4), 2, 3),
        "IdentityCore": hk.IdentityCore,
        "ResetCore": None,  # it has the parameters of the core inside; starts= resets
        "DeepRNN": None,  # likewise; modules= lists the cores
    }
    assert cores - ABSTRACT == CORES.keys() | others.keys()
    for kind, make in others.items():
        if make is None:
            continue
        rank = int(kind[4]) if kind.startswith("Conv") else 0
        weights, _ = haiku_run(hk, make, jnp.ones((2, 1, *(4,) * rank, 2)))
        with pytest.raises(ValueError, match="modules must list the cores"):
            convert.from_haiku(weights)


def test_a_deep_rnn_of_haiku():
    hk = peer("haiku")

    def cores():
        return [hk.LSTM(3), hk.GRU(4)]

    weights, wanted = haiku_run(hk, lambda: hk.DeepRNN(cores()), jnp.asarray(XS))
    same(run(*convert.from_haiku(weights, ["lstm", "gru"])), wanted)
    weights, _ = haiku_run(hk, lambda: hk.deep_rnn_with_skip_connections(cores()), jnp.asarray(XS))
    with pytest.raises(ValueError, match="layer 1 must have one row for each of the 3 .* got 5"):
        convert.from_haiku(weights, ["lstm", "gru"])


# nnx --------------------------------------------------------------------------------------------

LAYER = {
    "time_major": True,
    "return_carry": True,
    "reverse": True,  # without keep_order: refused
    "keep_order": True,
    "unroll": 2,
    "state_axes": nnx.StateAxes({...: None}),
    "broadcast_rngs": nnx.RngStream,
    "rngs": nnx.Rngs(3),
}


@pytest.mark.parametrize("kind", thorough_but("GRUCell", "LSTMCell"))
def test_every_attribute_of_nnxs_layer(kind):
    assert inspect.signature(nnx.RNN.__init__).parameters.keys() - {"self", "cell"} == LAYER.keys()
    cell = nnx_cell(kind)
    nnx.update(cell, noisy(nnx.state(cell, nnx.Param)))
    for name, value in LAYER.items():
        layer = nnx.RNN(cell, **{name: value})
        if name == "reverse":
            with pytest.raises(ValueError, match="needs keep_order=True"):
                convert.from_nnx(layer)
            layer = nnx.RNN(cell, reverse=True, keep_order=True)
        theirs = layer(jnp.asarray(XS) if name == "time_major" else ROWS)
        theirs = theirs[1] if name == "return_carry" else theirs
        net, params = convert.from_nnx(layer)
        same(run(net, params), theirs if name == "time_major" else theirs.swapaxes(0, 1))


@pytest.mark.parametrize(
    "kind", thorough_but("GRUCell", "SimpleCell", "LSTMCell", "OptimizedLSTMCell")
)
def test_the_initial_values_of_nnxs_cells(kind):
    names = [n for n in inspect.signature(getattr(nnx, kind).__init__).parameters if "_init" in n]
    for name in {*names} - {"carry_init"}:  # which is refused
        cell = nnx_cell(kind, **{name: nnx.initializers.ones})
        same(run(*convert.from_nnx(cell)), nnx.RNN(cell)(ROWS).swapaxes(0, 1))


def test_every_attribute_of_nnxs_bidirectional():
    names = inspect.signature(nnx.Bidirectional.__init__).parameters.keys()
    changes = {"time_major": True, "return_carry": True, "rngs": nnx.Rngs(2), "merge_fn": jnp.add}
    assert names - {"self", "forward_rnn", "backward_rnn"} == changes.keys()
    directions = nnx.RNN(nnx_cell("GRUCell")), nnx.RNN(nnx_cell("LSTMCell"))
    for name, value in changes.items():
        layer = nnx.Bidirectional(*directions, **{name: value})
        if name == "merge_fn":
            with pytest.raises(ValueError, match="merge_fn of Bidirectional must be"):
                convert.from_nnx(layer)
            continue
        theirs = layer(jnp.asarray(XS) if name == "time_major" else ROWS)
        theirs = theirs[1] if name == "return_carry" else theirs
        net, params = convert.from_nnx(layer)
        assert isinstance(net, rnn.layers.Bidirectional)
        same(run(net, params), theirs if name == "time_major" else theirs.swapaxes(0, 1))
