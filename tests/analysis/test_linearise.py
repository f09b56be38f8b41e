"""The Jacobians of a step, against `jax.jacobian` and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.analysis import linearise


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_an_lstm_agrees_with_jax_jacobian_for_each_batch_element():
    cell = rnn.LSTM(3)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape), cell.init(jax.random.key(0), 2))
    state, x = rnn.LSTMState(normal(2, 1, 3), normal(2, 1, 3, seed=1)), normal(2, 1, 2, seed=2)
    local = linearise(cell, params, state, x)
    assert local.jacobian.shape == (2, 1, 6, 6) and local.input_jacobian.shape == (2, 1, 6, 2)
    for row in range(2):
        one = rnn.LSTMState(state.hidden[row, 0], state.cell[row, 0])
        both = jax.jacobian(lambda s, x: cell.step(params, s, x)[0], (0, 1))(one, x[row, 0])
        expected = np.block([[np.asarray(block) for block in by_state] for by_state, _ in both])
        np.testing.assert_allclose(local.jacobian[row, 0], expected, atol=1e-13)
        expected = np.concatenate([by_input for _, by_input in both])
        np.testing.assert_allclose(local.input_jacobian[row, 0], expected, atol=1e-13)


def test_a_gru_agrees_with_finite_differences():
    cell = rnn.GRU(4)
    params = jax.tree.map(lambda leaf: normal(*leaf.shape), cell.init(jax.random.key(0), 3))
    h, x = normal(4), normal(3, seed=1)
    local = linearise(cell, params, rnn.GRUState(h), x)

    def after(h, x):
        return np.asarray(cell.step(params, rnn.GRUState(h), x)[0].hidden)

    by_state = [(after(h + d, x) - after(h - d, x)) / 2e-6 for d in 1e-6 * np.eye(4)]
    by_input = [(after(h, x + d) - after(h, x - d)) / 2e-6 for d in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(local.jacobian, np.transpose(by_state), atol=1e-8)
    np.testing.assert_allclose(local.input_jacobian, np.transpose(by_input), atol=1e-8)


def test_integers_are_excluded_from_states_and_inputs():
    def step(table, state, token):
        count, h = state
        return (count + 1, jnp.tanh(h * 0.5 + table[token])), h

    cell = rnn.from_step(
        step,
        init_state=lambda table, batch: (jnp.zeros(batch, int), jnp.zeros((*batch, 2))),
        input_rank=0,
    )
    table, h = normal(5, 2), normal(2, seed=1)
    local = linearise(cell, table, (jnp.array(3), h), jnp.array(4))
    slope = 0.5 * (1 - np.tanh(0.5 * h + table[4]) ** 2)
    np.testing.assert_allclose(local.jacobian, np.diag(slope), atol=1e-14)
    assert local.input_jacobian.shape == (2, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(cell=rnn.Elman), "cell must be an instance"),
        (dict(state=rnn.ElmanState(np.zeros((5, 3)))), "state"),
        (dict(x=np.zeros(4)), "params"),
    ],
)
def test_errors_name_the_argument(changes, message):
    cell = rnn.Elman(3)
    arguments = dict(cell=cell, params=cell.init(jax.random.key(0), 2), x=np.zeros(2))
    arguments |= dict(state=rnn.ElmanState(np.zeros(3)))
    with pytest.raises((TypeError, ValueError), match=message):
        linearise(**(arguments | changes))
