import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

import jaxrnn as rnn
from jaxrnn.cells._rotation import rotation
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near, thorough_but
from tests.support.oracle import assert_follows

CASE = Case(rnn.OrthogonalRNN(4))


def error_of(matrix):
    matrix = np.asarray(matrix)
    return np.linalg.norm(matrix.T @ matrix - np.eye(len(matrix)), 2)


def test_follows_the_paper():
    def step(p, s, x):
        b = scipy.linalg.expm(p.generator.T - p.generator)  # of columns, as in the paper
        at = b @ s.hidden + p.input_kernel.T @ x
        h = np.array([np.sign(a) * max(abs(a) + c, 0) for a, c in zip(at, p.bias, strict=True)])
        return [h], h

    assert_follows(CASE, step)


@pytest.mark.parametrize(("dtype", "bound"), thorough_but(("float64", 1e-13), ("float32", 1e-6)))
def test_training_keeps_the_kernel_orthogonal(dtype, bound):
    cell = rnn.OrthogonalRNN(8)
    params = cell.init(jax.random.key(0), 3, dtype)
    xs = random_inputs(CASE, (6, 4), dtype)
    optimizer = optax.adam(0.1)

    @jax.jit
    def train(params, moments):
        def loss(params):
            return jnp.mean((rnn.unroll(cell, params, xs)[1] - 1) ** 2)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value

    first, moments, losses = params, optimizer.init(params), []
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes its step count with floats
        for _ in range(8):
            params, moments, value = train(params, moments)
            losses.append(value)
    assert losses[-1] < 0.7 * losses[0]
    moved = cell.recurrent_matrix(params)
    assert np.abs(moved - cell.recurrent_matrix(first)).max() > 0.1
    assert error_of(moved) < bound


def test_without_input_and_bias_the_state_keeps_its_length():
    p = random_params(CASE)._replace(bias=jnp.zeros(4))
    state = rnn.cells.OrthogonalRNNState(jnp.array([1.0, -2.0, 0.5, 3.0]))
    final, _ = rnn.unroll(CASE.cell, p, jnp.zeros((300, 3)), state)
    np.testing.assert_allclose(
        np.linalg.norm(final.hidden), np.linalg.norm(state.hidden), rtol=1e-12
    )
    assert np.abs(final.hidden - state.hidden).max() > 0.1


def test_starts_as_rotations_of_pairs():
    cell = rnn.OrthogonalRNN(5, generator_init=rnn.initializers.RandomRotations(bound=0.5))
    params = cell.init(jax.random.key(1), 3, "float64")
    angles = np.asarray(params.generator)[[0, 2], [1, 3]]
    assert np.count_nonzero(params.generator) == 2 and np.abs(angles).max() <= 0.5
    want = [*np.exp(1j * angles), *np.exp(-1j * angles), 1]
    got = np.linalg.eigvals(cell.recurrent_matrix(params))
    assert_near(np.sort_complex(got), np.sort_complex(np.array(want)), 1e-12)


def test_beside_bfloat16_the_kernel_is_orthogonal_to_float32():
    params = random_params(CASE, "bfloat16")
    matrix = CASE.cell.recurrent_matrix(params)
    assert matrix.dtype == jnp.float32 and error_of(matrix) < 1e-6


def test_modrelu_is_flat_within_its_threshold():
    p = jax.tree.map(jnp.zeros_like, random_params(CASE))
    p = p._replace(input_kernel=jnp.eye(3, 4), bias=jnp.array([-1.0, -1.0, 0.5, 0.5]))
    _, y = CASE.cell.step(p, CASE.cell.init_state(p), jnp.array([0.9, -3.0, -0.25]))
    np.testing.assert_array_equal(y, [0, -2, -0.75, 0])


@pytest.mark.parametrize(
    ("dtype", "bound", "orthogonal"), [("float64", 1e-12, 1e-14), ("float32", 1e-4, 1e-6)]
)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 30.0])
def test_the_rotation_is_the_exponential(scale, dtype, bound, orthogonal):
    """And its gradient that of SciPy's, along a direction."""
    random = np.random.default_rng(0)
    a, da = random.normal(size=(2, 20, 20))
    a, da = scale * (a - a.T), da - da.T
    u, du = jax.jvp(rotation, (jnp.asarray(a, dtype),), (jnp.asarray(da, dtype),))
    want, dwant = scipy.linalg.expm_frechet(a, da)
    np.testing.assert_allclose(u, want, atol=bound)
    np.testing.assert_allclose(du, dwant, atol=10 * bound * abs(dwant).max())
    assert np.abs(np.asarray(u.T @ u) - np.eye(20)).max() < orthogonal


def test_more_than_the_most_squarings_are_nan():
    assert np.isnan(rotation(jnp.array([[0.0, 1e6], [-1e6, 0.0]]))).all()
