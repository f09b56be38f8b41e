"""`Hoisted` agrees with `Sequential` on randomly generated steps.

python -m pytest -m thorough tests/schedule/test_random_steps.py    # 300 more of them
"""

import functools

import jax
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import random_inputs, random_params, random_state
from tests.support.helpers import assert_near, split, weighted_sum
from tests.support.random_steps import random_step

TIME, BATCH = 4, 2
FLAGS = {
    "mask": np.array([[1, 1], [0, 1], [1, 1], [1, 0]], bool),
    "starts": np.array([[0, 1], [1, 0], [0, 1], [0, 0]], bool),
}
FAST = 8


def check(seed):
    """Values, gradients and tangents along random directions; the seed chooses the options."""
    case = random_step(seed)
    flags = (FLAGS if seed % 3 == 0 else {}) | {"reverse": seed % 2 == 1}
    work = random_params(case), random_state(case, (BATCH,)), random_inputs(case, (TIME, BATCH))
    floats, join = split(work)
    directions = [case.rng(5).normal(size=leaf.shape) for leaf in floats]

    def objective(engine, floats):
        params, state, xs = join(floats)
        out = rnn.unroll(case.cell, params, xs, state, engine=engine, **flags)
        return weighted_sum(out), out

    @functools.partial(jax.jit, static_argnums=0)
    def everything(engine, floats):
        function = functools.partial(objective, engine)
        (value, _), (slope, _) = jax.jvp(function, (floats,), (directions,))
        return value, slope, jax.grad(function, has_aux=True)(floats)

    every = 2 if seed % 4 == 0 else None
    got = everything(rnn.engines.Hoisted(checkpoint_every=every), floats)
    want = everything(rnn.engines.Sequential(), floats)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(want))
    assert_near(got, want, 1e-11)


@pytest.mark.parametrize("seed", range(FAST))
def test_random_steps(seed):
    check(seed)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(FAST, FAST + 300))
def test_many_random_steps(seed):
    check(seed)
