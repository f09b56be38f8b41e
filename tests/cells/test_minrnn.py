import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.activations import identity, positive
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

GRU, LSTM = Case(rnn.MinGRU(4)), Case(rnn.MinLSTM(4))


def g(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


@pytest.mark.parametrize(("activation", "transcribed"), [(positive, g), (identity, lambda x: x)])
def test_min_gru_follows_the_paper(activation, transcribed):
    def step(p, s, x):
        z, n = np.split(x @ p.input_kernel + p.bias, 2)
        h = (1 - sigmoid(z)) * s.hidden + sigmoid(z) * transcribed(n)
        return [h], h

    assert_follows(Case(rnn.MinGRU(4, activation=activation)), step)


def test_min_lstm_follows_the_paper():
    def step(p, s, x):
        f, i, n = np.split(x @ p.input_kernel + p.bias, 3)
        f, i = sigmoid(f), sigmoid(i)
        h = f / (f + i) * s.hidden + i / (f + i) * g(n)
        return [h], h

    assert_follows(LSTM, step)


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def log_g(x):
    return np.where(x >= 0, np.log(np.maximum(x, 0) + 0.5), log_sigmoid(x))


def log_space(log_a, log_b, log_h0):
    """h of h' = a h + b, every number by its logarithm: a sum over all steps, no recurrence."""
    log_a = np.concatenate([np.zeros_like(log_a[:1]), log_a])
    log_b = np.concatenate([log_h0[None], log_b])
    total = np.cumsum(log_a, axis=0)
    return np.exp(total + np.logaddexp.accumulate(log_b - total, axis=0))[1:]


def gru_gates(z):
    return log_sigmoid(-z), log_sigmoid(z)


def lstm_gates(f, i):
    total = np.logaddexp(log_sigmoid(f), log_sigmoid(i))
    return log_sigmoid(f) - total, log_sigmoid(i) - total


@pytest.mark.parametrize(
    ("case", "logarithms"), [(GRU, gru_gates), (LSTM, lstm_gates)], ids=["GRU", "LSTM"]
)
def test_log_space_form_agrees(case, logarithms):
    params, xs = random_params(case), random_inputs(case, (20,))
    state = case.cell.init_state(params)._replace(hidden=jnp.array([0.1, 1.0, 2.0, 0.5]))
    _, ys = rnn.unroll(case.cell, params, xs, state)

    *gates, n = np.split(
        np.asarray(xs @ params.input_kernel + params.bias), params.bias.size // 4, axis=1
    )
    log_keep, log_write = logarithms(*gates)
    want = log_space(log_keep, log_write + log_g(n), np.log(np.asarray(state.hidden)))
    assert_near(ys, want, 1e-12)


def test_min_lstm_is_exact_where_both_gates_are_closed():
    cell = rnn.MinLSTM(1)
    params = cell.init(jax.random.key(0), 1, "float32")
    params = params._replace(input_kernel=jnp.zeros((1, 3), "float32"))
    params = params._replace(bias=jnp.array([-200.0, -201.0, 0.0], "float32"))
    a, b = cell.affine(params, jnp.ones(1, "float32"))
    np.testing.assert_allclose(a.hidden, sigmoid(1.0), rtol=1e-5)
    np.testing.assert_allclose(b.hidden, (1 - sigmoid(1.0)) * 0.5, rtol=1e-5)
