"""The systems of the delta rule: solutions, derivatives, and what is given to the compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.cells._triangular import solve_unit_lower
from jaxrnn.engines.associative import MATRIX_CHUNK
from tests.support.helpers import assert_near

ROWS = (1, 2, 7, 8, 9, 50, 64, 100)


def draw(rows, columns=3, batch=(2, 3), dtype="float64"):
    rng = np.random.default_rng(rows)
    lower = np.tril(rng.uniform(-1, 1, (*batch, rows, rows)), -1)
    return jnp.asarray(lower, dtype), jnp.asarray(rng.normal(size=(*batch, rows, columns)), dtype)


def by_lapack(lower, wanted):
    eye = np.eye(lower.shape[-1])
    return np.linalg.solve(eye + np.asarray(lower, "float64"), np.asarray(wanted, "float64"))


@pytest.mark.parametrize("rows", ROWS)
def test_solves_the_system(rows):
    lower, wanted = draw(rows)
    lower = lower / rows**0.5
    assert_near(solve_unit_lower(lower, wanted), by_lapack(lower, wanted), 1e-12)


@pytest.mark.parametrize("rows", (8, 64, 100))
def test_is_as_exact_in_float32_as_substitution(rows):
    """Also for the largest entries that β and keys of unit length have: all ones."""
    for lower in (
        jnp.tril(jnp.ones((rows, rows), "float32"), -1),
        draw(rows, dtype="float32")[0] / 3,
    ):
        wanted = draw(rows, batch=lower.shape[:-2], dtype="float32")[1]
        want = by_lapack(lower, wanted)
        error = np.abs(np.asarray(solve_unit_lower(lower, wanted)) - want).max()
        assert error <= 1e-6 * np.abs(want).max()


def test_derivatives_are_those_of_the_solution():
    lower, wanted = draw(11)
    weights, moved = draw(11)[1] + 1, (draw(11, batch=(3, 2))[0].reshape(lower.shape), wanted * 2)

    def loss(solve):
        return lambda lower, wanted: (weights * solve(lower, wanted)).sum()

    def substituted(lower, wanted):
        return jax.scipy.linalg.solve_triangular(lower, wanted, lower=True, unit_diagonal=True)

    for order in (jax.grad, lambda f, n: jax.grad(lambda *a: jax.jvp(f, a, moved)[1], n)):
        got, want = (
            order(loss(solve), (0, 1))(lower, wanted) for solve in (solve_unit_lower, substituted)
        )
        # A gradient on and above the diagonal says nothing: the cells mask what they make.
        assert_near((jnp.tril(got[0], -1), got[1]), (jnp.tril(want[0], -1), want[1]), 1e-10)


def test_nothing_but_products_is_compiled():
    lower, wanted = draw(MATRIX_CHUNK)
    text = str(
        jax.make_jaxpr(jax.grad(lambda *a: solve_unit_lower(*a).sum(), (0, 1)))(lower, wanted)
    )
    assert "triangular_solve" not in text and "while" not in text and "scan" not in text
    assert text.count("precision=Precision.HIGHEST") + text.count(
        "precision=(Precision.HIGHEST, Precision.HIGHEST)"
    ) == text.count("dot_general")
    assert text.count("dot_general") <= 2 + 2 * 3 + 5  # the series, three doublings, the solution
