"""Flax's cells in jaxrnn's RNN against Flax's own RNN: values, gradients and parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxrnn as rnn
from tests.support.flavours import FLAVOURS, INPUT
from tests.support.helpers import assert_near, weighted_sum

TIME, BATCH = 5, 3
LENGTHS = jnp.array([2, 5, 1])
CALLS = {
    "plain": {},
    "reversed": {"reverse": True, "return_carry": True},
    "lengths": {"seq_lengths": LENGTHS, "return_carry": True},
    "reversed lengths": {"seq_lengths": LENGTHS, "reverse": True, "return_carry": True},
    "in order": {"seq_lengths": LENGTHS, "reverse": True, "keep_order": True},
    "time first": {"seq_lengths": LENGTHS, "time_major": True, "return_carry": True},
}


@pytest.fixture(params=FLAVOURS.values(), ids=FLAVOURS.keys())
def flax(request):
    return request.param


def inputs(*batch, dtype="float64"):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(*(batch or (BATCH,)), TIME, INPUT)), dtype)


def results(apply, weights, xs, calls, zero_padding=True):
    """Values and gradients of several calls at once: one compilation."""

    @jax.jit
    def run(weights, xs):
        def total(weights, xs):
            outputs = {}
            for name, call in calls.items():
                time_major = call.get("time_major", False)
                out = apply(weights, jnp.swapaxes(xs, 0, 1) if time_major else xs, **call)
                carry, ys = out if call.get("return_carry") else ((), out)
                ys = jnp.swapaxes(ys, 0, 1) if time_major else ys
                if "seq_lengths" in call and zero_padding:
                    ys = ys * (jnp.arange(TIME) < LENGTHS[:, None])[..., None].astype(ys.dtype)
                outputs[name] = (carry, ys)
            return weighted_sum(outputs), outputs

        return jax.value_and_grad(total, (0, 1), has_aux=True)(weights, xs)

    with jax.numpy_dtype_promotion("standard"):  # Flax's own layers need it
        return run(weights, xs)


def check_values_and_gradients(flax, kind, calls):
    theirs, weights = flax.split(flax.RNN(flax.cell(kind)))
    ours, same = flax.split(flax.ours(flax.cell(kind)))
    assert_near(same, weights, 0)
    xs = inputs()
    assert_near(results(ours, weights, xs, calls), results(theirs, weights, xs, calls), 1e-10)


@pytest.mark.parametrize("kind", ["simple", "lstm", "optimized", "gru", "mgu"])
def test_values_and_gradients_equal_flax(flax, kind):
    if kind not in flax.kinds:
        pytest.skip("nnx has no such cell")
    check_values_and_gradients(flax, kind, {"lengths": CALLS["lengths"]})


@pytest.mark.parametrize(
    "name, kind",
    [
        ("linen", "gru"),
        ("nnx", "optimized"),
        pytest.param("linen", "optimized", marks=pytest.mark.thorough),
        pytest.param("nnx", "gru", marks=pytest.mark.thorough),
    ],
)
def test_every_call_equals_flax(name, kind):
    check_values_and_gradients(FLAVOURS[name], kind, CALLS)


def test_float32(flax):
    theirs, weights = flax.split(flax.RNN(flax.cell("lstm", "float32")), "float32")
    ours, _ = flax.split(flax.ours(flax.cell("lstm", "float32")), "float32")
    xs = inputs(dtype="float32")
    calls = {"in order": CALLS["in order"]}
    assert_near(results(ours, weights, xs, calls), results(theirs, weights, xs, calls), 1e-5)


def test_run_padding_computes_padded_outputs_as_flax_does(flax):
    theirs, weights = flax.split(flax.RNN(flax.cell("gru")))
    ours, _ = flax.split(flax.ours(flax.cell("gru"), run_padding=True))
    xs = inputs()
    calls = {name: CALLS[name] for name in ("reversed lengths", "in order")}
    got, want = (results(f, weights, xs, calls, zero_padding=False) for f in (ours, theirs))
    assert_near(got, want, 1e-10)
    ys = got[0][1]["in order"][1]
    assert (ys[0, 2:] != 0).any()


def test_padding_changes_nothing_by_default(flax):
    ours, weights = flax.split(flax.ours(flax.cell("gru"), return_carry=True))
    clean = inputs()
    dirty = clean.at[0, 2:].set(jnp.nan).at[2, 1:].set(jnp.inf)
    calls = {"lengths": {"seq_lengths": LENGTHS, "return_carry": True}}
    (_, want), grads = results(ours, weights, clean, calls)
    (_, got), dirty_grads = results(ours, weights, dirty, calls)
    assert_near(got, want, 0)
    assert_near(dirty_grads[0], grads[0], 1e-14)
    assert (got["lengths"][1][0, 2:] == 0).all()


def test_a_row_of_length_zero_returns_its_carry(flax):
    ours, weights = flax.split(flax.ours(flax.cell("gru"), return_carry=True))
    carry = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, 4)))
    lengths = jnp.array([0, 5, 0])
    final, _ = ours(weights, inputs(), initial_carry=carry, seq_lengths=lengths)
    assert (final[::2] == carry[::2]).all() and (final[1] != carry[1]).all()


def test_initial_carries_get_gradients(flax):
    carry = jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, 4)))

    def gradient(layer):
        apply, weights = flax.split(layer)
        return jax.grad(lambda c: weighted_sum(apply(weights, inputs(), initial_carry=c)))(carry)

    assert_near(gradient(flax.ours(flax.cell("gru"))), gradient(flax.RNN(flax.cell("gru"))), 1e-10)


@pytest.mark.parametrize("batch", [(2, 3), ()], ids=str)
def test_any_number_of_batch_axes(flax, batch):
    layer = flax.ours(flax.cell("gru"), return_carry=True, reverse=True)
    apply, weights = flax.split(layer)
    xs = inputs(*batch) if batch else inputs()[0]
    carry, ys = apply(weights, xs)
    rows, _ = apply(weights, xs.reshape(-1, TIME, INPUT))[::-1]
    np.testing.assert_allclose(ys.reshape(rows.shape), rows, atol=1e-14)
    assert carry.shape == (*batch, 4)


def test_both_directions(flax):
    def network(RNN, **options):
        return flax.Bidirectional(
            RNN(flax.cell("lstm")), RNN(flax.cell("gru", seed=1)), return_carry=True, **options
        )

    theirs, weights = flax.split(network(flax.RNN))
    ours, _ = flax.split(network(flax.ours))
    calls = {"lengths": CALLS["lengths"]}
    got, want = (results(f, weights, inputs(), calls) for f in (ours, theirs))
    assert_near(got, want, 1e-10)
    summed, _ = flax.split(network(flax.ours, merge_fn=jnp.add))
    (_, ys), (_, pairs) = (f(weights, inputs()) for f in (summed, ours))
    np.testing.assert_allclose(ys, pairs[..., :4] + pairs[..., 4:])


def test_one_cell_shared_by_both_directions(flax):
    cell = flax.cell("gru")
    shared = flax.Bidirectional(flax.ours(cell), flax.ours(cell))
    apply, weights = flax.split(shared)
    assert len(jax.tree.leaves(weights)) == len(jax.tree.leaves(flax.split(flax.ours(cell))[1]))
    xs = inputs()
    ys, turned = apply(weights, xs), apply(weights, xs[:, ::-1])
    np.testing.assert_allclose(ys[..., :4], turned[:, ::-1, 4:], atol=1e-14)


def test_call_arguments_override_attributes(flax):
    options = {"time_major": True, "return_carry": True, "reverse": True, "keep_order": True}
    by_layer, weights = flax.split(flax.ours(flax.cell("gru"), **options))
    by_call, _ = flax.split(flax.ours(flax.cell("gru")))
    xs = inputs()
    assert_near(by_layer(weights, xs), by_call(weights, xs, **options), 0)
    off = dict.fromkeys(options, False)
    assert_near(by_layer(weights, xs, **off), by_call(weights, xs), 0)


@pytest.mark.parametrize(
    "options",
    [{"unroll": 2}, {"engine": rnn.engines.Sequential()}, {"engine": rnn.engines.Hoisted()}],
    ids=str,
)
def test_every_engine_gives_the_same(flax, options):
    apply, weights = flax.split(flax.ours(flax.cell("lstm")))
    chosen, _ = flax.split(flax.ours(flax.cell("lstm"), **options))
    assert_near(chosen(weights, inputs()), apply(weights, inputs()), 1e-14)


def test_linen_initializes_the_same_parameters_as_flax():
    xs = inputs(dtype="float32")
    for kind in ("lstm", "gru"):
        cell = FLAVOURS["linen"].cell(kind, "float32")
        key = jax.random.key(7)
        assert_near(rnn.linen.RNN(cell).init(key, xs), linen.RNN(cell).init(key, xs), 0)


def test_the_convolutional_cell_of_linen():
    cell = linen.ConvLSTMCell(2, (3,), param_dtype="float64", dtype="float64")
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 1)))  # [batch, time, space, 1]
    theirs, ours = linen.RNN(cell, return_carry=True), rnn.linen.RNN(cell, return_carry=True)
    variables = theirs.init(jax.random.key(0), xs)
    assert_near(ours.init(jax.random.key(0), xs), variables, 0)
    assert_near(ours.apply(variables, xs), theirs.apply(variables, xs), 1e-12)


class LinenNoise(linen.RNNCellBase):
    """Returns noise, whatever the input."""

    @linen.compact
    def __call__(self, carry, x):
        return carry, jax.random.uniform(self.make_rng("noise"), x.shape)

    @linen.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros(input_shape[:-1])

    @property
    def num_feature_axes(self):
        return 1


@pytest.mark.parametrize("split", [True, False])
def test_linen_rngs_are_split_over_time_or_not(split):
    layer = rnn.linen.RNN(LinenNoise(), split_rngs={"params": False, "noise": split})
    draw = functools.partial(layer.apply, {}, inputs())
    ys = draw(rngs={"noise": jax.random.key(0)})
    other = draw(rngs={"noise": jax.random.key(1)})
    assert len(np.unique(ys[0, :, 0])) == (TIME if split else 1)
    assert not np.isin(ys, other).any()
    assert (ys == draw(rngs={"noise": jax.random.key(0)})).all()


class NNXNoise(nnx.Module):
    """A cell with dropout that is not a subclass of Flax's base class."""

    num_feature_axes = 1

    def __init__(self, rngs):
        self.drop = nnx.Dropout(0.5, rngs=rngs, rng_collection="noise")

    def __call__(self, carry, x):
        return carry, self.drop(x)

    def initialize_carry(self, input_shape, rngs):
        return jnp.zeros(input_shape[:-1])


@pytest.mark.parametrize("broadcast", [None, "noise"])
def test_nnx_rngs_are_broadcast_over_time_or_not_and_advance(broadcast):
    layer = rnn.nnx.RNN(NNXNoise(nnx.Rngs(0, noise=1)), broadcast_rngs=broadcast)
    xs = jnp.ones((2, 20, 8))
    first, second = layer(xs), layer(xs)
    assert (first == first[:, :1]).all() == (broadcast is not None)
    assert (first != second).any()
    assert layer.cell.drop.rngs.count[...] == 2
    np.testing.assert_array_equal(np.unique(first), [0, 2])
    layer.eval()
    assert (layer(xs) == xs).all() and layer.cell.drop.rngs.count[...] == 2


def test_integer_and_low_precision_inputs_are_promoted_as_in_flax(flax):
    theirs, weights = flax.split(flax.RNN(flax.cell("gru", None)), "float32")
    ours, _ = flax.split(flax.ours(flax.cell("gru", None)), "float32")
    carry = jnp.zeros((BATCH, 4), "float32")
    with jax.numpy_dtype_promotion("standard"):
        for xs in (jnp.ones((BATCH, TIME, INPUT), int), inputs().astype("bfloat16")):
            got, want = (f(weights, xs, initial_carry=carry) for f in (ours, theirs))
            assert_near(got, want, 1e-6)
