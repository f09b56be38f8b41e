"""jaxrnn's cells and layers in Flax models compute what `jaxrnn.unroll` computes."""

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

import jaxrnn as rnn
import jaxrnn.linen
import jaxrnn.nnx
from tests.support.flavours import FLAVOURS, INPUT
from tests.support.helpers import assert_near

TIME, BATCH = 5, 3
LENGTHS = jnp.array([2, 5, 0])
XS = jnp.asarray(np.random.default_rng(0).normal(size=(TIME, BATCH, INPUT)))


@pytest.fixture(params=FLAVOURS.values(), ids=FLAVOURS.keys())
def flax_(request):
    return request.param


def own_params(cell, weights):
    """The cell's parameters in a Flax model's weights, found by name."""
    like = jax.eval_shape(lambda key: cell.init(key, INPUT), jax.random.key(0))
    found = {
        field: leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(weights)
        for field in like._fields
        if f"['{field}']" in jax.tree_util.keystr(path)
    }
    return like._replace(**found)


@pytest.mark.parametrize(
    "cell", [rnn.LSTM(4), rnn.GRU(4), rnn.MinGRU(4)], ids=["LSTM", "GRU", "MinGRU"]
)
def test_the_layer_computes_what_unroll_computes(flax_, cell):
    layer = flax_.around(cell, return_carry=True)
    apply, weights = flax_.split(layer)
    params = own_params(cell, weights)
    xs = XS.swapaxes(0, 1)
    carry, ys = apply(weights, xs, seq_lengths=LENGTHS)
    want_carry, want = rnn.unroll(cell, params, XS, lengths=LENGTHS)
    assert_near(carry, want_carry, 0)
    np.testing.assert_array_equal(ys, want.swapaxes(0, 1))
    options = {"seq_lengths": LENGTHS, "reverse": True}
    _, aligned = apply(weights, xs, keep_order=True, **options)
    _, turned = apply(weights, xs, **options)
    _, want = rnn.unroll(cell, params, XS, lengths=LENGTHS, reverse=True)
    np.testing.assert_array_equal(aligned, want.swapaxes(0, 1))
    np.testing.assert_array_equal(turned[0, :2], aligned[0, 1::-1])
    np.testing.assert_array_equal(turned[1], aligned[1, ::-1])
    assert not turned[2].any()
    _, through = apply(weights, xs, **options, initial_carry=carry)
    _, want = rnn.unroll(cell, params, XS, carry, lengths=LENGTHS, reverse=True)
    np.testing.assert_array_equal(through[0, :2], want[1::-1, 0])


def test_flax_rnn_runs_jaxrnn_cells(flax_):
    apply, weights = flax_.split(flax_.around(rnn.GRU(4), return_carry=True))
    if flax_ is FLAVOURS["linen"]:
        theirs = flax.linen.RNN(rnn.linen.Cell(rnn.GRU(4)), return_carry=True)
    else:
        cell = rnn.nnx.Cell(rnn.GRU(4), INPUT, rngs=flax.nnx.Rngs(0))
        theirs = flax.nnx.RNN(cell, return_carry=True)
    run, same = flax_.split(theirs)
    assert_near(same, weights, 0)
    assert_near(run(weights, XS.swapaxes(0, 1)), apply(weights, XS.swapaxes(0, 1)), 1e-14)


def test_run_padding_with_jaxrnn_cells(flax_):
    apply, weights = flax_.split(flax_.around(rnn.GRU(4), return_carry=True, run_padding=True))
    plain, _ = flax_.split(flax_.around(rnn.GRU(4)))
    carry, ys = apply(weights, XS.swapaxes(0, 1), seq_lengths=LENGTHS)
    np.testing.assert_array_equal(ys, plain(weights, XS.swapaxes(0, 1)))
    np.testing.assert_array_equal(carry.hidden[:2], ys[jnp.arange(2), LENGTHS[:2] - 1])


def test_whole_networks_of_layers():
    network = rnn.layers.Stack((rnn.layers.Bidirectional(rnn.GRU(4), rnn.GRU(4)), rnn.LSTM(3)))
    layer = rnn.linen.RNN(network)
    xs = XS.swapaxes(0, 1)
    variables = layer.init(jax.random.key(0), xs)
    first = variables["params"]["cell"]["0"]["forward"]["input_kernel"]
    like = jax.eval_shape(lambda key: network.init(key, INPUT), jax.random.key(0))
    params = rnn._flax.from_nested(like, variables["params"]["cell"])
    assert params[0].forward.input_kernel is first
    _, want = network.apply(params, None, XS, lengths=LENGTHS)
    ys = layer.apply(variables, xs, seq_lengths=LENGTHS)
    np.testing.assert_array_equal(ys, want.swapaxes(0, 1))


def test_both_directions_inside_a_model():
    class Model(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, xs):
            forward, backward = rnn.linen.RNN(rnn.GRU(4)), rnn.linen.RNN(rnn.LSTM(4))
            both = rnn.linen.Bidirectional(forward, backward, name="both")
            return both(xs, seq_lengths=LENGTHS)

    ys, variables = Model().init_with_output(jax.random.key(0), XS.swapaxes(0, 1))
    weights = variables["params"]  # Flax keeps them in the module that creates the layers
    params = rnn.layers.BidirectionalParams(
        rnn.cells.GRUParams(**weights["RNN_0"]["cell"]),
        rnn.cells.LSTMParams(**weights["RNN_1"]["cell"]),
    )
    layer = rnn.layers.Bidirectional(rnn.GRU(4), rnn.LSTM(4))
    _, want = layer.apply(params, None, XS, lengths=LENGTHS)
    np.testing.assert_array_equal(ys, want.swapaxes(0, 1))


def test_an_nnx_layer_may_be_closed_over():
    layer = rnn.nnx.RNN(rnn.GRU(4), in_features=INPUT, rngs=flax.nnx.Rngs(0))
    xs = XS.swapaxes(0, 1)
    np.testing.assert_allclose(jax.jit(lambda xs: layer(xs))(xs), layer(xs), atol=1e-14)


def test_tokens_need_in_features():
    def step(params, state, token):
        h = jnp.tanh(params["embedding"][token] + state)
        return h, h

    cell = rnn.from_step(
        step,
        init_state=lambda params, batch: jnp.zeros((*batch, 4)),
        init=lambda key, size, dtype=None: {"embedding": jax.random.normal(key, (size, 4))},
        input_rank=0,
    )
    tokens = jnp.array([[1, 0, 2]])
    layer = rnn.linen.RNN(rnn.linen.Cell(cell, in_features=3))
    variables = layer.init(jax.random.key(0), tokens)
    embedding = variables["params"]["cell"]["embedding"]
    assert embedding.shape == (3, 4)
    h = jnp.tanh(embedding[1])
    np.testing.assert_allclose(layer.apply(variables, tokens)[0, 1], jnp.tanh(embedding[0] + h))
    with pytest.raises(ValueError, match="in_features must be given for"):
        rnn.linen.RNN(cell).init(jax.random.key(0), tokens)


def test_stochastic_cells_need_a_key():
    cell = rnn.wrappers.Zoneout(rnn.GRU(4), 0.5)
    xs = XS.swapaxes(0, 1)
    layer = rnn.linen.RNN(cell)
    variables = layer.init(jax.random.key(0), xs)
    still, again = layer.apply(variables, xs), layer.apply(variables, xs)
    drawn = layer.apply(variables, xs, rngs={"dropout": jax.random.key(1)})
    assert (still == again).all() and (still != drawn).any()

    module = rnn.nnx.RNN(cell, in_features=INPUT, rngs=flax.nnx.Rngs(0, dropout=1))
    first, second = module(xs), module(xs)
    module.eval()
    assert (first != second).any() and (module(xs) == module(xs)).all()
    module.train()
    assert (module(xs) != first).any()


def test_a_learned_initial_state_is_used_and_trained(flax_):
    cell = rnn.wrappers.LearnedInitialState(rnn.GRU(4))
    apply, weights = flax_.split(flax_.around(cell))
    ys = apply(weights, XS[:1].swapaxes(0, 1))
    moved = jax.tree.map(lambda leaf: leaf + 0.5, weights)
    assert (apply(moved, XS[:1].swapaxes(0, 1)) != ys).any()
    gradient = jax.grad(lambda w: apply(w, XS.swapaxes(0, 1)).sum())(weights)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


def test_parameter_names_work_with_optax_masks():
    layer = rnn.linen.RNN(rnn.LSTM(4))
    variables = layer.init(jax.random.key(0), XS.swapaxes(0, 1))

    def decayed(params):
        return traverse_util.path_aware_map(lambda path, _: path[-1] != "bias", params)

    optimizer = optax.adamw(1e-3, weight_decay=1.0, mask=decayed)
    zeros = jax.tree.map(jnp.zeros_like, variables["params"])
    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        updates, _ = optimizer.update(zeros, optimizer.init(zeros), variables["params"])
    assert not updates["cell"]["bias"].any() and updates["cell"]["input_kernel"].any()


def test_an_nnx_model_trains():
    class Model(flax.nnx.Module):
        def __init__(self, rngs):
            self.rnn = rnn.nnx.RNN(rnn.GRU(4), in_features=INPUT, rngs=rngs)
            self.head = flax.nnx.Linear(4, 1, param_dtype="float64", rngs=rngs)

        def __call__(self, xs):
            return self.head(self.rnn(xs)[:, -1])

    model = Model(flax.nnx.Rngs(0))
    optimizer = flax.nnx.Optimizer(model, optax.adam(0.05), wrt=flax.nnx.Param)
    xs = XS.swapaxes(0, 1)

    def loss(model):
        return ((model(xs) - xs.sum((1, 2))[:, None]) ** 2).mean()

    @flax.nnx.jit
    def step(model, optimizer):
        value, gradient = flax.nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        losses = [step(model, optimizer) for _ in range(60)]
    assert losses[-1] < losses[0] / 10


def test_invalid_arguments_are_named(flax_):
    cell = flax_.cell("gru")
    with pytest.raises(ValueError, match="engine and unroll were both given"):
        apply, weights = flax_.split(
            flax_.ours(cell, unroll=2, engine=rnn.engines.Hoisted(checkpoint_every=2))
        )
    apply, weights = flax_.split(flax_.ours(cell))
    with pytest.raises(ValueError, match=r"inputs must have shape \[\*batch, time, features\]"):
        apply(weights, jnp.ones(INPUT))
    with pytest.raises(ValueError, match="lengths must lie between 0 and the 5 steps"):
        apply(weights, XS.swapaxes(0, 1), seq_lengths=jnp.array([2, 6, 1]))
    with pytest.raises(ValueError, match="run_padding=True takes a cell"):
        layer = rnn.linen.RNN(rnn.layers.Stack((rnn.GRU(2), rnn.GRU(2))), run_padding=True)
        layer.init_with_output(jax.random.key(0), XS.swapaxes(0, 1), seq_lengths=LENGTHS)
    with pytest.raises(ValueError, match="whose cells have engines of their own"):
        layer = rnn.linen.RNN(rnn.layers.Stack((rnn.GRU(2),)), engine=rnn.engines.Sequential())
        layer.init(jax.random.key(0), XS.swapaxes(0, 1))


def test_errors_of_nnx_and_linen_alone():
    with pytest.raises(TypeError, match="in_features and rngs must be given with GRU"):
        rnn.nnx.RNN(rnn.GRU(4))
    for wrong in (rnn.GRU, flax.nnx.GRUCell(3, 4, rngs=flax.nnx.Rngs(0)), 3):
        with pytest.raises(TypeError, match="cell must be a jaxrnn cell or layer"):
            rnn.linen.RNN(wrong)
    with pytest.raises(TypeError, match="cell must be a jaxrnn cell or layer"):
        rnn.nnx.RNN(flax.linen.GRUCell(4), in_features=3, rngs=flax.nnx.Rngs(0))

    with pytest.raises(ValueError, match="must hold the params input_kernel, .* got bias;"):
        rnn.linen.RNN(rnn.GRU(4)).apply({"params": {"cell": {"bias": jnp.ones(12)}}}, XS)

    class Counts(flax.nnx.Module):
        num_feature_axes = 1

        def __init__(self):
            self.seen = flax.nnx.BatchStat(jnp.zeros(()))

        def __call__(self, carry, x):
            self.seen[...] += 1
            return carry, x

        def initialize_carry(self, shape, rngs):
            return jnp.zeros(shape[:-1])

    with pytest.raises(ValueError, match=r"changed seen \(BatchStat\).*keep\s+flax.nnx.RNN"):
        rnn.nnx.RNN(Counts())(XS)

    class Shares(flax.linen.RNNCellBase):
        dense: flax.linen.Module
        num_feature_axes = 1

        def __call__(self, carry, x):
            return carry, self.dense(x)

        def initialize_carry(self, rng, shape):
            return jnp.zeros(shape[:-1])

    class Model(flax.linen.Module):
        def setup(self):
            self.dense = flax.linen.Dense(2)
            self.rnn = rnn.linen.RNN(Shares(self.dense))

        def __call__(self, xs):
            return self.rnn(xs)

    with pytest.raises(ValueError, match="cell must own its modules, but dense of Shares"):
        Model().init(jax.random.key(0), XS)
