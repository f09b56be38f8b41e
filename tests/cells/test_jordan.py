import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows

MIXED = rnn.Jordan(4, output_size=3, decay=0.3, output_activation=jnp.tanh)


def test_follows_the_paper():
    def step(p, s, x):
        h = np.tanh(x @ p.input_kernel + s.trace @ p.recurrent_kernel + p.bias)
        y = np.tanh(h @ p.output_kernel + p.output_bias)
        return [0.3 * s.trace + y], y

    assert_follows(Case(MIXED), step)


def test_state_is_a_fading_sum_of_outputs():
    case = Case(MIXED)
    final, ys = rnn.unroll(case.cell, random_params(case), random_inputs(case, (6, 2)))
    fading = 0.3 ** np.arange(5, -1, -1)
    assert_near(final.trace, np.tensordot(fading, ys, axes=1), 1e-12)


def test_with_a_transparent_output_it_is_elman():
    case = Case(rnn.Jordan(4))
    params = random_params(case)._replace(output_kernel=jnp.eye(4), output_bias=jnp.zeros(4))
    xs = random_inputs(case, (5, 2))
    elman = rnn.cells.ElmanParams(params.input_kernel, params.recurrent_kernel, params.bias)
    _, want = rnn.unroll(rnn.Elman(4), elman, xs)
    assert_near(rnn.unroll(case.cell, params, xs)[1], want, 1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="decay must be in"):
        rnn.Jordan(4, decay=1.0)
    with pytest.raises(ValueError, match="output_size must be a positive int"):
        rnn.Jordan(4, output_size=0)
