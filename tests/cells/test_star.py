import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

CASE = Case(rnn.STAR(4))


def test_follows_the_paper():
    def step(p, s, x):
        k = sigmoid(x @ p.input_kernel[:, :4] + s.hidden @ p.recurrent_kernel + p.bias[:4])
        z = np.tanh(x @ p.input_kernel[:, 4:] + p.bias[4:])
        h = np.tanh(s.hidden + k * (z - s.hidden))
        return [h], h

    assert_follows(CASE, step)


@pytest.mark.parametrize(("bias", "sees"), [(50.0, "input"), (-50.0, "state")])
def test_gate_chooses_between_input_and_state(bias, sees):
    params, state, x = random_params(CASE), random_state(CASE, ()), random_inputs(CASE, ())
    params = params._replace(bias=params.bias.at[:4].set(bias))

    def step(h, x):
        return CASE.cell.step(params, rnn.GRUState(h), x)[1]

    by_state, by_input = jax.jacobian(step, argnums=(0, 1))(state.hidden, x)
    rest, moved = (by_state, by_input) if sees == "input" else (by_input, by_state)
    assert_near(rest, np.zeros(rest.shape), 1e-12)
    assert jnp.linalg.norm(moved) > 0.1


def test_kernels_start_orthogonal_and_the_gate_near_closed():
    params = CASE.cell.init(jax.random.key(0), 3, "float64")
    for kernel in (params.input_kernel[:, :4], params.input_kernel[:, 4:]):
        assert_near(kernel @ kernel.T, np.eye(3), 1e-12)
    assert_near(params.recurrent_kernel @ params.recurrent_kernel.T, np.eye(4), 1e-12)
    assert params.bias.tolist() == [-1.0] * 4 + [0.0] * 4
