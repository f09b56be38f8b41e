import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

COUPLED = Case(rnn.CoRNN(4, time_step=0.3, frequency=1.7, damping=0.6))
INDEPENDENT = Case(rnn.UnICORNN(4, time_step=0.7, alpha=1.3))
State = rnn.cells.OscillatorState


def test_coupled_follows_the_paper():
    def step(p, s, x):
        of_y, of_z = p.recurrent_kernel[:4], p.recurrent_kernel[4:]
        force = np.tanh(s.hidden @ of_y + s.velocity @ of_z + x @ p.input_kernel + p.bias)
        z = s.velocity + 0.3 * force - 0.3 * 1.7 * s.hidden - 0.3 * 0.6 * s.velocity
        y = s.hidden + 0.3 * z
        return [y, z], y

    assert_follows(COUPLED, step)


def test_independent_follows_the_paper():
    def step(p, s, x):
        y, z = np.zeros(4), np.zeros(4)
        for k in range(4):
            d = 0.7 * sigmoid(p.control[k])
            at = p.recurrent_kernel[k] * s.hidden[k] + x @ p.input_kernel[:, k] + p.bias[k]
            z[k] = s.velocity[k] - d * (np.tanh(at) + 1.3 * s.hidden[k])
            y[k] = s.hidden[k] + d * z[k]
        return [y, z], y

    assert_follows(INDEPENDENT, step)


def test_independent_is_coupled_without_coupling_and_damping():
    """For c = 0 half the time step is taken, and the force has the other sign: tanh is odd."""
    p, state = random_params(INDEPENDENT), random_state(INDEPENDENT, (2,))
    p, xs = p._replace(control=jnp.zeros(4)), random_inputs(INDEPENDENT, (6, 2))
    diagonal = jnp.concatenate([jnp.diag(-p.recurrent_kernel), jnp.zeros((4, 4))])
    coupled = rnn.cells.CoRNNParams(-p.input_kernel, diagonal, -p.bias)
    cell = rnn.CoRNN(4, time_step=0.35, frequency=1.3, damping=1e-30)
    want = rnn.unroll(INDEPENDENT.cell, p, xs, state)
    assert_near(rnn.unroll(cell, coupled, xs, state), want, 1e-12)


def test_jacobian_is_a_block_a_unit_of_determinant_one():
    p, x = random_params(INDEPENDENT), random_inputs(INDEPENDENT, ())

    def step(both):
        return jnp.stack(INDEPENDENT.cell.step(p, State(*both), x)[0])

    jacobian = jax.jacfwd(step)(jnp.stack(random_state(INDEPENDENT, ())))  # [2, unit, 2, unit]
    blocks = np.einsum("ikjk->kij", jacobian)
    rest = np.asarray(jacobian) - np.einsum("kij,kl->ikjl", blocks, np.eye(4))
    np.testing.assert_array_equal(rest, 0)
    np.testing.assert_allclose(np.linalg.det(blocks), 1, atol=1e-14)
    assert np.abs(blocks - np.eye(2)).min(axis=0).max() > 0.01


def test_a_step_can_be_undone():
    p, x = jax.tree.map(np.asarray, random_params(INDEPENDENT)), random_inputs(INDEPENDENT, (2,))
    before = random_state(INDEPENDENT, (2,))
    (y, z), _ = INDEPENDENT.cell.step(random_params(INDEPENDENT), before, x)
    d = 0.7 * sigmoid(p.control)
    y = y - d * z
    z = z + d * (np.tanh(p.recurrent_kernel * y + x @ p.input_kernel + p.bias) + 1.3 * y)
    assert_near(State(y, z), before, 1e-12)


def test_oscillators_alone_turn_at_their_frequency():
    """Without forcing, a step is the linear map of symplectic Euler: its phase is known."""
    cell = rnn.CoRNN(1, time_step=0.1, frequency=4.0, damping=1e-30)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), 1, "float64"))
    _, ys = rnn.unroll(cell, params, jnp.zeros((200, 1)), State(jnp.ones(1), jnp.zeros(1)))
    step = np.array([[1 - 0.1**2 * 4, 0.1], [-0.1 * 4, 1]])
    want = [(np.linalg.matrix_power(step, t + 1) @ [1, 0])[0] for t in range(200)]
    np.testing.assert_allclose(ys[:, 0], want, atol=1e-12)
    assert np.abs(want[-50:]).max() > 0.9  # undamped


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="frequency must be a positive number, got -1"):
        rnn.CoRNN(4, frequency=-1.0)
    with pytest.raises(ValueError, match="alpha must be a positive number"):
        rnn.UnICORNN(4, alpha=-0.5)
    assert rnn.UnICORNN(4, alpha=0.0).alpha == 0
