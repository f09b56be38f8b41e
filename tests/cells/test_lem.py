import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

CASE = Case(rnn.LEM(4, time_step=0.6))


def test_follows_the_paper():
    def step(p, s, x):
        V, W, b = (np.split(a, 4, axis=-1) for a in p)
        y, z = s
        delta = 0.6 * sigmoid(y @ W[0] + x @ V[0] + b[0])
        delta_bar = 0.6 * sigmoid(y @ W[1] + x @ V[1] + b[1])
        z = (1 - delta) * z + delta * np.tanh(y @ W[2] + x @ V[2] + b[2])
        y = (1 - delta_bar) * y + delta_bar * np.tanh(z @ W[3] + x @ V[3] + b[3])
        return [y, z], y

    assert_follows(CASE, step)


def test_states_stay_between_one_and_minus_one():
    p, xs = random_params(CASE), 10 * random_inputs(CASE, (40, 2))
    final, ys = rnn.unroll(rnn.LEM(4), p, xs)
    assert np.abs(ys).max() <= 1 and np.abs(final.memory).max() <= 1
    assert np.abs(ys).max() > 0.5


def test_closed_time_steps_hold_the_state():
    p, state = random_params(CASE), random_state(CASE, (2,))
    slow = p._replace(input_kernel=p.input_kernel.at[:, :8].set(0.0))
    slow = slow._replace(recurrent_kernel=slow.recurrent_kernel.at[:, :8].set(0.0))
    slow = slow._replace(bias=p.bias.at[:8].set(-60.0))
    final, _ = rnn.unroll(CASE.cell, slow, random_inputs(CASE, (30, 2)), state)
    assert_near(final, state, 1e-12)


def test_the_hidden_state_reads_the_new_memory():
    """With both time steps wide open, one step is a network of two layers, from any state."""
    p = random_params(CASE)._replace(bias=jnp.concatenate([jnp.full(8, 60.0), jnp.ones(8)]))
    p = p._replace(
        input_kernel=p.input_kernel.at[:, :8].set(0.0),
        recurrent_kernel=p.recurrent_kernel.at[:, :12].set(0.0),
    )
    x = random_inputs(CASE, (2,))
    got, _ = rnn.LEM(4).step(p, random_state(CASE, (2,)), x)
    z = np.tanh(x @ p.input_kernel[:, 8:12] + 1)
    y = np.tanh(x @ p.input_kernel[:, 12:] + 1 + z @ p.recurrent_kernel[:, 12:])
    assert_near(got, rnn.cells.LEMState(y, z), 1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="time_step must be a positive number"):
        rnn.LEM(4, time_step=0.0)
