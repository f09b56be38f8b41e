import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

LSTM = Case(rnn.LSTM(4))
PEEPHOLE = Case(rnn.PeepholeLSTM(4))
PROJECTED = Case(rnn.ProjectedLSTM(4, projection_size=3))


def gates(p, h, x):
    """What input and state add to each of the gates, by name."""
    blocks = {name: slice(4 * k, 4 * k + 4) for k, name in enumerate("ifgo")}
    return {
        name: x @ p.input_kernel[:, block] + h @ p.recurrent_kernel[:, block] + p.bias[block]
        for name, block in blocks.items()
    }


def test_follows_the_paper():
    def step(p, s, x):
        at = gates(p, s.hidden, x)
        c = sigmoid(at["f"]) * s.cell + sigmoid(at["i"]) * np.tanh(at["g"])
        h = sigmoid(at["o"]) * np.tanh(c)
        return [h, c], h

    assert_follows(LSTM, step)


def test_peepholes_follow_the_paper():
    def step(p, s, x):
        at, (p_i, p_f, p_o) = gates(p, s.hidden, x), np.split(p.peephole_kernel, 3)
        i, f = sigmoid(at["i"] + p_i * s.cell), sigmoid(at["f"] + p_f * s.cell)
        c = f * s.cell + i * np.tanh(at["g"])
        h = sigmoid(at["o"] + p_o * c) * np.tanh(c)  # the new cell state
        return [h, c], h

    assert_follows(PEEPHOLE, step)


def test_projection_follows_the_paper():
    def step(p, s, x):
        at = gates(p, s.hidden, x)
        c = sigmoid(at["f"]) * s.cell + sigmoid(at["i"]) * np.tanh(at["g"])
        h = (sigmoid(at["o"]) * np.tanh(c)) @ p.projection_kernel
        return [h, c], h

    assert_follows(PROJECTED, step)


def test_peepholes_of_zero_give_lstm():
    params, state = random_params(PEEPHOLE), random_state(PEEPHOLE, (2,))
    params, xs = params._replace(peephole_kernel=jnp.zeros(12)), random_inputs(PEEPHOLE, (5, 2))
    want = rnn.unroll(LSTM.cell, rnn.cells.LSTMParams(*params[:3]), xs, state)
    assert_near(rnn.unroll(PEEPHOLE.cell, params, xs, state), want, 1e-12)


def test_a_projection_to_itself_gives_lstm():
    case = Case(rnn.ProjectedLSTM(4, projection_size=4))
    params, state, xs = random_params(case), random_state(case, (2,)), random_inputs(case, (5, 2))
    params = params._replace(projection_kernel=jnp.eye(4))
    want = rnn.unroll(LSTM.cell, rnn.cells.LSTMParams(*params[:3]), xs, state)
    assert_near(rnn.unroll(case.cell, params, xs, state), want, 1e-12)


def test_forget_gate_starts_open():
    """With the bias of the forget gate, and no other, at 1."""
    kinds = rnn.LSTM, rnn.PeepholeLSTM, rnn.MultiplicativeLSTM, rnn.LayerNormLSTM, rnn.SLSTM
    convolutional = rnn.ConvLSTM(2, (1,), (1,))
    for cell in (*(kind(2) for kind in kinds), rnn.ProjectedLSTM(2, 2), convolutional):
        assert cell.init(jax.random.key(0), 3).bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert rnn.CoupledLSTM(2).init(jax.random.key(0), 3).bias.tolist() == [1, 1, 0, 0, 0, 0]
    assert (rnn.LSTM(2, forget_bias=-3.0).init(jax.random.key(0), 3).bias[2:4] == -3).all()


def test_closed_input_and_open_forget_gates_hold_the_cell():
    params, state, xs = random_params(LSTM), random_state(LSTM, (2,)), random_inputs(LSTM, (50, 2))
    bias = params.bias.at[:4].set(-60.0).at[4:8].set(60.0)
    final, _ = rnn.unroll(LSTM.cell, params._replace(bias=bias), xs, state)
    assert_near(final.cell, state.cell, 1e-12)
