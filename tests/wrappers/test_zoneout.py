"""Zoneout: what is held, how often, its expectation, and what is given out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.wrappers import EmitState, Residual, Zoneout
from tests.support import sequence_loop
from tests.support.drawing import assert_drawn_apart, assert_rate, draw
from tests.support.helpers import assert_near
from tests.support.numpy_cells import LSTM

KEY = jax.random.key(3)
RATES = rnn.LSTMState(hidden=0.2, cell=0.6)
CELL = Zoneout(rnn.LSTM(5), RATES)


def test_each_part_of_the_state_is_held_at_its_own_rate():
    params, state, xs = draw(CELL)

    @jax.jit
    def run(params, state, xs):
        _, states = rnn.unroll(EmitState(CELL), params, xs, state, key=KEY)
        final, ys = rnn.unroll(CELL, params, xs, state, key=KEY)
        before = jax.tree.map(lambda s, ss: jnp.concatenate([s[None], ss[:-1]]), state, states)
        undisturbed, _ = jax.vmap(CELL.cell.step, (None, 0, 0))(params, before, xs)
        return before, states, undisturbed, final, ys

    before, states, undisturbed, final, ys = run(params, state, xs)
    for old, got, new, rate in zip(before, states, undisturbed, RATES, strict=True):
        held = np.asarray(old == got)
        np.testing.assert_allclose(got, np.where(held, old, new), rtol=0, atol=1e-12)
        assert_rate(held, rate)
        assert_drawn_apart(held)
    assert_near(final, jax.tree.map(lambda s: s[-1], states), 0.0)
    assert_near(ys, states.hidden, 0.0)


def expected(p, s, x):
    """The LSTM of which a part is held, in expectation."""
    new, _ = LSTM.step(p, s, x)
    h = 0.2 * s.hidden + 0.8 * new.hidden
    return rnn.LSTMState(h, 0.6 * s.cell + 0.4 * new.cell), h


def test_without_a_key_it_is_the_expectation():
    params, state, xs = draw(CELL, time=6)
    mask, starts = np.random.default_rng(0).integers(0, 2, size=(2, 6, 4)).astype(bool)
    poisoned = np.where(mask[..., None], xs, np.nan)
    got = rnn.unroll(CELL, params, poisoned, state, mask=mask, starts=starts)
    oracle = LSTM._replace(step=expected)
    assert_near(got, sequence_loop.run(oracle, params, xs, state, mask, starts), 1e-12)


def test_a_start_preserves_nothing_of_the_past():
    params, state, xs = draw(CELL, time=6)
    starts = np.zeros((6, 4), bool)
    starts[2] = True

    def run(state):
        return rnn.unroll(CELL, params, xs, state, starts=starts, key=KEY)[1]

    one, other = jax.jit(run)(state), jax.jit(run)(CELL.init_state(params, (4,)))
    assert (one[:2] != other[:2]).any()
    np.testing.assert_array_equal(one[2:], other[2:])


def test_a_counter_is_not_held():
    def step(p, state, x):
        h, count = state
        h = jnp.tanh(h + x)
        return (h, count + 1), h

    cell = Zoneout(
        rnn.from_step(step, init_state=lambda p, b: (jnp.zeros((*b, 3)), jnp.zeros(b, "int32"))),
        rate=0.9,
    )
    xs = np.random.default_rng(0).normal(size=(7, 20, 3))
    expected = np.zeros((20, 3))
    for x in xs:
        expected = 0.9 * expected + 0.1 * np.tanh(expected + x)
    (h, count), _ = rnn.unroll(cell, (), xs)
    assert (count == 7).all()
    np.testing.assert_allclose(h, expected, atol=1e-12)
    (_, count), after = rnn.unroll(cell, (), xs, key=KEY)
    assert (count == 7).all()
    before = np.concatenate([np.zeros((1, 20, 3)), after[:-1]])
    held = after == before
    np.testing.assert_allclose(after, np.where(held, before, np.tanh(before + xs)), atol=1e-12)
    assert_rate(held, 0.9)


def test_an_affine_cell_gives_out_its_readout_of_the_held_state():
    cell = Zoneout(rnn.LRU(4), 0.3)
    params, state, xs = draw(cell, time=1)
    for key in (None, KEY):
        new, y = cell.step(params, state, xs[0], key=key)
        assert_near(y, cell.cell.readout(params, new, xs[0]), 1e-12)
    assert not np.allclose(y, cell.cell.step(params, state, xs[0])[1])


def test_rate_zero_and_low_precision():
    cell = Zoneout(rnn.GRU(3), 0)
    params, state, xs = draw(cell, time=4)
    assert not cell.stochastic
    assert_near(
        rnn.unroll(cell, params, xs, state, key=KEY), rnn.unroll(cell.cell, params, xs, state), 0.0
    )
    cell = Zoneout(rnn.LSTM(3), 0.5)
    params = cell.init(KEY, 2, "bfloat16")
    final, ys = rnn.unroll(cell, params, jnp.ones((4, 2), "bfloat16"), key=KEY)
    assert (final.cell.dtype, ys.dtype) == ("float32", "bfloat16")
    np.testing.assert_array_equal(ys[-1], final.hidden.astype("bfloat16"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Zoneout(rnn.LSTM, 0.1), "cell must be an instance, got the class"),
        (lambda: Zoneout(rnn.LSTM(3), 1.0), r"rate is the probability .* \[0, 1\), got 1.0"),
        (lambda: Zoneout(rnn.LSTM(3), rnn.LSTMState(0.1, -1)), r"rate\.cell is .* got -1"),
        (lambda: Zoneout(rnn.LSTM(3), None), "rate must be a Python number"),
        (lambda: Zoneout(rnn.LSTM(3), np.float32(0.1)), "rate must be a Python number"),
        (lambda: run_once(Zoneout(rnn.GRU(3), RATES)), "rate must be a number, or have the str"),
        (
            lambda: run_once(Zoneout(Residual(rnn.GRU(3)), 0.1)),
            r"Residual\(Zoneout\(cell, rate\)\)",
        ),
    ],
)
def test_errors_name_the_argument(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bad()


def run_once(cell):
    return rnn.unroll(cell, cell.init(KEY, 3), np.ones((1, 3)))
