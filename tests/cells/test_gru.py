import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

AFTER, BEFORE = Case(rnn.GRU(4)), Case(rnn.ResetBeforeGRU(4))


def parts(p, s, x):
    """What input and state add to each of the gates r, z, n."""
    blocks = [slice(4 * k, 4 * k + 4) for k in range(3)]
    from_input = [x @ p.input_kernel[:, block] + p.bias[block] for block in blocks]
    kernels = [p.recurrent_kernel[:, block] for block in blocks]
    return from_input, kernels


def test_follows_cudnn():
    def step(p, s, x):
        (x_r, x_z, x_n), (u_r, u_z, u_n) = parts(p, s, x)
        r = sigmoid(x_r + s.hidden @ u_r)
        z = sigmoid(x_z + s.hidden @ u_z)
        n = np.tanh(x_n + r * (s.hidden @ u_n + p.candidate_bias))
        h = (1 - z) * n + z * s.hidden
        return [h], h

    assert_follows(AFTER, step)


def test_reset_before_follows_the_paper():
    def step(p, s, x):
        (x_r, x_z, x_n), (u_r, u_z, u_n) = parts(p, s, x)
        r = sigmoid(x_r + s.hidden @ u_r)
        z = sigmoid(x_z + s.hidden @ u_z)
        n = np.tanh(x_n + (r * s.hidden) @ u_n)
        h = z * s.hidden + (1 - z) * n
        return [h], h

    assert_follows(BEFORE, step)


def test_the_two_are_one_where_nothing_is_reset():
    """r = 1 makes the reset gate harmless, before the product and after it."""
    params, state, xs = (
        random_params(AFTER),
        random_state(AFTER, (2,)),
        random_inputs(AFTER, (5, 2)),
    )
    open_ = params._replace(bias=params.bias.at[:4].set(1e3))
    joined = rnn.cells.ResetBeforeGRUParams(*open_[:3])
    joined = joined._replace(bias=joined.bias.at[8:].add(params.candidate_bias))
    want = rnn.unroll(BEFORE.cell, joined, xs, state)
    assert_near(rnn.unroll(AFTER.cell, open_, xs, state), want, 1e-12)
    assert np.ptp(want[1]) > 0.1


def test_chrono_sees_all_gates_and_leaves_the_inner_bias_alone():
    cell = rnn.GRU(64, bias_init=rnn.initializers.Chrono(100, input_gate=None))
    params = cell.init(jax.random.key(0), 3, "float64")
    lags = np.exp(params.bias[64:128])
    assert lags.min() >= 1 and lags.max() <= 99 and np.ptp(lags) > 50
    assert (params.bias[:64] == 0).all() and (params.bias[128:] == 0).all()
    assert (params.candidate_bias == jnp.zeros(64)).all()
