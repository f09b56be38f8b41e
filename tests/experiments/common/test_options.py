"""Options: schedules, the optimizer, and checks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common.options import Options, make_optimizer

# Schedules ----------------------------------------------------------------------------------------


def rates(name, warmup=10, steps=40):
    """Learning rates: Adam's updates have their size where all gradients are the same."""
    options = Options(schedule=name, learning_rate=0.5, warmup=warmup, steps=steps, clip=1e9)
    optimizer, params = make_optimizer(options), jnp.zeros(1)

    def step(state, _):
        update, state = optimizer.update(jnp.ones(1), state, params)
        return state, -update[0]

    return jax.lax.scan(step, optimizer.init(params), length=steps + 1)[1]


def half_cosine(begin, end, steps):
    return end + (begin - end) * (1 + np.cos(np.pi * np.arange(steps + 1) / steps)) / 2


def test_constant_stays_at_the_peak_after_the_warm_up():
    expected = np.minimum(np.arange(41) / 10, 1) * 0.5
    np.testing.assert_allclose(rates("constant"), expected, rtol=1e-5)


def test_cosine_falls_to_zero():
    got = rates("cosine")
    np.testing.assert_allclose(got[:11], 0.5 * np.arange(11) / 10, rtol=1e-5)
    np.testing.assert_allclose(got[10:], half_cosine(0.5, 0, 30), atol=1e-5)


def test_one_cycle_rises_for_30_percent_and_falls_below_its_start():
    got = rates("one-cycle")
    np.testing.assert_allclose(got[:13], half_cosine(0.5 / 25, 0.5, 12), rtol=1e-5)
    np.testing.assert_allclose(got[12:], half_cosine(0.5, 0.5 / 25e4, 28), rtol=1e-4, atol=1e-7)


def test_the_warm_up_takes_at_most_half_of_the_steps():
    found = rates("constant", warmup=100, steps=8)[:5]
    np.testing.assert_allclose(found, np.arange(5) / 8, atol=1e-5)


# The optimizer -----------------------------------------------------------------------------------


def test_clipping_by_global_norm_and_weight_decay_of_matrices_only():
    options = Options(steps=10, learning_rate=0.1, warmup=0, clip=1.0, weight_decay=0.5)
    params = {"matrix": jnp.full((2, 2), 3.0), "vector": jnp.full(2, 3.0)}
    zero = jax.tree.map(jnp.zeros_like, params)
    optimizer = make_optimizer(options)
    update, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(update["matrix"], -0.1 * 0.5 * 3.0, rtol=1e-5)
    np.testing.assert_array_equal(update["vector"], 0.0)
    huge = jax.tree.map(lambda p: jnp.full_like(p, 100.0), params)
    _, state = optimizer.update(huge, optimizer.init(params), params)
    moments = optax.tree.get(state, "mu")
    np.testing.assert_allclose(optax.tree.norm(moments), 0.1, rtol=1e-5)  # (1 - beta1) * clip


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"log_every": -1}, "log_every must be at least 1, got -1"),
        ({"keep": 1}, "keep must be at least 2, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be greater than 0, got nan"),
        ({"clip": -1.0}, "clip must be greater than 0, got -1.0"),
        ({"warmup": -5}, "warmup must be 0 or more, got -5"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more, got -0.1"),
        ({"devices": -1}, "devices must be 0 or more, got -1"),
        ({"patience": -1}, "patience must be 0 or more, got -1"),
        ({"average": 1.0}, r"average must be in \[0, 1\), got 1.0"),
        ({"average": -0.1}, r"average must be in \[0, 1\), got -0.1"),
        ({"average": float("nan")}, r"average must be in \[0, 1\), got nan"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"steps": 10, "accumulate": 4}, "multiple of accumulate, got 10 and 4"),
    ],
)
def test_bad_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Options(**change)
