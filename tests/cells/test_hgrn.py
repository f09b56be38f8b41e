import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from jaxrnn.cells import hgrn_lower_bounds
from tests.support.cases import Case, random_params
from tests.support.oracle import assert_follows, sigmoid, silu

CASE = Case(rnn.HGRN(4), params=lambda rng, p: _with_bound(rng, p))


def _with_bound(rng, params):
    noisy = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape)), params)
    return noisy._replace(lower_bound=jnp.asarray(rng.uniform(size=4)))


def test_follows_the_paper():
    def step(p, s, x):
        f, real, imaginary = np.split(x @ p.input_kernel + p.bias, 3)
        f = p.lower_bound + (1 - p.lower_bound) * sigmoid(f)
        c = silu(real) + 1j * silu(imaginary)
        h = f * np.exp(1j * p.phase) * s.hidden + (1 - f) * c
        return [h], np.concatenate([h.real, h.imag])

    assert_follows(CASE, step)


def test_never_forgets_faster_than_the_lower_bound_nor_grows():
    params = random_params(CASE)._replace(lower_bound=jnp.array([-0.5, 0.3, 0.9, 2.0]))
    xs = 10 * jax.random.normal(jax.random.key(0), (100, 3), "float64")
    a, _ = CASE.cell.affine(params, xs)
    decay = jnp.abs(a.hidden)
    assert (decay <= 1 + 1e-12).all()
    assert (decay.min(axis=0) >= np.array([0, 0.3, 0.9, 1 - 1e-12])).all()
    assert decay[:, 0].min() < 0.1  # the test would not see a floor otherwise


def test_lower_bounds_rise_with_depth():
    logits = np.random.default_rng(0).normal(size=(5, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=0)
    want = np.stack([shares[:k].sum(axis=0) for k in range(5)])
    np.testing.assert_allclose(hgrn_lower_bounds(jnp.asarray(logits)), want, atol=1e-15)


def test_phases_start_as_in_rotary_embeddings():
    phase = rnn.HGRN(4).init(jax.random.key(0), 3, "float64").phase
    np.testing.assert_allclose(phase, [1, 1e-2, 1e-4, 1e-6], rtol=1e-12)
