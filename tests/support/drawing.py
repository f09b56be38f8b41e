"""Random parameters, states and inputs, and the probability of what a wrapper has drawn."""

import jax
import numpy as np


def draw(cell, input_size=3, batch=(4,), time=50):
    """Parameters, state and inputs with every leaf random."""
    rng = np.random.default_rng(1)

    def noise(tree):
        return jax.tree.map(
            lambda leaf: leaf + (0.5 * rng.normal(size=leaf.shape)).astype(leaf.dtype), tree
        )

    params = noise(cell.init(jax.random.key(0), input_size))
    state = noise(cell.init_state(params, batch))
    xs = rng.normal(size=(time, *batch, input_size))
    return jax.tree.map(np.asarray, (params, state, xs))


def assert_rate(drawn, rate):
    """So many of independent draws are true, to five standard deviations."""
    drawn = np.asarray(drawn)
    deviation = np.sqrt(rate * (1 - rate) / drawn.size)
    assert deviation < 0.05, "too few draws to tell"
    np.testing.assert_allclose(drawn.mean(), rate, atol=5 * deviation)


def assert_drawn_apart(drawn):
    """Along no axis are all draws the same."""
    for axis in range(drawn.ndim):
        assert np.diff(drawn, axis=axis).any(), f"one draw serves the whole of axis {axis}"
