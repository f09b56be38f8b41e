import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

SINGLE, WIDE = Case(rnn.QRNN(4)), Case(rnn.QRNN(4, window=3))


def pooled(p, c, inputs):
    z, f, o = np.split(inputs @ p.input_kernel + p.bias, 3)
    c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(z)
    return c, sigmoid(o) * c


def test_window_1_follows_the_paper():
    def step(p, s, x):
        c, y = pooled(p, s.cell, x)
        return [c], y

    assert_follows(SINGLE, step)


def test_wide_window_follows_the_paper():
    def step(p, s, x):
        inputs = np.concatenate([x, s.inputs])
        c, y = pooled(p, s.cell, inputs)
        return [c, inputs[:-3]], y

    assert_follows(WIDE, step)


def test_window_1_with_open_output_gate_is_the_gated_impulse_linear_recurrence():
    params, xs = random_params(SINGLE), random_inputs(SINGLE, (6,))
    always = params.bias.at[8:].set(1e3)
    params = params._replace(bias=always, input_kernel=params.input_kernel.at[:, 8:].set(0))
    _, ys = rnn.unroll(SINGLE.cell, params, xs)
    h, want = np.zeros(4), []
    for x in np.asarray(xs):
        z, g = np.split(x @ params.input_kernel[:, :8] + params.bias[:8], 2)
        h = sigmoid(g) * h + (1 - sigmoid(g)) * np.tanh(z)
        want.append(h)
    assert_near(ys, np.stack(want), 1e-12)


def test_wide_window_is_the_affine_cell_on_shifted_inputs():
    params, xs = random_params(WIDE), random_inputs(WIDE, (7, 2))
    zeros = jnp.zeros((2, *xs.shape[1:]))
    padded = jnp.concatenate([zeros, xs])
    windows = jnp.concatenate([padded[2:], padded[1:-1], padded[:-2]], axis=-1)
    final, ys = rnn.unroll(WIDE.cell, params, xs)
    single_final, want = rnn.unroll(SINGLE.cell, params, windows)
    assert_near((final.cell, ys), (single_final.cell, want), 1e-14)


def test_says_that_it_is_affine_only_where_it_is():
    assert rnn.is_affine(SINGLE.cell)
    assert not rnn.is_affine(WIDE.cell)
