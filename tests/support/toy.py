"""A training small enough for tests: a noisy linear system, with state, dropout and two leaves."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.common.checkpoint import Checkpoints
from experiments.common.options import Options
from experiments.common.training import Task, fit

SIZE, ROWS, LENGTH = 3, 4, 5
TARGET = np.random.default_rng(9).normal(size=(SIZE, SIZE)).astype(np.float32)


def batch(step):
    """The inputs and outputs of a linear system, from the step number."""
    xs = np.random.default_rng(step).normal(size=(LENGTH, ROWS, SIZE))
    xs = xs.astype(np.float32)
    return {"xs": xs, "ys": xs @ TARGET}


def loss(params, carry, batch, key):
    """A leaky average of the inputs times a matrix, with dropout of the carry."""
    keep = jax.random.bernoulli(key, 0.9, carry.shape).astype(carry.dtype)

    def step(carry, x):
        carry = carry * 0.1 + x
        return carry, carry @ params["matrix"] + params["bias"]

    carry, ys = jax.lax.scan(step, carry * keep, batch["xs"])
    return jnp.mean((ys - batch["ys"]) ** 2), carry


def validate(params):
    error = jnp.mean((params["matrix"] - TARGET) ** 2)
    return {"loss": float(error), "twice": 2 * float(error)}


def make_task(**changes):
    parts = dict(name="tiny", loss=loss, batch=batch, validate=validate)
    return Task(**(parts | changes), units=ROWS * LENGTH, unit="tokens", loss_unit="squares")


def first_params():
    return {"matrix": jnp.zeros((SIZE, SIZE)), "bias": jnp.zeros(SIZE)}


def run(folder, task=None, params=None, identity=None, **changes):
    defaults = dict(steps=24, learning_rate=0.1, warmup=4, log_every=4)
    defaults |= dict(validate_every=8, checkpoint_every=6, seed=3)
    options = Options(**(defaults | changes))
    with open(os.devnull, "w") as nowhere:
        return fit(
            task or make_task(),
            params or first_params(),
            jnp.zeros((ROWS, SIZE)),
            options=options,
            folder=folder,
            identity=identity or {"size": SIZE},
            console=Console(file=nowhere),
        )


def final_state(folder):
    """Everything in the newest checkpoint, name by name, and its step."""
    step, arrays, _ = Checkpoints(folder / "checkpoints").load(pytest.fail)
    return step, arrays


def assert_same_state(first, second):
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    for name, value in first[1].items():
        np.testing.assert_array_equal(value, second[1][name], err_msg=name)
