import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, Floats
from tests.support.helpers import thorough_but
from tests.support.oracle import assert_follows, sigmoid, softplus


@pytest.mark.parametrize("input_size", [4, 3])
def test_follows_the_paper(input_size):
    def step(p, s, x):
        r, i = np.split(sigmoid(x @ p.input_kernel[:, :8] + p.bias), 2)
        a = np.exp(-8 * softplus(p.decay) * r)
        value = x if input_size == 4 else x @ p.input_kernel[:, 8:]
        h = a * s.hidden + np.sqrt(1 - a**2) * (i * value)
        return [h], h

    assert_follows(Case(rnn.RGLRU(4), x=Floats((input_size,))), step)


@pytest.mark.parametrize("dtype", thorough_but("bfloat16", "float64", "float32"))
def test_starts_on_the_ring(dtype):
    params = rnn.RGLRU(256).init(jax.random.key(0), 256, dtype)
    decay = np.exp(-8 * softplus(np.asarray(params.decay, float)))
    rounding = 2e-3 if dtype == "bfloat16" else 1e-5
    assert (decay > 0.9 - rounding).all() and (decay < 0.999 + rounding).all()
    assert 0.4 < (decay > 0.95).mean() < 0.6


def test_decay_lies_between_0_and_1_and_closed_gates_are_harmless():
    cell = rnn.RGLRU(3)
    params = cell.init(jax.random.key(0), 3, "float32")
    params = params._replace(decay=jnp.array([-30.0, 0.0, 3.0]).astype("float32"))
    a, _ = cell.affine(params, jnp.ones(3, "float32"))
    assert ((a.hidden > 0) & (a.hidden <= 1)).all()

    # A recurrence gate that is shut to the last digit keeps the state as it is, with a gradient.
    shut = params._replace(bias=jnp.full(6, -1e4, "float32"))
    state = cell.init_state(shut)._replace(hidden=jnp.ones(3, "float32"))
    value, grads = jax.value_and_grad(
        lambda p: cell.step(p, state, jnp.ones(3, "float32"))[1].sum()
    )(shut)
    assert value == 3
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
