"""The participation ratio, against the eigenvalues of NumPy's covariance."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.analysis import participation_ratio


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def of_eigenvalues(vectors):
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors, rowvar=False))
    return eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


@pytest.mark.parametrize("shape", [(9, 3, 5), (4, 11)])  # more samples than features, and fewer
def test_it_is_that_of_the_eigenvalues_of_the_covariance(shape):
    states = normal(*shape) * np.linspace(0.1, 2, shape[-1]) + 3
    expected = of_eigenvalues(states.reshape(-1, shape[-1]))
    np.testing.assert_allclose(participation_ratio(jnp.asarray(states)), expected, rtol=1e-12)


def test_a_line_has_one_dimension_and_a_plane_two():
    line = normal(50, 1) * normal(1, 6, seed=1)
    np.testing.assert_allclose(participation_ratio(line), 1, rtol=1e-12)
    turn = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1) @ np.linalg.qr(normal(6, 2))[0].T
    np.testing.assert_allclose(participation_ratio(circle), 2, rtol=1e-12)


def test_leaves_are_concatenated_and_complex_numbers_are_two():
    parts = normal(30, 2), normal(30, 3, seed=1) + 1j * normal(30, 3, seed=2)
    together = np.concatenate([parts[0], parts[1].real, parts[1].imag], axis=-1)
    np.testing.assert_allclose(participation_ratio(parts), of_eigenvalues(together), rtol=1e-12)


def test_half_precision_is_accumulated_in_float32():
    states = jnp.asarray(normal(200, 4) + 1, jnp.bfloat16)
    ratio = participation_ratio(states)
    assert ratio.dtype == jnp.float32
    np.testing.assert_allclose(ratio, of_eigenvalues(np.asarray(states, float)), rtol=1e-5)


@pytest.mark.parametrize(
    ("states", "kind", "message"),
    [
        (np.arange(6).reshape(3, 2), TypeError, "must hold floating-point arrays"),
        ((), TypeError, "must hold floating-point arrays"),
        (np.zeros(3), ValueError, r"\[\*samples, features\]"),
        ((np.zeros((3, 2)), np.zeros((4, 2))), ValueError, "share the axes of samples"),
        (np.zeros((1, 2)), ValueError, "2 or more samples, got 1"),
    ],
)
def test_errors_say_what_is_wanted(states, kind, message):
    with pytest.raises(kind, match=message):
        participation_ratio(states)
