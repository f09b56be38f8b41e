"""Lyapunov exponents of linear maps, of well-known chaotic maps, and of cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.analysis import lyapunov_exponents
from tests.support.cases import CELLS, random_inputs, random_params, random_state


def from_map(function, size):
    """A cell that iterates a map and ignores its input."""
    return rnn.from_step(
        lambda params, h, x: (function(params, h),) * 2,
        init_state=lambda params, batch: jnp.full((*batch, size), 0.1),
    )


def nothing(time, *batch):
    return jnp.zeros((time, *batch, 1))


def with_eigenvalues(eigenvalues):
    """A non-normal matrix with these eigenvalues."""
    basis = np.random.default_rng(0).normal(size=(len(eigenvalues),) * 2)
    return jnp.asarray(basis @ np.diag(eigenvalues) @ np.linalg.inv(basis))


def test_linear_map():
    eigenvalues = np.array([1.3, -0.9, 0.4, 0.05])
    cell = from_map(lambda kernel, h: h @ kernel.T, 4)
    kernel = with_eigenvalues(eigenvalues)
    got = lyapunov_exponents(cell, kernel, nothing(800), count=4, burn_in=400)
    np.testing.assert_allclose(got, np.log(np.abs(eigenvalues)), rtol=0, atol=1e-10)


def test_contracting_rotation():
    angle, shrink = 0.7, 0.8
    turn = shrink * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cell = from_map(lambda kernel, h: h @ kernel.T, 2)
    got = lyapunov_exponents(cell, jnp.asarray(turn), nothing(100), count=2)
    np.testing.assert_allclose(got, [np.log(shrink)] * 2, atol=1e-12)


def test_logistic_map():
    """Exactly log 2 for r = 4."""
    cell = from_map(lambda r, h: r * h * (1 - h), 1)
    got = lyapunov_exponents(cell, jnp.array(4.0), nothing(20_000), burn_in=100)
    np.testing.assert_allclose(got, [np.log(2)], atol=0.01)


def test_henon_map():
    """The sum is log |det J| = log 0.3 everywhere; the largest is 0.419 (Wolf et al., 1985)."""

    def henon(params, h):
        x, y = h[..., 0], h[..., 1]
        return jnp.stack([1 - params[0] * x**2 + y, params[1] * x], axis=-1)

    cell = from_map(henon, 2)
    got = lyapunov_exponents(cell, jnp.array([1.4, 0.3]), nothing(20_000), count=2, burn_in=100)
    np.testing.assert_allclose(got.sum(), np.log(0.3), atol=1e-10)
    np.testing.assert_allclose(got[0], 0.419, atol=0.02)


def test_complex_state():
    """The logarithm of each modulus, twice: a complex number has two real dimensions."""
    case = next(case for case in CELLS if isinstance(case.cell, rnn.LRU))
    params = random_params(case)
    got = lyapunov_exponents(case.cell, params, random_inputs(case, (300,)), count=8, burn_in=100)
    absolute = np.exp(-np.exp(np.asarray(params.log_decay)))
    np.testing.assert_allclose(got.sum(), 2 * np.log(absolute).sum(), atol=1e-10)
    np.testing.assert_allclose(got[0], np.log(absolute).max(), atol=0.05)


def test_the_sum_is_the_mean_logarithm_of_the_determinant():
    """For Elman's network, J = diag(1 - h²) Uᵀ; each row of a batch has its own trajectory."""
    case = next(case for case in CELLS if isinstance(case.cell, rnn.Elman))
    params, xs = random_params(case), random_inputs(case, (30, 3))
    got = lyapunov_exponents(case.cell, params, xs, random_state(case, (3,)), count=4)
    _, hs = rnn.unroll(case.cell, params, xs, random_state(case, (3,)))
    volume = np.log(1 - np.asarray(hs) ** 2).sum(axis=-1).mean(axis=0)
    volume += np.log(np.abs(np.linalg.det(params.recurrent_kernel)))
    assert got.shape == (3, 4)
    np.testing.assert_allclose(got.sum(axis=-1), volume, atol=1e-10)


def test_rows_are_independent_and_states_may_hold_integers():
    case = next(case for case in CELLS if isinstance(case.cell, rnn.ClockworkRNN))
    params, xs, state = random_params(case), random_inputs(case, (20, 2)), random_state(case, (2,))
    key = jax.random.key(3)
    together = lyapunov_exponents(case.cell, params, xs, state, count=4, key=key)
    turned = jax.tree.map(lambda leaf: leaf[::-1], state)
    other = lyapunov_exponents(case.cell, params, xs[:, ::-1], turned, count=4, key=key)
    np.testing.assert_allclose(together.sum(axis=-1), other.sum(axis=-1)[::-1], atol=1e-10)
    assert not np.allclose(together[0], together[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 5}, "count must be at most .* 4, got 5"),
        ({"count": 0}, "count must be a positive int, got 0"),
        ({"burn_in": 6}, r"burn_in must be in \[0, 6\), .* got 6"),
        ({"burn_in": 1.5}, "burn_in must be an int, got 1.5"),
        ({"key": 0}, "key must be one JAX random key"),
    ],
)
def test_errors_name_the_argument(options, message):
    cell = rnn.Elman(4)
    params = cell.init(jax.random.key(0), 3, jnp.float64)
    with pytest.raises((TypeError, ValueError), match=message):
        lyapunov_exponents(cell, params, jnp.ones((6, 3)), **options)
