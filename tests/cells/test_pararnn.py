import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

GRU = Case(rnn.ParaGRU(4))
LSTM = Case(rnn.ParaLSTM(4))


def thirds(a):
    return a[..., :4], a[..., 4:8], a[..., 8:]


def dense(recurrent):
    """The kernel of a dense cell: each gate's diagonal in its block."""
    return jnp.concatenate([jnp.diag(a) for a in thirds(recurrent)], axis=-1)


def test_gru_follows_the_authors():
    def step(p, s, x):
        h, new = s.hidden, np.zeros(4)
        (b_r, b_z, b_n), (a_r, a_z, a_n) = thirds(p.bias), thirds(p.recurrent_kernel)
        k_r, k_z, k_n = thirds(p.input_kernel)
        for k in range(4):
            r = sigmoid(a_r[k] * h[k] + x @ k_r[:, k] + b_r[k])
            z = sigmoid(a_z[k] * h[k] + x @ k_z[:, k] + b_z[k])
            n = np.tanh(a_n[k] * (h[k] * r) + x @ k_n[:, k] + b_n[k])
            new[k] = (1 - z) * h[k] + z * n
        return [new], new

    assert_follows(GRU, step)


def test_lstm_follows_the_authors():
    def step(p, s, x):
        h, c = s
        (b_f, b_g, b_o), (a_f, a_g, a_o) = thirds(p.bias), thirds(p.recurrent_kernel)
        k_f, k_g, k_o = thirds(p.input_kernel)
        f = sigmoid(a_f * h + k_f.T @ x + p.peephole_kernel[:4] * c + b_f)
        c = f * c + (1 - f) * np.tanh(a_g * h + k_g.T @ x + b_g)
        o = sigmoid(a_o * h + k_o.T @ x + p.peephole_kernel[4:] * c + b_o)
        h = o * np.tanh(c)
        return [h, c], h

    assert_follows(LSTM, step)


def test_gru_is_a_dense_one_with_diagonal_kernels_and_its_gate_turned():
    """z writes here and keeps there: σ(-a) = 1 - σ(a)."""
    p, state, xs = random_params(GRU), random_state(GRU, (2,)), random_inputs(GRU, (5, 2))
    sign = jnp.repeat(jnp.array([1.0, -1.0, 1.0]), 4)
    turned = (p.input_kernel * sign, dense(p.recurrent_kernel * sign), p.bias * sign)
    want = rnn.unroll(rnn.ResetBeforeGRU(4), rnn.cells.ResetBeforeGRUParams(*turned), xs, state)
    assert_near(rnn.unroll(GRU.cell, p, xs, state), want, 1e-12)


def test_lstm_without_peepholes_is_a_coupled_one_with_diagonal_kernels():
    p, state, xs = random_params(LSTM), random_state(LSTM, (2,)), random_inputs(LSTM, (5, 2))
    p = p._replace(peephole_kernel=jnp.zeros(8))
    coupled = rnn.cells.CoupledLSTMParams(p.input_kernel, dense(p.recurrent_kernel), p.bias)
    want = rnn.unroll(rnn.CoupledLSTM(4), coupled, xs, state)
    assert_near(rnn.unroll(LSTM.cell, p, xs, state), want, 1e-12)


def test_jacobian_of_the_gru_is_diagonal():
    p, x, state = random_params(GRU), random_inputs(GRU, ()), random_state(GRU, ())
    jacobian = jax.jacfwd(lambda h: GRU.cell.step(p, rnn.GRUState(h), x)[1])(state.hidden)
    diagonal = np.diagonal(jacobian)
    np.testing.assert_array_equal(jacobian, np.diag(diagonal))
    assert np.abs(diagonal).min() > 0.01


def test_jacobian_of_the_lstm_is_a_block_a_unit():
    p, x = random_params(LSTM), random_inputs(LSTM, ())

    def step(both):
        return jnp.stack(LSTM.cell.step(p, rnn.LSTMState(*both), x)[0])

    jacobian = jax.jacfwd(step)(jnp.stack(random_state(LSTM, ())))  # [2, unit, 2, unit]
    blocks = np.einsum("ikjk->kij", jacobian)
    np.testing.assert_array_equal(jacobian, np.einsum("kij,kl->ikjl", blocks, np.eye(4)))
    assert np.abs(blocks).min() > 1e-4  # full: h and c move h and c
