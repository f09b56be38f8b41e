import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

PLAIN = Case(rnn.AntisymmetricRNN(4, step_size=0.3, diffusion=0.2))
GATED = Case(rnn.AntisymmetricRNN(4, gated=True, step_size=0.3, diffusion=0.2))


def test_follows_the_paper():
    def step(p, s, x):
        w = p.recurrent_kernel.T  # of columns, as in the paper
        m = w - w.T - 0.2 * np.eye(4)
        h = s.hidden + 0.3 * np.tanh(m @ s.hidden + p.input_kernel.T @ x + p.bias)
        return [h], h

    assert_follows(PLAIN, step)


def test_gated_follows_the_paper():
    def step(p, s, x):
        w = p.recurrent_kernel.T
        at = (w - w.T - 0.2 * np.eye(4)) @ s.hidden
        z = sigmoid(at + p.input_kernel[:, :4].T @ x + p.bias[:4])
        n = np.tanh(at + p.input_kernel[:, 4:].T @ x + p.bias[4:])
        h = s.hidden + 0.3 * z * n
        return [h], h

    assert_follows(GATED, step)


def test_an_open_gate_is_no_gate():
    p, state, xs = random_params(GATED), random_state(GATED, (2,)), random_inputs(GATED, (5, 2))
    plain = p._replace(input_kernel=p.input_kernel[:, 4:], bias=p.bias[4:])
    open_ = p._replace(bias=p.bias.at[:4].set(60.0))
    want = rnn.unroll(PLAIN.cell, plain, xs, state)
    assert_near(rnn.unroll(GATED.cell, open_, xs, state), want, 1e-12)


@pytest.mark.parametrize("diffusion", [0.0, 0.2])
def test_eigenvalues_have_the_real_part_of_the_diffusion(diffusion):
    matrix = rnn.AntisymmetricRNN(4, diffusion=diffusion).recurrent_matrix(random_params(PLAIN))
    eigenvalues = np.linalg.eigvals(matrix)
    np.testing.assert_allclose(eigenvalues.real, -diffusion, atol=1e-14)
    assert np.abs(eigenvalues.imag).min() > 0.01


def test_jacobian_of_the_equation_is_the_matrix_at_the_origin():
    """Without input and bias, a step from h = 0 moves by ε M to first order."""
    p = jax.tree.map(jnp.zeros_like, random_params(PLAIN))
    p = p._replace(recurrent_kernel=random_params(PLAIN).recurrent_kernel)

    def step(h):
        return PLAIN.cell.step(p, rnn.cells.AntisymmetricRNNState(h), jnp.zeros(3))[1]

    jacobian = jax.jacfwd(step)(jnp.zeros(4))
    assert_near(jacobian.T, np.eye(4) + 0.3 * np.asarray(PLAIN.cell.recurrent_matrix(p)), 1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="step_size must be a positive number, got 0"):
        rnn.AntisymmetricRNN(4, step_size=0)
    with pytest.raises(ValueError, match="diffusion must be a positive number, got -1"):
        rnn.AntisymmetricRNN(4, diffusion=-1.0)
    with pytest.raises(TypeError, match="step_size must be a positive number, got 'small'"):
        rnn.AntisymmetricRNN(4, step_size="small")
