import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import (
    Case,
    normalized_slstm_state,
    random_inputs,
    random_params,
    random_state,
)
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

CASE = Case(rnn.SLSTM(6, num_heads=3), state=normalized_slstm_state)
DENSE = Case(rnn.SLSTM(6), state=normalized_slstm_state)


def gates(p, h, x):
    """ĩ, f̃, z̃, õ; each head's part of a gate sees the head's part of h only."""
    at = (x @ p.input_kernel + p.bias).reshape(4, 3, 2)
    for gate in range(4):
        for head in range(3):
            block = p.recurrent_kernel[head][:, 2 * gate : 2 * gate + 2]
            at[gate, head] += h[2 * head : 2 * head + 2] @ block
    return at.reshape(4, 6)


def test_follows_the_paper():
    def step(p, s, x):
        i, f, z, o = gates(p, s.hidden, x)
        m = np.maximum(np.log(sigmoid(f)) + s.stabilizer, i)
        i, f = np.exp(i - m), np.exp(np.log(sigmoid(f)) + s.stabilizer - m)
        c = f * s.cell + i * np.tanh(z)
        n = f * s.normalizer + i
        h = sigmoid(o) * c / n
        return [h, c, n, m], h

    assert_follows(CASE, step)


def test_is_the_cell_without_stabilizer():
    """Eqs. 8 to 14: gates as they are, on states that carry no scale."""
    p, xs = random_params(CASE), random_inputs(CASE, (8, 2))
    _, ys = rnn.unroll(CASE.cell, p, xs)
    q = jax.tree.map(np.asarray, p)
    for row in range(2):
        h, c, n = np.zeros((3, 6))
        for t in range(8):
            i, f, z, o = gates(q, h, np.asarray(xs[t, row]))
            c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
            n = sigmoid(f) * n + np.exp(i)
            h = sigmoid(o) * c / n
            np.testing.assert_allclose(ys[t, row], h, rtol=0, atol=1e-12)


def test_outputs_do_not_depend_on_the_stabilizer():
    p, xs, state = random_params(CASE), random_inputs(CASE, (6, 2)), random_state(CASE, (2,))
    shift = jnp.asarray(CASE.rng(7).normal(size=(2, 6)))
    shifted = state._replace(
        cell=state.cell * jnp.exp(-shift),
        normalizer=state.normalizer * jnp.exp(-shift),
        stabilizer=state.stabilizer + shift,
    )

    def outputs(p, state):
        return rnn.unroll(CASE.cell, p, xs, state)[1]

    assert_near(outputs(p, shifted), outputs(p, state), 1e-12)
    gradients = [
        jax.grad(lambda p, s=s: jnp.sum(jnp.sin(outputs(p, s))))(p) for s in (state, shifted)
    ]
    assert_near(gradients[1], gradients[0], 1e-12)


def test_nothing_written_is_any_stabilizer_with_nothing_under_it():
    p, xs = random_params(CASE), random_inputs(CASE, (6, 2))
    zeros = CASE.cell.init_state(p, (2,))._replace(stabilizer=jnp.zeros((2, 6)))
    assert_near(rnn.unroll(CASE.cell, p, xs, zeros)[1], rnn.unroll(CASE.cell, p, xs)[1], 1e-12)


@pytest.mark.parametrize("size", [-2000.0, 2000.0])
def test_extreme_gates_are_finite(size):
    """Where the exponential itself is 0 or ∞, from the first step on, and so are gradients."""
    p = random_params(CASE, "float32")
    p = p._replace(bias=p.bias.at[:6].set(size))
    xs = random_inputs(CASE, (6, 2), "float32")

    def loss(p):
        final, ys = rnn.unroll(CASE.cell, p, xs)
        return ys.sum(), (final, ys)

    gradient, (final, ys) = jax.grad(loss, has_aux=True)(p)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, final, ys)))
    assert (final.normalizer >= 1).all()
    assert np.abs(ys).max() > 0.1


def test_heads_are_blocks_of_one_kernel():
    p, xs = random_params(CASE), random_inputs(CASE, (5, 2))
    dense = np.zeros((6, 4, 6))
    for head in range(3):
        part = slice(2 * head, 2 * head + 2)
        dense[part, :, part] = np.asarray(p.recurrent_kernel[head]).reshape(2, 4, 2)
    one = p._replace(recurrent_kernel=jnp.asarray(dense.reshape(1, 6, 24)))
    state = random_state(CASE, (2,))
    want = rnn.unroll(DENSE.cell, one, xs, state)
    assert_near(rnn.unroll(CASE.cell, p, xs, state), want, 1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="num_heads must divide hidden_size, got 4 heads of 6"):
        rnn.SLSTM(6, num_heads=4)
