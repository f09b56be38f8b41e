"""Linear recurrences: the loop, the tree, and the gradient, a recurrence in reverse."""

import functools
import itertools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.engines._linear import combine, linear_recurrence
from tests.support.helpers import assert_near

maps = hnp.arrays(np.float64, (2, 3), elements=st.floats(-4, 4)).map(tuple)


@hypothesis.given(maps, maps, maps, hnp.arrays(np.float64, 3, elements=st.floats(-4, 4)))
def test_combine_is_associative_and_composes_maps(x, y, z, h):
    left, right = combine(combine(x, y), z), combine(x, combine(y, z))
    np.testing.assert_allclose(left, right, atol=1e-12)
    (a, b), after = left, h
    for factor, increment in (x, y, z):
        after = factor * after + increment
    np.testing.assert_allclose(a * h + b, after, atol=1e-12)


def by_hand(a, b, initial, cotangents):
    """The recurrence and its gradient, step by step, forwards in time."""
    a = np.broadcast_to(a, b.shape)
    hs, before, h = np.empty_like(b), np.empty_like(b), initial
    for t in range(len(b)):
        before[t] = h
        h = hs[t] = a[t] * h + b[t]
    adjoint, carried = np.empty_like(b), np.zeros_like(initial)
    for t in reversed(range(len(b))):
        adjoint[t] = cotangents[t] + carried
        carried = a[t] * adjoint[t]
    return hs, (adjoint * before, adjoint, carried)


PAIRWISE = {(1, "tree", "real"), (1, "loop", "complex"), (9, "tree", "broadcast")}
PAIRWISE |= {(9, "loop", "real"), (100, "tree", "complex"), (100, "loop", "broadcast")}


@pytest.mark.parametrize(
    ("time", "form", "kind"),
    [
        pytest.param(*case, marks=() if case in PAIRWISE else pytest.mark.thorough)
        for case in itertools.product(
            (1, 2, 8, 9, 100, 4097), ("loop", "tree"), ("real", "complex", "broadcast")
        )
    ],
)
def test_recurrence_and_gradient_agree_with_loops_in_numpy(time, form, kind):
    tree = form == "tree"
    rng = np.random.default_rng(time)
    a, b, cotangents = rng.uniform(0.3, 1.05, size=(3, time, 2, 3))
    b, cotangents, initial = b - 0.7, cotangents - 0.7, rng.normal(size=(2, 3))
    if kind == "complex":
        a, b, cotangents, initial = (
            z * np.exp(1j * rng.normal(size=z.shape)) for z in (a, b, cotangents, initial)
        )
    if kind == "broadcast":
        a = a[:, :1]

    @functools.partial(jax.jit, static_argnames="reverse")
    def run(a, b, initial, cotangents, reverse):
        recurrence = functools.partial(linear_recurrence, tree=tree, reverse=reverse)
        hs, back = jax.vjp(recurrence, a, b, initial)
        return hs, back(cotangents)

    hs, (da, db, dinitial) = by_hand(a, b, initial, cotangents)
    da = da.sum(axis=1, keepdims=True) if kind == "broadcast" else da
    got = run(a, b, initial, cotangents, reverse=False)
    assert_near(jax.tree.map(np.asarray, got), (hs, (da, db, dinitial)), 1e-10)
    backwards = run(a[::-1], b[::-1], initial, cotangents[::-1], reverse=True)
    assert_near(
        jax.tree.map(np.asarray, backwards), (hs[::-1], (da[::-1], db[::-1], dinitial)), 1e-10
    )


@pytest.mark.parametrize("tree", [False, True], ids=["loop", "tree"])
def test_residuals_are_factors_and_states_only(tree):
    a, b, initial = jnp.ones((4096, 2, 3)), jnp.ones((4096, 2, 3)), jnp.ones((2, 3))
    back = jax.eval_shape(
        lambda *args: jax.vjp(functools.partial(linear_recurrence, tree=tree), *args)[1],
        a,
        b,
        initial,
    )
    kept = sum(leaf.size for leaf in jax.tree.leaves(back))
    assert kept <= a.size + b.size + 4 * initial.size
