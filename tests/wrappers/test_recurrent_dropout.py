"""Recurrent dropout: only the candidate is dropped, with a new mask at each step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.wrappers import EmitState, RecurrentDropout, VariationalDropout, Zoneout
from tests.support.drawing import assert_drawn_apart, assert_rate, draw
from tests.support.helpers import assert_near
from tests.support.numpy_cells import sigmoid

KEY, RATE = jax.random.key(3), 0.3


def lstm_candidate(p, s, x, new):
    """What each element of the candidate was multiplied by, from the states around the step."""
    z = x @ p.input_kernel + p.bias + s.hidden @ p.recurrent_kernel
    i, f, g, o = np.split(z, 4)
    np.testing.assert_allclose(new.hidden, sigmoid(o) * np.tanh(new.cell), atol=1e-12)
    return (new.cell - sigmoid(f) * s.cell) / (sigmoid(i) * np.tanh(g))


def gru_candidate(p, s, x, new):
    i_r, i_z, i_n = np.split(x @ p.input_kernel + p.bias, 3)
    h_r, h_z, h_n = np.split(s.hidden @ p.recurrent_kernel, 3)
    z = sigmoid(i_z + h_z)
    n = np.tanh(i_n + sigmoid(i_r + h_r) * (h_n + p.candidate_bias))
    return (new.hidden - z * s.hidden) / ((1 - z) * n)


@pytest.mark.parametrize(
    ("cell", "candidate"),
    [(rnn.LSTM(5), lstm_candidate), (rnn.GRU(5), gru_candidate)],
    ids=["LSTM", "GRU"],
)
def test_only_the_candidate_is_dropped(cell, candidate):
    cell = RecurrentDropout(cell, RATE)
    params, state, xs = draw(cell)

    @jax.jit
    def run(params, state, xs):
        return rnn.unroll(EmitState(cell), params, xs, state, key=KEY)[1]

    states = jax.tree.map(np.asarray, run(params, state, xs))
    before = jax.tree.map(lambda s, ss: np.concatenate([s[None], ss[:-1]]), state, states)
    factors = np.array(
        [
            [
                candidate(
                    params,
                    jax.tree.map(lambda leaf: leaf[t, row], before),  # noqa: B023
                    xs[t, row],
                    jax.tree.map(lambda leaf: leaf[t, row], states),  # noqa: B023
                )
                for row in range(xs.shape[1])
            ]
            for t in range(len(xs))
        ]
    )
    dropped = np.abs(factors) < 1e-6
    np.testing.assert_allclose(factors[~dropped], 1 / (1 - RATE), rtol=1e-6)
    assert_rate(dropped, RATE)
    assert_drawn_apart(dropped)


@pytest.mark.parametrize(
    "cell",
    [rnn.LSTM(4), rnn.PeepholeLSTM(4), rnn.ProjectedLSTM(4, 3), rnn.GRU(4), rnn.ResetBeforeGRU(4)],
    ids=lambda cell: type(cell).__name__,
)
def test_all_cells_that_it_names(cell):
    """Nothing is dropped without a key; with one, what is given out has the right expectation.

    The memory that is written is linear in the candidate's mask, so its mean over keys is what the
    cell writes; the LSTM's hidden state is not linear in it.
    """
    wrapped = RecurrentDropout(cell, RATE)
    params, state, xs = draw(wrapped, time=1)

    @jax.jit
    def run(params, state, x):
        keys = jax.random.split(KEY, 4000)
        many = jax.vmap(lambda key: wrapped.step(params, state, x, key=key)[0])(keys)
        return many, wrapped.step(params, state, x), cell.step(params, state, x)

    many, without, plain = run(params, state, xs[0])
    assert_near(without, plain, 0.0)
    memory = getattr(many, "cell", many.hidden)
    want = getattr(plain[0], "cell", plain[0].hidden)
    np.testing.assert_allclose(memory.mean(axis=0), want, atol=5 * memory.std() / np.sqrt(4000))
    assert (memory.std(axis=0) > 0).all()


def test_it_finds_the_candidate_inside_other_wrappers():
    inside = RecurrentDropout(Zoneout(VariationalDropout(rnn.GRU(4)), 0.2), RATE)
    outside = Zoneout(RecurrentDropout(rnn.GRU(4), RATE), 0.2)
    params, state, xs = draw(inside, time=1)
    for cell in (inside, outside):
        step = functools.partial(cell.step, params, state, xs[0])
        assert_near(step(), Zoneout(rnn.GRU(4), 0.2).step(params, state, xs[0]), 1e-12)
        assert (step(key=KEY)[1] != step(key=jax.random.key(4))[1]).any()


def test_a_cell_of_ones_own_with_the_field():
    cell = RecurrentDropout(rnn.LSTM(4, candidate_activation=jnp.cos), 0.5)
    params, state, xs = draw(cell, time=1)
    z = xs[0] @ params.input_kernel + params.bias + state.hidden @ params.recurrent_kernel
    i, f, g, _ = np.split(z, 4, axis=-1)
    new, _ = cell.step(params, state, xs[0])
    np.testing.assert_allclose(
        new.cell, sigmoid(f) * state.cell + sigmoid(i) * np.cos(g), atol=1e-12
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: RecurrentDropout(rnn.Elman(3), 0.1), "got Elman; use VariationalDropout or"),
        (lambda: RecurrentDropout(EmitState(rnn.LRU(3)), 0.1), "got LRU; use"),
        (lambda: RecurrentDropout(rnn.GRU(3), -0.1), r"rate .* must lie in \[0, 1\), got -0.1"),
        (lambda: RecurrentDropout(rnn.GRU, 0.1), "cell must be an instance, got the class"),
    ],
)
def test_errors_name_the_argument(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bad()
