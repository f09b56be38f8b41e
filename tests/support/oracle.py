"""Compares a cell with a NumPy transcription of its paper's equations."""

import jax
import numpy as np

import jaxrnn as rnn
from tests.support.cases import random_inputs, random_params, random_state
from tests.support.helpers import assert_near


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def silu(x):
    return x * sigmoid(x)


def assert_follows(case, transcription, time=5, batch=2):
    """Asserts that the cell does ``transcription(params, state, x) -> (state, y)`` at every step.

    The transcription sees NumPy arrays and one row of the batch; it gives the state as the values
    of the leaves of the cell's own state, in order.
    """
    params, state = random_params(case), random_state(case, (batch,))
    xs = random_inputs(case, (time, batch))
    got = rnn.unroll(case.cell, params, xs, state, engine=rnn.engines.Sequential())

    p, structure = jax.tree.map(np.asarray, params), jax.tree.structure(state)
    finals, outputs = [], []
    for row in range(batch):
        s, ys = jax.tree.map(lambda leaf: np.asarray(leaf[row]), state), []  # noqa: B023
        for t in range(time):
            x = jax.tree.map(lambda leaf: np.asarray(leaf)[t, row], xs)  # noqa: B023
            leaves, y = transcription(p, s, x)
            s = jax.tree.unflatten(structure, leaves)
            ys.append(y)
        finals.append(s)
        outputs.append(np.stack(ys))
    want = jax.tree.map(lambda *rows: np.stack(rows), *finals), np.stack(outputs, axis=1)
    assert_near(got, want, 1e-12)
