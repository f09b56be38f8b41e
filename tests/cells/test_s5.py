import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from jaxrnn.cells.s5 import relative_expm1
from tests.support.cases import Case, random_params
from tests.support.helpers import assert_near
from tests.support.oracle import assert_follows


def test_follows_the_paper():
    def step(p, s, x):
        lam = p.eigenvalue_real + 1j * p.eigenvalue_imaginary
        a = np.exp(lam * np.exp(p.log_step))
        b = p.input_kernel[:, :4] + 1j * p.input_kernel[:, 4:]
        c = p.output_kernel[:4] + 1j * p.output_kernel[4:]
        h = a * s.hidden + (a - 1) / lam * (x @ b)
        return [h], 2 * (h @ c).real + x @ p.feedthrough_kernel

    assert_follows(Case(rnn.S5(4, output_size=5)), step)


def test_is_the_solution_of_the_equation_it_samples():
    # dh/dt = M h + x b with the input switched on at t = 0: h = M⁻¹ (e^(Mt) - 1) b x, here for the
    # real system of twice the size whose eigenvalues are all the pairs.
    cell = rnn.S5(3, output_size=2)
    params = random_params(Case(cell))._replace(log_step=jnp.full(3, np.log(0.2)))
    xs = jnp.broadcast_to(jnp.array([0.3, -1.0, 2.0]), (40, 3))
    _, ys = rnn.unroll(cell, params, xs)

    p, xs = jax.tree.map(np.asarray, params), np.asarray(xs)
    lam = p.eigenvalue_real + 1j * p.eigenvalue_imaginary
    b = p.input_kernel[:, :3] + 1j * p.input_kernel[:, 3:]
    c = p.output_kernel[:3] + 1j * p.output_kernel[3:]
    lam = np.concatenate([lam, lam.conj()])
    b, c = np.concatenate([b, b.conj()], axis=1), np.concatenate([c, c.conj()])
    times = 0.2 * np.arange(1, 41)[:, None]
    h = (np.exp(lam * times) - 1) / lam * (xs[0] @ b)
    want = h @ c + xs @ p.feedthrough_kernel
    np.testing.assert_allclose(want.imag, 0, atol=1e-12)
    assert_near(ys, want.real, 1e-12)


def test_zero_order_hold_is_safe_at_eigenvalue_zero():
    z = np.array([0.0, 1e-9, 1e-4 + 1e-4j, 0.9e-3, 1.1e-3j, 0.1 - 0.2j, -3 + 1j])
    terms = [z**k / np.prod(np.arange(1.0, k + 2)) for k in range(40)]
    assert_near(relative_expm1(jnp.asarray(z)), np.sum(terms, axis=0), 1e-15)

    cell = rnn.S5(2)
    params = cell.init(jax.random.key(0), 3, "float64")
    params = params._replace(eigenvalue_real=jnp.zeros(2), eigenvalue_imaginary=jnp.zeros(2))
    xs = jax.random.normal(jax.random.key(1), (6, 3), "float64")
    final, _ = rnn.unroll(cell, params, xs)
    b = np.asarray(params.input_kernel[:, :2]) + 1j * np.asarray(params.input_kernel[:, 2:])
    want = np.exp(params.log_step) * (np.asarray(xs).sum(axis=0) @ b)
    assert_near(final.hidden, want, 1e-12)
    grads = jax.grad(lambda p: rnn.unroll(cell, p, xs)[1].sum())(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_starts_with_the_eigenvalues_of_hippo():
    # HiPPO-LegS, and the term of rank one that makes it normal.
    size = 8
    n = np.arange(size)
    root = np.sqrt(2 * n + 1)
    hippo = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    normal = hippo + np.outer(root, root) / 2
    assert_near(normal @ normal.T, normal.T @ normal, 1e-12)
    want = np.linalg.eigvals(normal)
    want = np.sort_complex(want[want.imag < 0])

    params = rnn.S5(4).init(jax.random.key(0), 3, "float64")
    got = np.asarray(params.eigenvalue_real) + 1j * np.asarray(params.eigenvalue_imaginary)
    np.testing.assert_allclose(np.sort(got.imag), np.sort(want.imag), rtol=1e-10)
    np.testing.assert_allclose(got.real, -0.5, rtol=1e-10)
    blocks = rnn.S5(8, eigenvalue_init=rnn.initializers.HippoN(blocks=2))
    twice = blocks.init(jax.random.key(0), 3, "float64").eigenvalue_imaginary
    np.testing.assert_allclose(twice, np.concatenate([got.imag, got.imag]), rtol=1e-10)
    step = np.exp(np.asarray(params.log_step))
    assert (step > 0.001).all() and (step < 0.1).all()
