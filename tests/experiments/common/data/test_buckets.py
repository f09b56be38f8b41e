"""A loss at one of a few sizes: value and gradient are those of the size that is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.data.buckets import switch_loss

XS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
PARAMS = {"a": np.float32(0.7), "b": np.array([0.3, -1.2, 0.5], np.float32)}


def loss(size, params, xs, key):
    noise = jax.random.normal(key, xs.shape)[:size]
    return (jnp.sin(params["a"] * xs[:size] + params["b"]) * (1 + noise)).sum() / size


LOSSES = [lambda *given, size=size: loss(size, *given) for size in (2, 4, 7)]


@pytest.mark.parametrize("index", range(3))
def test_value_and_gradient_are_those_of_the_size_that_is_chosen(index):
    key = jax.random.key(index)

    def chosen(params, index):
        return 3 * switch_loss(index, LOSSES, params, XS, key)

    expected = jax.value_and_grad(lambda params: 3 * LOSSES[index](params, XS, key))(PARAMS)
    found = jax.jit(jax.value_and_grad(chosen))(PARAMS, index)
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5), found, expected)
    np.testing.assert_allclose(chosen(PARAMS, index), expected[0], rtol=1e-5)


def test_several_seeds_side_by_side_choose_one_size_and_get_gradients_of_their_own():
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    several = jax.tree.map(lambda leaf: jnp.stack([leaf * (1 + k) for k in range(4)]), PARAMS)
    gradient = jax.grad(lambda params, key: switch_loss(1, LOSSES, params, XS, key))
    found = jax.jit(jax.vmap(gradient))(several, keys)
    expected = jax.vmap(jax.grad(lambda params, key: LOSSES[1](params, XS, key)))(several, keys)
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5), found, expected)


def test_nothing_is_kept_of_sizes_that_are_not_taken():
    """Residuals of all branches would be 7 + 4 + 2 rows; here only gradients leave the switch."""

    def chosen(params, index):
        return switch_loss(index, LOSSES, params, XS, jax.random.key(0))

    kept = jax.eval_shape(lambda params: jax.vjp(lambda p: chosen(p, 1), params)[1], PARAMS)
    leaves = [leaf for leaf in jax.tree.leaves(kept) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert sum(leaf.size for leaf in leaves) <= sum(np.size(leaf) for leaf in PARAMS.values())
