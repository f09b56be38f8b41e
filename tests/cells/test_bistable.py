import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

DIAGONAL, DENSE = Case(rnn.BRC(4)), Case(rnn.NBRC(4))


def test_brc_follows_the_paper():
    def step(p, s, x):
        h = np.zeros(4)
        for i in range(4):
            u_a, u_c, u = (p.input_kernel[:, 4 * k + i] for k in range(3))
            w_a, w_c = p.recurrent_kernel[i], p.recurrent_kernel[4 + i]
            a = 1 + np.tanh(u_a @ x + w_a * s.hidden[i] + p.bias[i])
            c = sigmoid(u_c @ x + w_c * s.hidden[i] + p.bias[4 + i])
            h[i] = c * s.hidden[i] + (1 - c) * np.tanh(u @ x + a * s.hidden[i])
        return [h], h

    assert_follows(DIAGONAL, step)


def test_nbrc_follows_the_paper():
    def step(p, s, x):
        u_a, u_c, u = (p.input_kernel[:, 4 * k : 4 * k + 4] for k in range(3))
        a = 1 + np.tanh(x @ u_a + s.hidden @ p.recurrent_kernel[:, :4] + p.bias[:4])
        c = sigmoid(x @ u_c + s.hidden @ p.recurrent_kernel[:, 4:] + p.bias[4:])
        h = c * s.hidden + (1 - c) * np.tanh(x @ u + a * s.hidden)
        return [h], h

    assert_follows(DENSE, step)


def test_nbrc_with_diagonal_kernels_is_brc():
    params, xs = random_params(DIAGONAL), random_inputs(DIAGONAL, (5, 2))
    diagonals = [jnp.diag(w) for w in jnp.split(params.recurrent_kernel, 2)]
    dense = rnn.cells.NBRCParams(
        params.input_kernel, jnp.concatenate(diagonals, axis=-1), params.bias
    )
    want = rnn.unroll(rnn.BRC(4), params, xs)
    assert_near(rnn.unroll(rnn.NBRC(4), dense, xs), want, 1e-12)


def test_brc_has_a_diagonal_jacobian():
    params, state, x = (
        random_params(DIAGONAL),
        random_state(DIAGONAL, ()),
        random_inputs(DIAGONAL, ()),
    )
    step = jax.jacobian(lambda h: rnn.BRC(4).step(params, rnn.GRUState(h), x)[1])
    jacobian = step(state.hidden)
    assert (jnp.diag(jacobian) != 0).all()
    assert_near(jacobian, np.diag(np.diag(jacobian)), 1e-12)


@pytest.mark.parametrize(("feedback", "holds"), [(0.5, True), (-0.5, False)])
def test_units_hold_one_of_two_values_when_their_feedback_is_above_one(feedback, holds):
    a = 1 + np.tanh(feedback)
    params = rnn.cells.BRCParams(jnp.zeros((3, 3)), jnp.zeros(2), jnp.array([feedback, 0.0]))
    start = rnn.GRUState(jnp.array([[0.01], [-0.01]]))
    final, _ = rnn.unroll(rnn.BRC(1), params, jnp.zeros((400, 2, 3)), start)
    up, down = final.hidden[:, 0]
    assert_near(up, -down, 1e-12)
    assert_near(jnp.tanh(a * up), up, 1e-6)  # a fixed point of the cell
    assert (up > 0.5) if holds else (abs(up) < 1e-6)
