import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import TIMED, Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

LTC = Case(rnn.LTC(4, unfolds=3), x=TIMED)
CFC = Case(rnn.CfC(4, backbone_size=6), x=TIMED)


def test_ltc_follows_the_paper():
    def step(p, s, x):
        features, (elapsed,) = x
        v, dt = s.hidden, elapsed / 3
        for _ in range(3):
            f = sigmoid(v @ p.recurrent_kernel + features @ p.input_kernel + p.bias)
            tau = np.exp(p.log_time_constant)
            v = (v + dt * f * p.target) / (1 + dt * (1 / tau + f))
        return [v], v

    assert_follows(LTC, step)


def test_cfc_follows_the_authors():
    def step(p, s, x):
        features, (elapsed,) = x
        at = features @ p.input_kernel + s.hidden @ p.recurrent_kernel + p.bias
        heads = (1.7159 * np.tanh(0.666 * at)) @ p.head_kernel + p.head_bias
        ff1, ff2, t_a, t_b = np.tanh(heads[:4]), np.tanh(heads[4:8]), heads[8:12], heads[12:]
        t = sigmoid(t_a * elapsed + t_b)
        h = ff1 * (1 - t) + t * ff2
        return [h], h

    assert_follows(CFC, step)


@pytest.mark.parametrize("case", [LTC, CFC], ids=str)
def test_an_input_without_times_is_one_step_of_unit_time(case):
    p, (xs, _) = random_params(case), random_inputs(case, (5, 2))
    want = rnn.unroll(case.cell, p, (xs, jnp.ones((5, 2, 1))))
    assert_near(rnn.unroll(case.cell, p, xs), want, 1e-15)


def test_ltc_solves_its_equation_to_first_order():
    p, state, (x, dt) = random_params(LTC), random_state(LTC, ()), random_inputs(LTC, ())
    q, x_, elapsed = jax.tree.map(np.asarray, p), np.asarray(x), float(dt[0])

    def velocity(v):
        f = sigmoid(v @ q.recurrent_kernel + x_ @ q.input_kernel + q.bias)
        return -(np.exp(-q.log_time_constant) + f) * v + f * q.target

    v, delta = np.asarray(state.hidden), elapsed / 200
    for _ in range(200):  # Runge and Kutta's
        k1 = velocity(v)
        k2 = velocity(v + delta / 2 * k1)
        k3 = velocity(v + delta / 2 * k2)
        k4 = velocity(v + delta * k3)
        v = v + delta / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    errors = [
        np.abs(rnn.LTC(4, unfolds=n).step(p, state, (x, dt))[1] - v).max() for n in (16, 32, 64)
    ]
    assert errors[0] < 0.05
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.1)


def test_no_time_leaves_ltc_where_it_is():
    state, (x, _) = random_state(LTC, (2,)), random_inputs(LTC, (2,))
    assert_near(LTC.cell.step(random_params(LTC), state, (x, jnp.zeros((2, 1))))[0], state, 0.0)


def test_ltc_stays_between_zero_and_its_target():
    """Theorem 2, for any input and any time between steps."""
    p, (xs, dts) = random_params(LTC), random_inputs(LTC, (50, 3))
    _, ys = rnn.unroll(LTC.cell, p, (1e3 * xs, 1e2 * dts))
    low, high = np.minimum(0, p.target), np.maximum(0, p.target)
    assert (ys >= low).all() and (ys <= high).all()
    assert np.abs(ys - p.target).min() < 0.1  # and comes near it


def test_long_times_choose_one_candidate_of_cfc():
    p, state, (x, _) = random_params(CFC), random_state(CFC, (2,)), random_inputs(CFC, (2,))
    at = x @ p.input_kernel + state.hidden @ p.recurrent_kernel + p.bias
    heads = np.split((1.7159 * np.tanh(0.666 * at)) @ p.head_kernel + p.head_bias, 4, axis=-1)
    want = np.tanh(np.where(heads[2] > 0, heads[1], heads[0]))
    _, y = CFC.cell.step(p, state, (x, jnp.full((2, 1), 1e6)))
    assert_near(y, want, 1e-12)


def test_wrong_arguments_are_named():
    p, (xs, dts) = random_params(LTC), random_inputs(LTC, (5, 2))
    with pytest.raises(ValueError, match=r"dt must have shape \(2, 1\)"):
        rnn.unroll(LTC.cell, p, (xs, jnp.concatenate([dts, dts], axis=-1)))
    with pytest.raises(ValueError, match=r"x must be an array or a pair \(x, dt\), got 3"):
        rnn.unroll(LTC.cell, p, (xs, dts, dts))
    with pytest.raises(ValueError, match="unfolds must be a positive int"):
        rnn.LTC(4, unfolds=0)
    with pytest.raises(ValueError, match="backbone_size must be a positive int"):
        rnn.CfC(4, backbone_size=0)
