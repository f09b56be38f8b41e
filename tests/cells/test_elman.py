import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.activations import relu
from tests.support.cases import Case
from tests.support.oracle import assert_follows


@pytest.mark.parametrize(
    ("activation", "transcribed"),
    [(jnp.tanh, np.tanh), (relu, lambda a: max(a, 0.0))],
    ids=["tanh", "relu"],
)
def test_follows_the_paper(activation, transcribed):
    def step(p, s, x):
        h = np.zeros(4)
        for i in range(4):
            at = p.bias[i]
            for j in range(3):
                at += p.input_kernel[j, i] * x[j]
            for j in range(4):
                at += p.recurrent_kernel[j, i] * s.hidden[j]
            h[i] = transcribed(at)
        return [h], h

    assert_follows(Case(rnn.Elman(4, activation)), step)
