import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, Floats, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, softplus


@pytest.mark.parametrize("input_size", [4, 3])
def test_follows_the_paper(input_size):
    def step(p, s, x):
        delta, b, c, w_x = np.split(x @ p.input_kernel, [2, 7, 12])
        delta = softplus(delta @ p.step_kernel + p.step_bias)
        value = x if input_size == 4 else w_x
        a = -np.exp(p.log_rate)
        h = np.empty_like(s.hidden)
        y = p.feedthrough * value
        for d in range(4):
            for n in range(5):
                h[d, n] = np.exp(delta[d] * a[d, n]) * s.hidden[d, n] + delta[d] * b[n] * value[d]
                y[d] += c[n] * h[d, n]
        return [h], y

    cell = rnn.SelectiveSSM(4, state_size=5, rank=2)
    assert_follows(Case(cell, x=Floats((input_size,))), step)


def test_a_step_of_zero_skips_the_input_and_a_long_one_forgets_the_past():
    case = Case(rnn.SelectiveSSM(4, state_size=5), x=Floats((4,)))
    params = random_params(case)
    x, held = jnp.ones(4), jnp.ones((4, 5))
    for bias, keep in ((-60.0, 1.0), (60.0, 0.0)):
        a, b = case.cell.affine(params._replace(step_bias=jnp.full(4, bias)), x)
        assert_near(a.hidden * held, keep * held, 1e-8)
        assert (jnp.max(jnp.abs(b.hidden)) < 1e-8) == (keep == 1.0)


def test_starts_as_mamba_does():
    cell = rnn.SelectiveSSM(40, state_size=3)
    params = cell.init(jax.random.key(0), 40, "float64")
    assert params.step_kernel.shape == (3, 40)
    step = softplus(np.asarray(params.step_bias))
    assert (step > 0.001).all() and (step < 0.1).all() and (step < 0.01).mean() > 0.3
    np.testing.assert_allclose(np.exp(params.log_rate), np.tile([1, 2, 3], (40, 1)), rtol=1e-12)
    np.testing.assert_array_equal(params.feedthrough, np.ones(40))
    assert np.abs(params.step_kernel).max() < 3**-0.5
