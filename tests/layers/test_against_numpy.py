"""Layers against the plain NumPy loop: values, and gradients by its complex-step derivative."""

import dataclasses
import functools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support import sequence_loop
from tests.support.helpers import assert_near, split, thorough_but, weighted_sum
from tests.support.numpy_cells import ELMAN, GRU, LSTM

TIME, BATCH, INPUT = 5, 3, 2
FLAGS = arrays.arrays(bool, (TIME, BATCH))
examples = hypothesis.settings(max_examples=20, deadline=None, derandomize=True)


@dataclasses.dataclass(frozen=True)
class RMSNorm:
    """Without an epsilon: zeros, and derivatives at zero, become NaN."""

    def init(self, key, x):
        return {"scale": jnp.ones_like(x)}

    def apply(self, params, x):
        return params["scale"] * x / jnp.sqrt((x * x).mean(axis=-1, keepdims=True))


def hypotenuse(forward, backward):
    """A merge with no derivative at zero."""
    return jnp.sqrt(forward * forward + backward * backward)


def rms_norm(params, x, mask):
    x = np.where(mask[..., None], x, 1.0)
    return params["scale"] * x / np.sqrt((x * x).mean(axis=-1, keepdims=True))


def both(forward, backward, params, state, xs, mask, starts):
    finals, outputs = [], []
    for reverse, oracle in enumerate((forward, backward)):
        final, ys = sequence_loop.run(
            oracle, params[reverse], xs, state[reverse], mask, starts, bool(reverse)
        )
        finals.append(final)
        outputs.append(ys)
    return rnn.layers.BidirectionalState(*finals), outputs


def stack_in_numpy(params, state, xs, mask, starts):
    """LSTM; then GRU and Elman from both ends; then GRU."""
    final_0, h = sequence_loop.run(LSTM, params[0], xs, state[0], mask, starts)
    u = rms_norm(params[1].normalization, h, mask)
    final_1, ends = both(GRU, ELMAN, params[1].layer, state[1], u, mask, starts)
    h = h + np.concatenate(ends, axis=-1)
    u = rms_norm(params[2].normalization, h, mask)
    final_2, y = sequence_loop.run(GRU, params[2].layer, u, state[2], mask, starts)
    return (final_0, final_1, final_2), h + y


def ends_in_numpy(params, state, xs, mask, starts):
    """From each end a stack of two cells with a residual sum; the hypotenuse of what they give."""
    finals, outputs = [], []
    for reverse, oracles in enumerate(((ELMAN, GRU), (GRU, ELMAN))):
        work = params[reverse], state[reverse]
        first, h = sequence_loop.run(
            oracles[0], work[0][0], xs, work[1][0], mask, starts, bool(reverse)
        )
        second, y = sequence_loop.run(
            oracles[1], work[0][1], h, work[1][1], mask, starts, bool(reverse)
        )
        finals.append((first, second))
        outputs.append(np.where(mask[..., None], h + y, 0))
    ys = np.sqrt(outputs[0] ** 2 + outputs[1] ** 2)
    return rnn.layers.BidirectionalState(*finals), ys


def two(first, second):
    return rnn.layers.Stack((first, second), residual=(False, True))


LAYERS = {
    "stack": (
        rnn.layers.Stack(
            (rnn.LSTM(4), rnn.layers.Bidirectional(rnn.GRU(2), rnn.Elman(2)), rnn.GRU(4)),
            residual=(False, True, True),
            normalization=RMSNorm(),
        ),
        stack_in_numpy,
    ),
    "both ends": (
        rnn.layers.Bidirectional(
            two(rnn.Elman(3), rnn.GRU(3)), two(rnn.GRU(3), rnn.Elman(3)), merge=hypotenuse
        ),
        ends_in_numpy,
    ),
}


@functools.cache
def drawn(name):
    layer = LAYERS[name][0]
    rng = np.random.default_rng(7)

    def noise(tree):
        return jax.tree.map(lambda leaf: leaf + 0.4 * rng.normal(size=leaf.shape), tree)

    params = noise(layer.init(jax.random.key(0), INPUT))
    return jax.tree.map(np.asarray, (params, noise(layer.init_state(params, (BATCH,)))))


@functools.partial(jax.jit, static_argnums=0)
def run(name, params, state, xs, mask, starts, lengths):
    floats, join = split((params, state, xs))

    def objective(floats):
        params, state, xs = join(floats)
        out = LAYERS[name][0].apply(params, state, xs, mask=mask, starts=starts, lengths=lengths)
        return weighted_sum(out), out

    return jax.grad(objective, has_aux=True)(floats)


def check(name, seed, mask, starts, flags):
    params, state = drawn(name)
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(TIME, BATCH, INPUT))
    xs = np.where(mask[..., None], clean, np.nan)
    grads, out = run(name, params, state, xs, **flags)
    oracle = LAYERS[name][1]
    assert_near(out, oracle(params, state, clean, mask, starts), 1e-12)

    floats, join = split((params, state, clean))
    directions = [rng.normal(size=leaf.shape) for leaf in floats]
    tilted = join([x + 1e-30j * d for x, d in zip(floats, directions, strict=True)])
    slope = weighted_sum(jax.tree.map(np.imag, oracle(*tilted, mask, starts))) / 1e-30
    along = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    np.testing.assert_allclose(along, slope, rtol=1e-10, atol=1e-10)
    assert (grads[-1][~mask] == 0).all(), "a gradient flows through a skipped step"


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_masks_and_starts(name):
    @examples
    @hypothesis.given(FLAGS, FLAGS, st.integers(0, 99))
    def property(mask, starts, seed):
        check(name, seed, mask, starts, {"mask": mask, "starts": starts, "lengths": None})

    property()


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize("lengths", thorough_but([5, 0, 2], [1, 4, 5]), ids=str)
def test_lengths(name, lengths):
    mask = np.arange(TIME)[:, None] < np.array(lengths)
    flags = {"mask": None, "starts": None, "lengths": np.array(lengths)}
    check(name, 3, mask, np.zeros_like(mask), flags)


@pytest.mark.thorough
def test_nothing_is_skipped():
    flags = np.ones((TIME, BATCH), bool)
    check("stack", 4, flags, ~flags, {"mask": None, "starts": None, "lengths": None})
