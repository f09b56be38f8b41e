import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.chunks import assert_chunk_is_the_recurrence, chunked, recurrent
from tests.support.helpers import assert_near, thorough_but
from tests.support.oracle import assert_follows, sigmoid, silu, softplus

DELTA = Case(rnn.DeltaNet(6, num_heads=2, key_size=4))
GATED = Case(rnn.GatedDeltaNet(6, num_heads=2, key_size=4))


def unit(x):
    return x / np.sqrt(x @ x + 1e-6)


def transcription(p, s, x):
    q, k, v, beta, gate = np.split(x @ p.input_kernel, [4, 8, 14, 16])
    q, k, v, beta = silu(q), silu(k), silu(v), sigmoid(beta)
    alpha = np.ones(2)
    if gate.size:
        alpha = np.exp(-np.exp(p.log_rate) * softplus(gate + p.step_bias))
    memory, y = np.empty_like(s.memory), []
    for h in range(2):
        key, value = unit(k[2 * h : 2 * h + 2]), v[3 * h : 3 * h + 3]
        forget = alpha[h] * (np.eye(2) - beta[h] * np.outer(key, key))
        memory[h] = forget @ s.memory[h] + beta[h] * np.outer(key, value)
        y.append(unit(q[2 * h : 2 * h + 2]) @ memory[h])
    return [memory], np.concatenate(y)


@pytest.mark.parametrize("case", [DELTA, GATED], ids=str)
def test_follows_the_paper(case):
    assert_follows(case, transcription)


@pytest.mark.parametrize("time", thorough_but(7, 1, 2, 16))
@pytest.mark.parametrize("case", [DELTA, GATED], ids=str)
def test_chunk_is_the_recurrence(case, time):
    assert_chunk_is_the_recurrence(case, random_params(case), time)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), thorough_but(("float32", 1e-5), ("float64", 1e-10))
)
def test_chunk_is_the_recurrence_where_gates_close(dtype, tolerance):
    params = random_params(GATED, dtype)
    params = params._replace(input_kernel=params.input_kernel.at[:, 16:].multiply(100))
    assert_chunk_is_the_recurrence(GATED, params, 16, tolerance=tolerance)


@pytest.mark.parametrize("form", [recurrent, chunked])
def test_no_decay_gives_deltanet(form):
    params, state = random_params(GATED), random_state(GATED, (2,))
    xs = random_inputs(GATED, (7, 2))
    open_ = params._replace(log_rate=jnp.full(2, -1e3))
    got = form(GATED, open_, state, xs)
    want = form(DELTA, rnn.cells.DeltaNetParams(params.input_kernel[:, :16]), state, xs)
    assert_near(got, want, 1e-12)


def test_a_key_written_with_full_strength_holds_its_new_value_alone():
    # β = 1: reading with the key just written gives the value just written, whatever was there.
    cell = rnn.DeltaNet(3, key_size=2)
    kernel = jax.random.normal(jax.random.key(0), (4, 8), "float64")
    kernel = kernel.at[:, :2].set(kernel[:, 2:4])  # q = k
    kernel = kernel.at[:, 7].set(jnp.array([0, 0, 0, 1e3]))  # β = 1 where x[3] = 1
    xs = jax.random.normal(jax.random.key(1), (9, 4), "float64").at[:, 3].set(1.0)
    params = rnn.cells.DeltaNetParams(kernel)
    state = cell.init_state(params)._replace(memory=jnp.ones((1, 2, 3)))
    _, ys = rnn.unroll(cell, params, xs, state)
    assert_near(ys, silu(np.asarray(xs @ kernel[:, 4:7])), 1e-4)  # 1e-6 in the length of the key


def test_zero_inputs_have_finite_gradients():
    params = random_params(GATED)
    for form in (recurrent, chunked):

        @jax.jit
        @jax.grad
        def gradient(xs, form=form):
            return form(GATED, params, GATED.cell.init_state(params), xs)[1].sum()

        grads = gradient(jnp.zeros((5, 3)))
        assert jnp.isfinite(grads).all()


def test_decays_start_as_the_authors_do():
    params = rnn.GatedDeltaNet(128, num_heads=64).init(jax.random.key(0), 3, "float64")
    rate, step = np.exp(params.log_rate), softplus(np.asarray(params.step_bias))
    assert rate.max() < 16 and 4 < rate.mean() < 12
    assert (step > 0.001).all() and (step < 0.1).all()
