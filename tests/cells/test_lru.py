import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from tests.support.cases import Case
from tests.support.helpers import thorough_but
from tests.support.oracle import assert_follows


def test_follows_the_paper():
    def step(p, s, x):
        lam = np.exp(-np.exp(p.log_decay) + 1j * np.exp(p.log_phase))
        b = p.input_kernel[:, :4] + 1j * p.input_kernel[:, 4:]
        c = p.output_kernel[:4] + 1j * p.output_kernel[4:]
        h = lam * s.hidden + np.exp(p.log_scale) * (x @ b)
        return [h], (h @ c).real + x @ p.feedthrough_kernel

    assert_follows(Case(rnn.LRU(4, output_size=5)), step)


@pytest.mark.parametrize("dtype", thorough_but("bfloat16", "float64", "float32"))
def test_starts_on_the_ring_with_states_of_the_scale_of_the_input(dtype):
    ring = rnn.initializers.UnitRing(0.9, 0.99, max_phase=0.5)
    cell = rnn.LRU(64, eigenvalue_init=ring)
    params = cell.init(jax.random.key(0), 3, dtype)
    a = np.asarray(cell.affine(params, jnp.zeros(3, dtype))[0].hidden, complex)
    rounding = 0.02 if dtype == "bfloat16" else 1e-5
    assert (np.abs(a) > 0.9 - rounding).all() and (np.abs(a) < 0.99 + rounding).all()
    assert (np.angle(a) > -rounding).all() and (np.angle(a) < 0.5 + rounding).all()
    # A spread over the area: half of the radii lie outside the ring's median radius.
    assert 0.3 < (np.abs(a) ** 2 > (0.9**2 + 0.99**2) / 2).mean() < 0.7
    scale = np.exp(np.asarray(params.log_scale, float))
    np.testing.assert_allclose(scale, np.sqrt(1 - np.abs(a) ** 2), rtol=10 * rounding)


def test_forgets_whatever_the_parameters():
    cell = rnn.LRU(256)
    params = cell.init(jax.random.key(0), 3, "float64")
    draw = 2 * jax.random.normal(jax.random.key(1), (2, 256), "float64")
    params = params._replace(log_decay=draw[0], log_phase=draw[1])
    a, _ = cell.affine(params, jnp.zeros(3))
    assert (jnp.abs(a.hidden) < 1).all()
