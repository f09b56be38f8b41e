"""Flax's transforms around jaxrnn's RNN, against the same around Flax's own RNN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxrnn.linen
import jaxrnn.nnx
from tests.support.flavours import INPUT, noisy
from tests.support.helpers import assert_near, weighted_sum

XS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, INPUT)))
LIFTED = {
    "remat": lambda RNN: linen.remat(RNN),
    "jit": lambda RNN: linen.jit(RNN),
    "vmap": lambda RNN: linen.vmap(
        RNN, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=0
    ),
    "vmap of shared parameters": lambda RNN: linen.vmap(
        RNN, variable_axes={"params": None}, split_rngs={"params": False}, in_axes=0
    ),
}


class Lifted(linen.Module):
    """A transform of an RNN inside a model."""

    RNN: type
    transform: str

    @linen.compact
    def __call__(self, xs):
        return LIFTED[self.transform](self.RNN)(linen.GRUCell(4, param_dtype="float64"))(xs)


class Layers(linen.Module):
    """A scan over layers, each an RNN."""

    RNN: type

    @linen.compact
    def __call__(self, xs):
        def layer(model, ys, _):
            cell = linen.GRUCell(INPUT, param_dtype="float64", name="cell")
            return model.RNN(cell, name="rnn")(ys), None

        scan = linen.scan(layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return scan(self, xs, None)[0]


def agree(theirs, ours):
    key = jax.random.key(0)
    shapes = [jax.eval_shape(model.init, key, XS) for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    weights = noisy(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[0]))

    def work(model):
        def total(weights, xs):
            ys = model.apply(weights, xs)
            return weighted_sum(ys), ys

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(weights, XS)

    assert_near(work(ours), work(theirs), 1e-11)


@pytest.mark.parametrize(
    "transform",
    [
        "remat",
        "vmap",
        pytest.param("jit", marks=pytest.mark.thorough),
        pytest.param("vmap of shared parameters", marks=pytest.mark.thorough),
    ],
)
def test_lifted_transforms_of_linen(transform):
    agree(Lifted(linen.RNN, transform), Lifted(jaxrnn.linen.RNN, transform))


def test_a_scan_over_layers_of_linen():
    agree(Layers(linen.RNN), Layers(jaxrnn.linen.RNN))


def test_partitioned_parameters_of_linen():
    kernel = linen.with_partitioning(linen.initializers.lecun_normal(), (None, "model"))
    cell = linen.GRUCell(4, kernel_init=kernel, param_dtype="float64")
    theirs, ours = (RNN(cell) for RNN in (linen.RNN, jaxrnn.linen.RNN))
    boxed = theirs.init(jax.random.key(0), XS)
    got = ours.init(jax.random.key(0), XS)
    assert linen.get_partition_spec(got) == linen.get_partition_spec(boxed)
    assert_near(linen.unbox(got), linen.unbox(boxed), 0)
    assert_near(ours.apply(boxed, XS), theirs.apply(boxed, XS), 1e-12)


def test_transforms_of_nnx():
    def layer(RNN, key=0):
        return RNN(nnx.GRUCell(INPUT, 4, param_dtype="float64", rngs=nnx.Rngs(key)))

    theirs, ours = layer(nnx.RNN), layer(jaxrnn.nnx.RNN)
    assert_near(nnx.state(ours, nnx.Param), nnx.state(theirs, nnx.Param), 0)

    def gradient(module):
        return nnx.jit(nnx.grad(lambda module, xs: weighted_sum(module(xs))))(module, XS)

    assert_near(gradient(ours), gradient(theirs), 1e-11)

    def remat(module):
        return nnx.remat(lambda module, xs: module(xs))(module, XS)

    assert_near(remat(ours), remat(theirs), 1e-12)
    graphdef, state = nnx.split(ours)
    assert_near(nnx.merge(graphdef, state)(XS), ours(XS), 0)

    @nnx.vmap(in_axes=(0, None), out_axes=0)
    def members(module, xs):
        return module(xs)

    keys = jax.random.split(jax.random.key(0), 2)
    got, want = (
        members(nnx.vmap(functools.partial(layer, RNN))(keys), XS)
        for RNN in (jaxrnn.nnx.RNN, nnx.RNN)
    )
    assert_near(got, want, 1e-12)
