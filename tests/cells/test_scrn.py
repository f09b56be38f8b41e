import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows, sigmoid

CASE = Case(rnn.SCRN(4, context_size=2, alpha=0.7))


def test_follows_the_paper():
    def step(p, s, x):
        a, b = p.input_kernel[:, :4], p.input_kernel[:, 4:]
        r, slow = p.recurrent_kernel[:4], p.recurrent_kernel[4:]
        context = (1 - 0.7) * (x @ b) + 0.7 * s.context
        h = sigmoid(context @ slow + x @ a + s.hidden @ r)
        return [h, context], np.concatenate([h, context])

    assert_follows(CASE, step)


def test_context_is_a_moving_average_of_the_inputs():
    params, xs = random_params(CASE), random_inputs(CASE, (6, 2))
    final, _ = rnn.unroll(CASE.cell, params, xs)
    weights = 0.3 * 0.7 ** np.arange(5, -1, -1)
    average = np.tensordot(weights, xs, axes=1)
    assert_near(final.context, average @ params.input_kernel[:, 4:], 1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="alpha must be in"):
        rnn.SCRN(4, alpha=1.5)
    with pytest.raises(ValueError, match="context_size must be a positive int"):
        rnn.SCRN(4, context_size=0)
