import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

CASE = Case(rnn.RecurrentHighway(4, depth=3))


def test_follows_the_paper():
    def step(p, s, x):
        s = s.hidden
        for l in range(3):
            at = s @ p.recurrent_kernel[l] + p.bias[l]
            if l == 0:
                at = at + x @ p.input_kernel
            h, t = np.tanh(at[:4]), sigmoid(at[4:])
            s = h * t + s * (1 - t)
        return [s], s

    assert_follows(CASE, step)


def test_depth_one_is_the_update_gate_network():
    """Its gate keeps what the transform gate lets through: σ(-a) = 1 - σ(a)."""
    case = Case(rnn.RecurrentHighway(4, depth=1))
    p, state, xs = random_params(case), random_state(case, (2,)), random_inputs(case, (5, 2))

    def turned(a):
        return jnp.concatenate([-a[..., 4:], a[..., :4]], axis=-1)  # blocks h, t to g, c

    other = Case(rnn.UpdateGateRNN(4))
    same = type(random_params(other))(
        turned(p.input_kernel), turned(p.recurrent_kernel[0]), turned(p.bias[0])
    )
    _, want = rnn.unroll(other.cell, same, xs, type(random_state(other, ()))(*state))
    assert_near(rnn.unroll(case.cell, p, xs, state)[1], want, 1e-12)


def test_closed_transform_gates_carry_the_state():
    p = random_params(CASE)
    closed = p._replace(bias=p.bias.at[:, 4:].set(-60.0))
    state = random_state(CASE, (2,))
    final, _ = rnn.unroll(CASE.cell, closed, random_inputs(CASE, (50, 2)), state)
    assert_near(final, state, 1e-12)


def test_only_the_first_layer_sees_the_input():
    """With that layer's transform gates closed, inputs change nothing."""
    p, xs = random_params(CASE), random_inputs(CASE, (5, 2))
    deaf = p._replace(
        input_kernel=p.input_kernel.at[:, 4:].set(0.0),
        recurrent_kernel=p.recurrent_kernel.at[0, :, 4:].set(0.0),
        bias=p.bias.at[0, 4:].set(-60.0),
    )
    assert_near(rnn.unroll(CASE.cell, deaf, xs), rnn.unroll(CASE.cell, deaf, 2 * xs), 1e-12)
    assert np.ptp(rnn.unroll(CASE.cell, deaf, xs)[1]) > 0.1


def test_gates_start_nearly_closed():
    params = rnn.RecurrentHighway(4, depth=2, transform_bias=-3.0).init(jax.random.key(0), 3)
    np.testing.assert_array_equal(params.bias, [[0, 0, 0, 0, -3, -3, -3, -3]] * 2)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="depth must be a positive int"):
        rnn.RecurrentHighway(4, depth=0)
