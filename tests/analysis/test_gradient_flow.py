"""Norms of Jacobian products, against NumPy, finite differences and closed forms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.analysis import gradient_flow


def random_params(cell, input_size, seed=0, scale=0.4):
    """Random parameters, biases included."""
    params = cell.init(jax.random.key(seed), input_size)
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + scale * random.normal(size=leaf.shape), params)


def inputs(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def log_sizes(jacobian):
    rms = np.log(np.linalg.norm(jacobian) / np.sqrt(len(jacobian)))
    return rms, np.log(np.linalg.norm(jacobian, 2))


def test_elman_agrees_with_products_of_jacobians_in_numpy():
    cell, time, rows = rnn.Elman(4), 7, 2
    params, xs = random_params(cell, 3), inputs(time, rows, 3)
    flow = gradient_flow(cell, params, xs)
    W, U, b = map(np.asarray, params)
    assert flow.log_rms.shape == flow.log_largest.shape == (time + 1, rows)
    for row in range(rows):
        h, slopes = np.zeros(4), []
        for x in np.asarray(xs[:, row]):
            h = np.tanh(x @ W + b + h @ U)
            slopes.append(U * (1 - h**2))  # of h' by h, rows are h
        jacobian = np.eye(4)
        for lag in range(time + 1):
            expected = log_sizes(jacobian)
            found = flow.log_rms[lag, row], flow.log_largest[lag, row]
            np.testing.assert_allclose(found, expected, atol=1e-12)
            if lag < time:
                jacobian = slopes[time - 1 - lag] @ jacobian


def test_lstm_agrees_with_finite_differences():
    cell, time = rnn.LSTM(3), 5
    params, xs = random_params(cell, 2), inputs(time, 2)
    flow = gradient_flow(cell, params, xs)
    _, states = rnn.unroll(rnn.wrappers.EmitState(cell), params, xs)

    def last(vector, after):  # the final state, from the state after so many steps
        state = rnn.LSTMState(*jnp.split(vector, 2))
        return np.concatenate(rnn.unroll(cell, params, xs[after:], state)[0])

    for after in range(1, time):
        vector = np.concatenate([states.hidden[after - 1], states.cell[after - 1]])
        step = 1e-6 * np.eye(6)
        differences = [(last(vector + d, after) - last(vector - d, after)) / 2e-6 for d in step]
        expected, lag = log_sizes(np.array(differences)), time - after
        np.testing.assert_allclose(flow.log_rms[lag], expected[0], atol=1e-7)
        np.testing.assert_allclose(flow.log_largest[lag], expected[1], atol=1e-7)


def test_complex_diagonal_states_decay_by_the_moduli_of_their_eigenvalues():
    cell = rnn.LRU(5)
    params = random_params(cell, 3, scale=0.1)
    flow = gradient_flow(cell, params, inputs(9, 2, 3))
    radius = np.exp(-np.exp(np.asarray(params.log_decay)))
    for lag in range(10):
        rms = np.log(np.mean(radius ** (2 * lag))) / 2
        np.testing.assert_allclose(flow.log_rms[lag], rms, atol=1e-12)
        np.testing.assert_allclose(flow.log_largest[lag], lag * np.log(radius.max()), atol=1e-12)


def test_nothing_underflows_or_overflows():
    cell, time = rnn.Elman(3, activation=linear), 3000
    for factor in (0.5, 3.0):
        params = rnn.cells.ElmanParams(jnp.ones((1, 3)), factor * jnp.eye(3), jnp.zeros(3))
        # No inputs: the state stays zero, where a linear cell's derivative is as anywhere.
        flow = gradient_flow(cell, jax.tree.map(jnp.float32, params), jnp.zeros((time, 1), "f4"))
        assert flow.log_rms.dtype == jnp.float32
        expected = np.log(factor) * np.arange(time + 1)
        np.testing.assert_allclose(flow.log_rms, expected, rtol=1e-4)
        np.testing.assert_allclose(flow.log_largest, expected, rtol=1e-4, atol=1e-6)


def linear(x):
    return x


def test_the_logarithm_of_a_zero_derivative_is_minus_infinity():
    cell = rnn.IRNN(3)
    params = cell.init(jax.random.key(0), 1)._replace(bias=-jnp.ones(3))
    flow = gradient_flow(cell, params, jnp.zeros((4, 1)))
    assert flow.log_rms[0] == 0 and (flow.log_rms[1:] == -np.inf).all()
    assert (flow.log_largest[1:] == -np.inf).all()


def test_probes_estimate_the_square_without_bias():
    cell = rnn.GRU(6)
    params, xs = random_params(cell, 2), inputs(8, 3, 2)
    exact = gradient_flow(cell, params, xs)
    one = jax.vmap(lambda key: gradient_flow(cell, params, xs, probes=4, key=key).log_rms)
    drawn = np.exp(2 * np.asarray(one(jax.random.split(jax.random.key(0), 2000))))
    assert drawn[:, 3].std(0).min() > 0
    error = drawn.mean(0) - np.exp(2 * np.asarray(exact.log_rms))
    np.testing.assert_allclose(error[0], 0, atol=1e-12)
    assert np.abs(error[1:] / (drawn.std(0)[1:] / np.sqrt(2000))).max() < 5
    few = gradient_flow(cell, params, xs, probes=2, key=jax.random.key(0))
    assert few.log_largest is None and few.log_rms.shape == (9, 3)


class Counted(NamedTuple):
    steps: jax.Array
    level: jax.Array


def test_integer_leaves_are_excluded_and_inputs_may_be_pytrees():
    def leaky(rate, state, x):
        level = rate * state.level + jnp.where(state.steps[..., None] < 2, x["in"], 0)
        return Counted(state.steps + 1, level), level

    def zeros(rate, batch):
        return Counted(jnp.zeros(batch, jnp.int32), jnp.zeros((*batch, 2)))

    cell, rate = rnn.from_step(leaky, init_state=zeros), jnp.array([0.5, 0.25])
    state = Counted(jnp.ones((2, 1), jnp.int32), inputs(2, 1, 2))
    flow = gradient_flow(cell, rate, {"in": inputs(6, 2, 1, 2)}, state)
    expected = [log_sizes(np.diag(np.asarray(rate) ** lag)) for lag in range(7)]
    np.testing.assert_allclose(flow.log_rms[:, 1, 0], [e[0] for e in expected], atol=1e-12)
    np.testing.assert_allclose(flow.log_largest[:, 0, 0], [e[1] for e in expected], atol=1e-12)


def test_the_initial_state_is_used():
    cell = rnn.Elman(3)
    params, xs = random_params(cell, 2), inputs(4, 2)
    state = rnn.ElmanState(inputs(3, seed=5))
    flow = gradient_flow(cell, params, xs, state)
    jacobian = jax.jacobian(lambda h: rnn.unroll(cell, params, xs, rnn.ElmanState(h))[0].hidden)
    expected = log_sizes(np.asarray(jacobian(state.hidden)))
    np.testing.assert_allclose(flow.log_rms[4], expected[0], atol=1e-12)
    np.testing.assert_allclose(flow.log_largest[4], expected[1], atol=1e-12)
    assert not np.allclose(gradient_flow(cell, params, xs).log_rms[4], flow.log_rms[4])


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (dict(cell=rnn.Elman), TypeError, "cell must be an instance, got the class Elman"),
        (dict(probes=0, key=0), ValueError, "probes must be a positive int, got 0"),
        (dict(probes=3), ValueError, "probes and key go together: got probes=3 and no key"),
        (dict(key=jax.random.key(0)), ValueError, "got probes=None and a key"),
        (dict(probes=3, key=0), TypeError, "key must be one JAX random key"),
        (dict(xs=np.zeros(3)), ValueError, r"xs must have shape \[time, \*batch, features\]"),
        (dict(xs=np.zeros((3, 2), "f4")), TypeError, "must share one floating-point dtype"),
        (dict(xs=np.zeros((3, 5))), ValueError, "params"),
        (dict(state=3), TypeError, "state must"),
        (dict(cell=rnn.from_step(lambda p, s, x: (s, x), init_state=lambda p, b: jnp.zeros(b, int)))
         , ValueError, "state of FunctionCell must hold floating-point numbers"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changes, kind, message):
    cell = rnn.Elman(3)
    arguments = dict(cell=cell, params=cell.init(jax.random.key(0), 2), xs=np.zeros((3, 2)))
    with pytest.raises(kind, match=message):
        gradient_flow(**(arguments | changes))
