import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows

PERIODS = (4, 1, 2)  # in no order
CASE = Case(rnn.ClockworkRNN(6, PERIODS))
MODULES = [slice(2 * i, 2 * i + 2) for i in range(3)]


def test_follows_the_paper():
    def step(p, s, x):
        h = s.hidden.copy()
        for own, period in zip(MODULES, PERIODS, strict=True):
            if s.time % period == 0:
                z = x @ p.input_kernel[:, own] + p.bias[own]
                for other, slower in zip(MODULES, PERIODS, strict=True):
                    if slower >= period:
                        z = z + s.hidden[other] @ p.recurrent_kernel[other, own]
                h[own] = np.tanh(z)
        return [h, s.time + 1], h

    assert_follows(CASE, step, time=9)


def test_with_all_periods_one_it_is_elman():
    case = Case(rnn.ClockworkRNN(4, (1, 1)))
    params, xs = random_params(case), random_inputs(case, (5, 2))
    _, want = rnn.unroll(rnn.Elman(4), rnn.cells.ElmanParams(*params), xs)
    assert_near(rnn.unroll(case.cell, params, xs)[1], want, 1e-12)


def test_slow_modules_do_not_hear_fast_ones():
    params, state, x = random_params(CASE), random_state(CASE, ()), random_inputs(CASE, ())

    def step(params, h):
        return CASE.cell.step(params, state._replace(hidden=h), x)[1]

    by_params, by_state = jax.jacobian(step, argnums=(0, 1))(params, state.hidden)
    for to, period in zip(MODULES, PERIODS, strict=True):
        for source, other in zip(MODULES, PERIODS, strict=True):
            heard = other >= period
            assert (by_state[to, source] != 0).all() == heard
            assert (by_params.recurrent_kernel[:, source, to] != 0).any() == heard


def test_closed_blocks_start_at_zero():
    kernel = CASE.cell.init(jax.random.key(0), 3).recurrent_kernel
    heard = np.array(PERIODS)[:, None] >= np.array(PERIODS)
    assert ((kernel != 0) == np.kron(heard, np.ones((2, 2), bool))).all()


def test_a_start_sets_back_the_clock_of_its_row_alone():
    params, xs = random_params(CASE), random_inputs(CASE, (7, 2))
    starts = jnp.zeros((7, 2), bool).at[3, 1].set(True)
    final, ys = rnn.unroll(CASE.cell, params, xs, starts=starts)
    assert final.time.tolist() == [7, 4]
    assert_near(ys[:, 0], rnn.unroll(CASE.cell, params, xs[:, 0])[1], 1e-12)
    assert_near(ys[3:, 1], rnn.unroll(CASE.cell, params, xs[3:, 1])[1], 1e-12)


def test_wrong_arguments_are_named():
    assert rnn.ClockworkRNN(4, [1, 2]) == rnn.ClockworkRNN(4, (1, 2))
    with pytest.raises(ValueError, match="hidden_size must be a multiple of the number of periods"):
        rnn.ClockworkRNN(5, (1, 2))
    with pytest.raises(ValueError, match="every period must be a positive int"):
        rnn.ClockworkRNN(4, (1, 0))
    with pytest.raises(ValueError, match="number of periods"):
        rnn.ClockworkRNN(4, ())
