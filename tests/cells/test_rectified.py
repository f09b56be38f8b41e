import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.activations import relu
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows


def test_irnn_follows_the_paper():
    def step(p, s, x):
        h = np.maximum(0, x @ p.input_kernel + s.hidden @ p.recurrent_kernel + p.bias)
        return [h], h

    assert_follows(Case(rnn.IRNN(4)), step)


def test_irnn_is_elman_with_the_identity():
    cell = rnn.IRNN(64, scale=0.5)
    params = cell.init(jax.random.key(0), 50, "float64")
    assert (params.recurrent_kernel == 0.5 * jnp.eye(64)).all() and (params.bias == 0).all()
    np.testing.assert_allclose(params.input_kernel.std(), 0.001, rtol=0.05)
    xs = jax.random.normal(jax.random.key(1), (4, 2, 50))
    got, want = (rnn.unroll(c, params, xs)[1] for c in (cell, rnn.Elman(64, activation=relu)))
    assert_near(got, want, 1e-12)


def test_irnn_at_rest_hands_the_gradient_back_unchanged():
    cell = rnn.IRNN(4)
    params = cell.init(jax.random.key(0), 3, "float64")
    state = rnn.ElmanState(jnp.array([1.0, 2.0, 3.0, 4.0]))

    def last(state):
        return rnn.unroll(cell, params, jnp.zeros((100, 3)), state)[0].hidden

    assert_near(jax.jacobian(last)(state).hidden, np.eye(4), 1e-12)


def test_indrnn_follows_the_paper():
    def step(p, s, x):
        h = np.zeros(4)
        for n in range(4):
            z = p.input_kernel[:, n] @ x + p.recurrent_kernel[n] * s.hidden[n] + p.bias[n]
            h[n] = max(0.0, z)
        return [h], h

    assert_follows(Case(rnn.IndRNN(4)), step)


@pytest.mark.parametrize("activation", [relu, jnp.tanh])
def test_indrnn_is_elman_with_a_diagonal_kernel(activation):
    case = Case(rnn.IndRNN(4, activation))
    params, xs = random_params(case), random_inputs(case, (5, 2))
    diagonal = rnn.cells.ElmanParams(
        params.input_kernel, jnp.diag(params.recurrent_kernel), params.bias
    )
    _, want = rnn.unroll(rnn.Elman(4, activation), diagonal, xs)
    assert_near(rnn.unroll(case.cell, params, xs)[1], want, 1e-12)


def test_indrnn_has_a_diagonal_jacobian():
    case = Case(rnn.IndRNN(4, jnp.tanh))
    params, state, x = random_params(case), random_state(case, ()), random_inputs(case, ())
    jacobian = jax.jacobian(lambda h: case.cell.step(params, rnn.ElmanState(h), x)[1])(state.hidden)
    assert (jnp.diag(jacobian) != 0).all()
    assert_near(jacobian, np.diag(np.diag(jacobian)), 1e-12)


def test_indrnn_constrained_does_not_amplify_beyond_two():
    case = Case(rnn.IndRNN(4))
    wild = random_params(case)._replace(recurrent_kernel=jnp.array([-3.0, -0.5, 0.7, 2.0]))
    params = case.cell.constrain(wild, length=20)
    assert (params.recurrent_kernel[1:3] == wild.recurrent_kernel[1:3]).all()
    np.testing.assert_allclose(jnp.abs(params.recurrent_kernel[jnp.array([0, 3])]) ** 20, 2.0)
    with pytest.raises(ValueError, match="length must be a positive int"):
        case.cell.constrain(params, 0)
