"""Linen and nnx behind one interface.

``network(kind, RNN, ...)`` gives a function ``apply(weights, xs, **call)`` and its weights, all of
them random, biases included; given Flax's own RNN or jaxrnn's, the weights are the same.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import jaxrnn.linen
import jaxrnn.nnx

INPUT, HIDDEN = 3, 4


def noisy(weights):
    """Weights moved by noise, so that no bias is zero and no matrix orthogonal."""
    rng = np.random.default_rng(5)

    def move(leaf):
        return leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(move, weights)


class Linen:
    """Modules that are templates; weights are variables."""

    RNN = linen.RNN
    ours = jaxrnn.linen.RNN
    Bidirectional = jaxrnn.linen.Bidirectional
    kinds = {
        "simple": linen.SimpleCell,
        "lstm": linen.LSTMCell,
        "optimized": linen.OptimizedLSTMCell,
        "gru": linen.GRUCell,
        "mgu": linen.MGUCell,
    }

    def cell(self, kind, dtype="float64", seed=0):
        return self.kinds[kind](HIDDEN, dtype=dtype, param_dtype=dtype or "float32")

    def split(self, module, dtype="float64"):
        """The pure function of a module, and its weights."""
        xs = jnp.ones((2, 3, INPUT), dtype)
        weights = jax.eval_shape(module.init, jax.random.key(0), xs)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), weights)
        return module.apply, noisy(zeros)

    def around(self, cell, **options):
        """jaxrnn's RNN around a jaxrnn cell."""
        return self.ours(cell, **options)


class NNX:
    """Modules that hold their weights; pure functions come of splitting them."""

    RNN = nnx.RNN
    ours = jaxrnn.nnx.RNN
    Bidirectional = jaxrnn.nnx.Bidirectional
    kinds = {
        "simple": nnx.SimpleCell,
        "lstm": nnx.LSTMCell,
        "optimized": nnx.OptimizedLSTMCell,
        "gru": nnx.GRUCell,
    }

    def cell(self, kind, dtype="float64", seed=0):
        options = {"recurrent_kernel_init": nnx.initializers.lecun_normal()}  # compiles quickly
        options |= {"dtype": dtype, "param_dtype": dtype or "float32", "rngs": nnx.Rngs(seed)}
        return self.kinds[kind](INPUT, HIDDEN, **options)

    def split(self, module, dtype="float64"):
        graph, weights, rest = nnx.split(module, nnx.Param, ...)

        def apply(weights, xs, **call):
            return nnx.merge(graph, weights, rest, copy=True)(xs, **call)

        return apply, noisy(weights)

    def around(self, cell, **options):
        return self.ours(cell, in_features=INPUT, rngs=nnx.Rngs(0), **options)


FLAVOURS = {"linen": Linen(), "nnx": NNX()}
