import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from numpy.polynomial import legendre

import jaxrnn as rnn
from jaxrnn.cells.lmu import delay_system
from tests.support.cases import Case, random_params
from tests.support.helpers import assert_near, thorough_but
from tests.support.oracle import assert_follows

CASE = Case(rnn.LMU(4, order=5, theta=6.5))


def continuous(order):
    """A and B, an element at a time."""
    a, b = np.zeros((order, order)), np.zeros(order)
    for i in range(order):
        b[i] = (2 * i + 1) * (-1) ** i
        for j in range(order):
            a[i, j] = (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1))
    return a, b


def held(order, theta):
    a, b = continuous(order)
    discrete = scipy.linalg.expm(a / theta)
    return discrete, np.linalg.solve(a, (discrete - np.eye(order)) @ b)


def test_follows_the_paper():
    a_bar, b_bar = held(5, 6.5)

    def step(p, s, x):
        e_x, w_x = p.input_kernel[:, 0], p.input_kernel[:, 1:]
        e_h, w_h = p.recurrent_kernel[:, 0], p.recurrent_kernel[:, 1:]
        u = e_x @ x + e_h @ s.hidden + p.memory_encoder @ s.memory
        m = a_bar @ s.memory + b_bar * u
        h = np.tanh(w_x.T @ x + w_h.T @ s.hidden + p.memory_kernel.T @ m)
        return [h, m], h

    assert_follows(CASE, step)


@pytest.mark.parametrize(("order", "theta"), [(1, 3.0), (2, 0.7), (12, 50), (64, 784), (100, 40)])
def test_system_is_exact_for_a_held_input(order, theta):
    for got, want in zip(delay_system(order, theta), held(order, theta), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * max(1, np.abs(want).max()))


def writer(order, theta, dtype="float64"):
    """A cell that writes its input into its memory, and does nothing else."""
    cell = rnn.LMU(1, order=order, theta=theta)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), 1, dtype))
    return cell, params._replace(input_kernel=params.input_kernel.at[0, 0].set(1))


def signal(t):
    return np.sin(0.11 * t) + 0.5 * np.cos(0.04 * t + 1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), thorough_but(("bfloat16", 0.02), ("float64", 0.01))
)
def test_memory_holds_the_window(dtype, tolerance):
    """Every past value within the window is decoded by Legendre's polynomials."""
    theta, time = 100, 400
    cell, params = writer(16, theta, dtype)
    u = jnp.asarray(signal(np.arange(time)), dtype)
    final, _ = rnn.unroll(cell, params, u[:, None])
    # A value is held until the next one, so that half a step ago lies in the middle of it.
    ago = np.arange(2, theta - 2)
    decoded = legendre.legval(2 * (ago + 0.5) / theta - 1, np.asarray(final.memory, np.float64))
    np.testing.assert_allclose(decoded, np.asarray(u, np.float64)[time - 1 - ago], atol=tolerance)


def test_memory_forgets_what_has_left_the_window():
    cell, params = writer(12, 20)
    pulse = jnp.zeros((200, 1)).at[:10].set(1.0)
    emit = rnn.wrappers.EmitState(cell)
    _, states = rnn.unroll(emit, params, pulse)
    size = np.abs(states.memory).max(axis=-1)
    assert size[9] > 0.3 and size[25] > 0.05 and size[60:].max() < 1e-3


def test_a_constant_is_its_own_zeroth_coefficient():
    cell, params = writer(6, 9.0)
    final, _ = rnn.unroll(cell, params, jnp.full((300, 1), 2.5))
    assert_near(final.memory, np.array([2.5, 0, 0, 0, 0, 0]), 1e-11)


def test_encoders_start_as_the_authors_have_them():
    params = rnn.LMU(4, order=5, theta=6).init(jax.random.key(0), 3)
    np.testing.assert_array_equal(params.memory_encoder, 0)
    assert np.abs(params.input_kernel[:, 0]).max() <= 1 and np.all(params.input_kernel != 0)
    assert random_params(CASE).memory_encoder.all()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="theta must be a positive number, got -1"):
        rnn.LMU(4, order=5, theta=-1)
    with pytest.raises(TypeError, match="order must be a positive int, got 2.5"):
        rnn.LMU(4, order=2.5, theta=10)
