import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.chunks import assert_chunk_is_the_recurrence, chunked, recurrent
from tests.support.helpers import assert_near, thorough_but
from tests.support.oracle import assert_follows, sigmoid

CELL = rnn.MLSTM(6, num_heads=2, key_size=4)
CASE = Case(CELL)


def gates_of(p, x):
    q, k, v, o, i, f = np.split(x @ p.input_kernel + p.bias, [4, 8, 14, 20, 22])
    return q, k / np.sqrt(2), v, sigmoid(o), i, sigmoid(f)


def head(h):
    return slice(2 * h, 2 * h + 2), slice(3 * h, 3 * h + 3)


def test_follows_the_paper_stabilized():
    def step(p, s, x):
        q, k, v, o, i, f = gates_of(p, x)
        memory, n, y = np.empty_like(s.memory), np.empty_like(s.normalizer), []
        m = np.maximum(np.log(f) + s.stabilizer, i)
        for h in range(2):
            rows, columns = head(h)
            keep, write = np.exp(np.log(f[h]) + s.stabilizer[h] - m[h]), np.exp(i[h] - m[h])
            memory[h] = keep * s.memory[h] + write * np.outer(k[rows], v[columns])
            n[h] = keep * s.normalizer[h] + write * k[rows]
            y.append(q[rows] @ memory[h] / max(abs(n[h] @ q[rows]), np.exp(-m[h])))
        return [memory, n, m], o * np.concatenate(y)

    assert_follows(CASE, step)


@pytest.mark.parametrize("form", [recurrent, chunked])
def test_is_the_paper_without_a_stabilizer(form):
    params, xs = random_params(CASE), random_inputs(CASE, (20,))
    _, ys = form(CASE, params, CELL.init_state(params), xs)
    p = jax.tree.map(np.asarray, params)
    memory, n, want = np.zeros((2, 2, 3)), np.zeros((2, 2)), []
    bounded = []
    for x in np.asarray(xs):
        q, k, v, o, i, f = gates_of(p, x)
        y = []
        for h in range(2):
            rows, columns = head(h)
            memory[h] = f[h] * memory[h] + np.exp(i[h]) * np.outer(k[rows], v[columns])
            n[h] = f[h] * n[h] + np.exp(i[h]) * k[rows]
            bounded.append(abs(n[h] @ q[rows]) < 1)
            y.append(q[rows] @ memory[h] / max(abs(n[h] @ q[rows]), 1))
        want.append(o * np.concatenate(y))
    assert_near(ys, np.stack(want), 1e-12)
    assert 0 < np.mean(bounded) < 1  # both sides of the maximum were met


@pytest.mark.parametrize("form", thorough_but(recurrent, chunked))
def test_output_does_not_see_the_stabilizer(form):
    params, xs = random_params(CASE), random_inputs(CASE, (7, 2))
    state = random_state(CASE, (2,))
    shift = jnp.array([[3.0, -2.0], [0.5, 7.0]])
    shrink = jnp.exp(-shift)
    shifted = rnn.cells.MLSTMState(
        shrink[..., None, None] * state.memory,
        shrink[..., None] * state.normalizer,
        state.stabilizer + shift,
    )
    (final, ys), (other, same) = (form(CASE, params, s, xs) for s in (state, shifted))
    assert_near(same, ys, 1e-12)
    real = [jnp.exp(s.stabilizer)[..., None, None] * s.memory for s in (final, other)]
    assert_near(real[1], real[0], 1e-12)


@pytest.mark.parametrize("time", thorough_but(7, 1, 2, 16))
def test_chunk_is_the_recurrence(time):
    assert_chunk_is_the_recurrence(CASE, random_params(CASE), time)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), thorough_but(("float32", 2e-5), ("float64", 1e-10))
)
def test_chunk_is_the_recurrence_at_extreme_gates(dtype, tolerance):
    params = random_params(CASE, dtype)
    for i, f in ((40.0, -300.0), (-60.0, 40.0), (60.0, 40.0)):
        bias = params.bias.at[20:22].add(i).at[22:].add(f)
        kernel = params.input_kernel.at[:, 20:].multiply(20)
        extreme = params._replace(bias=bias, input_kernel=kernel)
        assert_chunk_is_the_recurrence(CASE, extreme, 16, tolerance=tolerance)


@pytest.mark.parametrize("form", thorough_but(chunked, recurrent))
def test_gates_closed_to_the_last_digit_give_zeros_and_finite_gradients(form):
    params = random_params(CASE, "float32")
    params = params._replace(bias=params.bias.at[20:].set(-1e3))
    xs = random_inputs(CASE, (5,), "float32")

    def objective(params, xs):
        final, ys = form(CASE, params, CELL.init_state(params), xs)
        return ys.sum() + final.normalizer.sum(), ys

    grads, ys = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))(params, xs)
    assert_near(ys, np.zeros((5, 6), np.float32), 1e-6)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_starts_as_the_authors_do():
    params = rnn.MLSTM(64, num_heads=4).init(jax.random.key(0), 50, "float64")
    np.testing.assert_allclose(params.bias[-4:], [3, 4, 5, 6])
    assert (params.input_kernel[:, -8:] == 0).all()
    assert 0.01 < jnp.abs(params.bias[-8:-4]).max() < 0.5
    np.testing.assert_allclose(50 * params.input_kernel[:, :-8].var(), 0.4, rtol=0.05)
