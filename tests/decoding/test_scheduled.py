"""Scheduled sampling: teacher forcing, the rate of samples, and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn import decoding
from tests.support import decoding_models as models
from tests.support.helpers import assert_near

V, H, TIME = 5, 4, 6
PARAMS = jax.tree.map(jnp.asarray, models.draw(V, H))
STATE = jax.tree.map(jnp.asarray, models.states((3,), H))
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, V, (TIME, 3)))
KEY = jax.random.key(0)


def scan(params, tokens, state=STATE):
    return jax.lax.scan(lambda state, token: models.step(params, state, token), state, tokens)


@pytest.mark.parametrize(("rate", "key"), [(0.0, KEY), (0.7, None)])
def test_without_a_rate_or_a_key_it_is_teacher_forcing(rate, key):
    def work(run):
        return jax.value_and_grad(lambda params: run(params)[1].sum())(PARAMS)

    got = work(lambda p: decoding.scheduled_sampling(models.step, p, STATE, TOKENS, key, rate=rate))
    assert_near(got, work(lambda p: scan(p, TOKENS)), 1e-11)


def test_at_rate_one_and_low_temperature_the_inputs_are_the_greedy_tokens():
    final, logits = decoding.scheduled_sampling(
        models.step, PARAMS, STATE, TOKENS, KEY, rate=1.0, temperature=1e-6
    )
    greedy = decoding.greedy(models.step, PARAMS, STATE, TOKENS[0], length=TIME)
    np.testing.assert_array_equal(logits.argmax(-1), greedy.tokens)
    read = jnp.concatenate([TOKENS[:1], greedy.tokens[:-1]])
    assert_near((final, logits), scan(PARAMS, read), 1e-11)


def test_inputs_are_replaced_at_the_rate_by_samples_of_the_model():
    rows, rate = 4000, 0.3
    table = jnp.log(jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(V), V)))

    def step(table, state, token):  # the state is the last input
        return token, table[token]

    tokens = jnp.full((3, rows), 3)

    def read(tokens):
        return decoding.scheduled_sampling(
            step, table, jnp.zeros(rows, tokens.dtype), tokens, KEY, rate=jnp.float32(rate)
        )[0]

    last = np.asarray(jax.jit(read)(tokens))
    transitions = np.exp(table)
    teacher = np.eye(V)[3]
    before = rate * teacher @ transitions + (1 - rate) * teacher
    expected = rows * (rate * before @ transitions + (1 - rate) * teacher)
    counts = np.bincount(last, minlength=V)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < (V - 1) + 5 * np.sqrt(2 * (V - 1))


def test_samples_are_constants_of_the_gradient():
    """Against finite differences that do not change the samples."""

    def run(params):
        return decoding.scheduled_sampling(models.step, params, STATE, TOKENS, KEY, rate=0.5)[1]

    move = 1e-6 * jnp.eye(H)[1]

    def objective(bias):
        logits = run((*PARAMS[:2], bias, *PARAMS[3:]))
        return (logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)).sum()

    @jax.jit
    def work(bias):
        slope = (objective(bias + move) - objective(bias - move)) / 2e-6
        return jax.grad(objective)(bias)[1], slope

    np.testing.assert_allclose(*work(PARAMS[2]), rtol=1e-6)


@pytest.mark.parametrize("engine", [rnn.engines.Sequential(), rnn.engines.Hoisted()])
def test_engines_agree(engine):
    def work(engine):
        return jax.value_and_grad(
            lambda p: decoding.scheduled_sampling(
                models.step, p, STATE, TOKENS, KEY, rate=0.5, engine=engine
            )[1].sum()
        )(PARAMS)

    assert_near(work(engine), work(None), 1e-11)


def test_a_closed_over_step_receives_gradients():
    def loss(params):
        def step(state, token):
            return models.step(params, state, token)

        _, logits = decoding.scheduled_sampling(step, None, STATE, TOKENS, None, rate=0.0)
        return logits.sum()

    want = jax.grad(lambda params: scan(params, TOKENS)[1].sum())(PARAMS)
    assert_near(jax.grad(loss)(PARAMS), want, 1e-11)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rate": 1.5}, ValueError, "rate must be in [0, 1], got 1.5"),
        ({"rate": "half"}, TypeError, "rate must be a number, got 'half'"),
        ({"temperature": 0.0}, ValueError, "temperature must be a positive number, got 0.0"),
        ({"tokens": 3}, ValueError, "tokens must have shape [time, *batch], got ()"),
        ({"tokens": [0.5]}, TypeError, "tokens must be an array of integers, got float64"),
        ({"key": 3}, TypeError, "key must be one JAX random key"),
    ],
)
def test_errors(change, error, message):
    arguments = {"tokens": TOKENS, "key": KEY, "rate": 0.5} | change
    with pytest.raises(error, match=re.escape(message)):
        decoding.scheduled_sampling(models.step, PARAMS, STATE, **arguments)
