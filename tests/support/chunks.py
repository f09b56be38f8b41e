"""Compares the chunked form of a matrix-state cell with its steps, values and gradients."""

import functools

import jax

import jaxrnn as rnn
from tests.support.cases import random_inputs, random_state
from tests.support.helpers import assert_near, weighted_sum


def recurrent(case, params, state, xs):
    return jax.lax.scan(lambda s, x: case.cell.step(params, s, x), state, xs)


def chunked(case, params, state, xs):
    return case.cell.chunk(params, state, xs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(form, case, params, state, xs):
    def objective(arguments):
        out = form(case, *arguments)
        return weighted_sum(out), out

    return jax.grad(objective, has_aux=True)((params, state, xs))


def assert_chunk_is_the_recurrence(case, params, time, scale=1.0, tolerance=1e-10):
    """Values and gradients with respect to parameters, state and inputs."""
    state = random_state(case, (2,), params[0].dtype)
    xs = scale * random_inputs(case, (time, 2), params[0].dtype)
    got, want = (_run(form, case, params, state, xs) for form in (chunked, recurrent))
    assert rnn.is_chunked(case.cell)
    assert_near(got, want, tolerance)
