"""Arguments and cells that Flax's own RNN accepts, against Flax's own RNN."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxrnn as rnn
import jaxrnn.linen
import jaxrnn.nnx
from tests.support.flavours import INPUT
from tests.support.helpers import assert_near

XS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, INPUT)))


class Dropped(linen.RNNCellBase):
    """A cell with dropout on its input."""

    @linen.compact
    def __call__(self, carry, x):
        x = linen.Dropout(0.5, deterministic=False)(x)
        y = linen.Dense(4, param_dtype="float64")(x)
        return carry, (x == 0, y)

    @linen.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], 1))

    num_feature_axes = 1


def test_one_key_is_enough_for_a_cell_with_dropout():
    theirs, ours = linen.RNN(Dropped()), rnn.linen.RNN(Dropped())
    got, want = ours.init(jax.random.key(0), XS), theirs.init(jax.random.key(0), XS)
    assert_near(got, want, 0)
    rngs = {"params": jax.random.key(1)}
    for layer in (theirs, ours):
        dropped, _ = layer.apply(want, XS, rngs=rngs)
        assert dropped.any() and not dropped.all()
        assert (dropped == dropped[:, :1]).all()  # the stream of the parameters is not split


def test_flaxs_default_arguments():
    defaults = {
        "variable_axes": {},
        "variable_broadcast": "params",
        "variable_carry": False,
        "split_rngs": {"params": False},
    }
    cell = linen.GRUCell(4, param_dtype="float64")
    rnn.linen.RNN(cell, **defaults)
    variables = linen.RNN(cell).init(jax.random.key(0), XS)
    positional = (False, True, True, True, 2, {}, "params", False, {"params": False})
    got, want = (RNN(cell, *positional).apply(variables, XS) for RNN in (rnn.linen.RNN, linen.RNN))
    assert_near(got, want, 1e-12)
    for changed in ({"variable_axes": {"cache": 0}}, {"variable_carry": "cache"}):
        with pytest.raises(ValueError, match=f"{[*changed][0]} must be .*keep flax.linen.RNN"):
            rnn.linen.RNN(cell, **changed).apply(variables, XS)

    cell = nnx.GRUCell(INPUT, 4, rngs=nnx.Rngs(0), param_dtype="float64")
    theirs, ours = (RNN(cell, unroll=2, state_axes=None) for RNN in (nnx.RNN, rnn.nnx.RNN))
    assert (ours.unroll, ours.state_axes) == (theirs.unroll, theirs.state_axes)
    assert_near(ours(XS), theirs(XS), 1e-12)
    rnn.nnx.RNN(cell, state_axes=theirs.state_axes)
    with pytest.raises(ValueError, match="state_axes must be .*keep flax.nnx.RNN"):
        rnn.nnx.RNN(cell, state_axes={...: None})


class Counting(linen.RNNCellBase):
    """A cell with a step counter, without a batch axis, in its carry."""

    @linen.compact
    def __call__(self, carry, x):
        h, count = carry
        h = jnp.tanh(linen.Dense(4, param_dtype="float64")(x) + h) / (1.0 + count)
        return (h, count + 1), h

    @linen.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros((*input_shape[:-1], 4)), jnp.zeros(())

    num_feature_axes = 1


def test_a_carry_leaf_without_batch_axis():
    options = {"return_carry": True, "reverse": True}
    theirs, ours = linen.RNN(Counting(), **options), rnn.linen.RNN(Counting(), **options)
    variables = theirs.init(jax.random.key(0), XS)
    lengths = jnp.array([2, 5, 1])
    carry = (jnp.ones((3, 4)), jnp.float64(2))

    def run(layer):
        def total(variables, carry):
            (h, count), ys = layer.apply(variables, XS, initial_carry=carry)
            return (h.sum() + count + (ys * jnp.cos(jnp.arange(4))).sum()), ((h, count), ys)

        return jax.value_and_grad(total, (0, 1), has_aux=True)(variables, carry)

    assert_near(run(ours), run(theirs), 1e-12)
    with pytest.raises(ValueError, match=r"carry\[1\] must have shape \[\*batch, ...\].*got \(\)"):
        ours.apply(variables, XS, seq_lengths=lengths)
    options = {"seq_lengths": lengths, "return_carry": False}
    padded = rnn.linen.RNN(Counting(), reverse=True, run_padding=True)
    assert_near(
        padded.apply(variables, XS, **options), theirs.apply(variables, XS, **options), 1e-12
    )


class Bare(linen.Module):
    """A cell without ``initialize_carry``."""

    num_feature_axes = 1

    @linen.compact
    def __call__(self, carry, x):
        h = jnp.tanh(linen.Dense(4, param_dtype="float64")(x) + carry)
        return h, h


class BareNNX(nnx.Module):
    num_feature_axes = 1

    def __init__(self):
        self.dense = nnx.Linear(INPUT, 4, param_dtype="float64", rngs=nnx.Rngs(0))

    def __call__(self, carry, x):
        h = jnp.tanh(self.dense(x) + carry)
        return h, h


def test_a_cell_without_initialize_carry_takes_an_initial_carry():
    carry = jnp.ones((3, 4))
    variables = linen.RNN(Bare()).init(jax.random.key(0), XS, initial_carry=carry)
    got, want = (
        RNN(Bare()).apply(variables, XS, initial_carry=carry) for RNN in (rnn.linen.RNN, linen.RNN)
    )
    assert_near(got, want, 1e-12)
    assert_near(
        rnn.linen.RNN(Bare()).init(jax.random.key(0), XS, initial_carry=carry), variables, 0
    )
    got, want = (RNN(BareNNX())(XS, initial_carry=carry) for RNN in (rnn.nnx.RNN, nnx.RNN))
    assert_near(got, want, 1e-12)


def test_run_padding_clamps_lengths_beyond_time():
    cell = linen.GRUCell(4, param_dtype="float64")
    variables = linen.RNN(cell).init(jax.random.key(0), XS)
    options = {"seq_lengths": jnp.array([9, 3, 6]), "return_carry": True, "reverse": True}
    theirs, ours = linen.RNN(cell), rnn.linen.RNN(cell, run_padding=True)
    for keep_order in (False, True):
        options["keep_order"] = keep_order
        got, want = (layer.apply(variables, XS, **options) for layer in (ours, theirs))
        assert_near(got, want, 1e-12)


def test_tabulate_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = rnn.linen.RNN(linen.GRUCell(4))
        table = layer.tabulate(jax.random.key(0), XS.astype("float32"))
    assert "Total Parameters: 100" in table
