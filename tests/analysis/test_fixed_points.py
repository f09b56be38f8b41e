"""Fixed points of maps whose points are known, of cells, and the filters of `fixed_points`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import jaxrnn as rnn
from jaxrnn.analysis import fixed_points, plot_fixed_points

pytest.importorskip("optimistix", reason="it comes with the extra: analysis")


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def linear(x):
    return x


def test_a_linear_cell_has_the_analytic_point():
    """h = x W + b + h U at one h; the Jacobian is the transpose of U everywhere."""
    cell, recurrent = rnn.Elman(4, activation=linear), 0.6 * normal(4, 4)
    params = rnn.cells.ElmanParams(normal(3, 4, seed=1), recurrent, normal(4, seed=2))
    x, start = normal(3, seed=3), rnn.ElmanState(normal(5, 4, seed=4))
    points = fixed_points(cell, params, x, start)
    W, U, b, x = map(np.asarray, (*params, x))
    expected = np.linalg.solve(np.eye(4) - U.T, x @ W + b)
    np.testing.assert_allclose(points.state.hidden, expected[None], atol=1e-10)
    np.testing.assert_allclose(points.jacobian, U.T[None], atol=1e-14)
    moduli = np.sort(np.abs(np.linalg.eigvals(U)))[::-1]
    np.testing.assert_allclose(np.abs(points.eigenvalues), moduli[None], atol=1e-12)
    assert points.stable == [moduli[0] < 1]
    assert points.unstable_directions == [(moduli >= 1).sum()]
    assert points.candidates == [5]


def test_a_bistable_cell_has_stable_points_saddles_and_a_source():
    """Each coordinate is h' = tanh(a h + c), with two stable points and one between them."""
    gain, bias = 2.0, np.array([0.1, -0.2])

    def roots(c):
        brackets = [(-1.5, -0.5), (-0.45, 0.45), (0.5, 1.5)]
        return [brentq(lambda h: np.tanh(gain * h + c) - h, *bracket) for bracket in brackets]

    params = rnn.cells.ElmanParams(jnp.ones((1, 2)), gain * jnp.eye(2), jnp.asarray(bias))
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-1, 1, 7)] * 2), axis=-1)  # two leading axes
    points = fixed_points(rnn.Elman(2), params, jnp.zeros(1), rnn.ElmanState(grid))
    expected = np.array(list(itertools.product(*map(roots, bias))))
    found = points.state.hidden
    assert found.shape == expected.shape == (9, 2)
    order, wanted = np.lexsort(found.round(6).T[::-1]), np.lexsort(expected.round(6).T[::-1])
    np.testing.assert_allclose(found[order], expected[wanted], atol=1e-9)
    slopes = gain * (1 - found**2)  # the derivative in each coordinate
    np.testing.assert_array_equal(points.unstable_directions, (slopes > 1).sum(axis=-1))
    assert sorted(points.unstable_directions) == [0] * 4 + [1] * 4 + [2]
    np.testing.assert_array_equal(points.stable, points.unstable_directions == 0)
    np.testing.assert_allclose(points.eigenvalues.real, -np.sort(-slopes), atol=1e-12)
    assert points.candidates.sum() <= 49 and (np.diff(points.candidates) <= 0).all()


def test_points_of_an_lstm_are_fixed_and_have_its_jacobian():
    cell = rnn.LSTM(3)
    params = jax.tree.map(lambda leaf: 1.5 * normal(*leaf.shape), cell.init(jax.random.key(0), 2))
    x = normal(2, seed=5)
    candidates = rnn.LSTMState(normal(20, 3, seed=6), normal(20, 3, seed=7))
    points = fixed_points(cell, params, x, candidates)
    assert len(points.speed) > 0
    for index, (hidden, memory) in enumerate(zip(*points.state, strict=True)):
        state = rnn.LSTMState(jnp.asarray(hidden), jnp.asarray(memory))
        after, _ = cell.step(params, state, x)
        left = np.concatenate(after) - np.concatenate(state)
        np.testing.assert_allclose(np.linalg.norm(left), points.speed[index], atol=1e-12)
        assert points.speed[index] < 1e-5
        blocks = jax.jacobian(lambda state: cell.step(params, state, x)[0])(state)
        expected = np.block([[np.asarray(block) for block in row] for row in blocks])
        np.testing.assert_allclose(points.jacobian[index], expected, atol=1e-12)


def test_a_complex_state_is_real_and_imaginary_parts():
    """s = λ s + b at s = b / (1 - λ)."""
    cell = rnn.LRU(3)
    params = cell.init(jax.random.key(0), 2, jnp.float64)
    x = normal(2)
    state = jax.tree.map(
        lambda leaf: leaf + normal(4, 3).astype(leaf.dtype), cell.init_state(params, (4,))
    )
    points = fixed_points(cell, params, x, state)
    a, b = map(np.asarray, (jax.tree.leaves(part)[0] for part in cell.affine(params, x)))
    np.testing.assert_allclose(jax.tree.leaves(points.state)[0], (b / (1 - a))[None], atol=1e-9)
    expected = np.sort(np.concatenate([np.abs(a)] * 2))[::-1]
    np.testing.assert_allclose(np.abs(points.eigenvalues[0]), expected, atol=1e-12)


BISTABLE = rnn.Elman(1), rnn.cells.ElmanParams(jnp.ones((1, 1)), jnp.eye(1) * 2, jnp.zeros(1))


def test_candidates_are_drawn_with_noise_from_a_key():
    cell, params = BISTABLE
    middle = rnn.ElmanState(jnp.zeros((2, 1)))  # a fixed point: without noise nothing moves
    options = dict(count=40, key=jax.random.key(0))
    still = fixed_points(cell, params, jnp.zeros(1), middle, **options)
    assert still.candidates.tolist() == [40] and not still.stable.any()
    points = fixed_points(cell, params, jnp.zeros(1), middle, noise=1.0, **options)
    assert len(points.speed) == 3 and points.candidates.sum() <= 40
    again = fixed_points(cell, params, jnp.zeros(1), middle, noise=1.0, **options)
    np.testing.assert_array_equal(points.state.hidden, again.state.hidden)


def test_filters_by_speed_distance_and_outliers():
    """h' = h + 0.01 sin(h), with a fixed point at each multiple of π, none of which is far."""

    def step(params, h, x):
        return h + params * jnp.sin(h) + x, h

    cell = rnn.from_step(step, init_state=lambda params, batch: jnp.zeros((*batch, 1)))
    rate, zero = jnp.array(0.01), jnp.zeros(1)
    near = np.linspace(-0.4, 0.4, 5)
    start = jnp.asarray((near + np.pi * np.arange(3)[:, None])[..., None])
    everything = fixed_points(cell, rate, zero, start)
    np.testing.assert_allclose(np.sort(everything.state[:, 0]), np.pi * np.arange(3), atol=1e-8)
    assert everything.candidates.tolist() == [5, 5, 5]
    # The mean distance of the candidates from π is 2.1 or so.
    assert len(fixed_points(cell, rate, zero, start, outlier=1.0).speed) == 1
    assert len(fixed_points(cell, rate, zero, start, distance=3.2).speed) <= 2
    # Shifted, the map is nowhere closer to the identity than 0.01: only slow points are left.
    shifted = jnp.full(1, 0.02)
    assert len(fixed_points(cell, rate, shifted, start).speed) == 0
    slow = fixed_points(cell, rate, shifted, start, tolerance=0.0101, max_steps=1000, outlier=None)
    assert len(slow.speed) > 0
    np.testing.assert_allclose(slow.speed, 0.01, rtol=1e-2)


@pytest.mark.parametrize("trajectories", [True, False])
def test_the_plot_is_drawn(trajectories, tmp_path):
    cell, params = rnn.Elman(2), None
    params = rnn.cells.ElmanParams(jnp.ones((1, 2)), 2 * jnp.eye(2), jnp.zeros(2))
    lines = rnn.ElmanState(normal(6, 3, 2))
    points = fixed_points(cell, params, jnp.zeros(1), lines)
    figure = plot_fixed_points(points, lines if trajectories else None)
    space, plane = figure.axes
    labels = [text.get_text() for text in plane.get_legend().get_texts()]
    counts = np.bincount(points.unstable_directions, minlength=2)
    assert labels[0] == f"stable: {counts[0]}" and labels[1] == f"1 unstable direction: {counts[1]}"
    saddles = int(points.unstable_directions.sum())  # each direction is a line
    assert len(space.lines) == saddles + 3 * trajectories
    figure.savefig(tmp_path / "points.png")
    assert (tmp_path / "points.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (dict(cell=rnn.Elman), TypeError, "cell must be an instance, got the class Elman"),
        (dict(x=np.zeros((1, 2))), ValueError, r"x must be the constant input .* got shape \(1, 2"),
        (dict(candidates=rnn.ElmanState(np.zeros(3))), ValueError, "one or more leading axes"),
        (dict(candidates=rnn.ElmanState(np.zeros((0, 3)))), ValueError, "at least one state"),
        (dict(candidates=rnn.ElmanState(np.zeros((2, 4)))), ValueError, r"shape \(2, 3\)"),
        (dict(candidates=np.zeros((2, 3))), TypeError, "candidates must have the structure"),
        (dict(candidates=rnn.ElmanState(np.zeros((2, 3), "f4"))), TypeError, "dtype float64"),
        (dict(count=3), ValueError, "need a key"),
        (dict(noise=0.1), ValueError, "need a key"),
        (dict(noise=-1.0), ValueError, "noise must be a number, 0 or more, got -1"),
        (dict(count=0, key=jax.random.key(0)), ValueError, "count must be a positive int"),
        (dict(tolerance=0), ValueError, "tolerance must be a positive number, got 0"),
        (dict(distance="near"), TypeError, "distance must be a positive number"),
        (dict(outlier=-1), ValueError, "outlier must be a positive number"),
        (dict(max_steps=0), ValueError, "max_steps must be a positive int"),
    ],
)
def test_errors_name_the_argument(changes, kind, message):
    cell = rnn.Elman(3)
    arguments = dict(
        cell=cell,
        params=cell.init(jax.random.key(0), 2),
        x=np.zeros(2),
        candidates=rnn.ElmanState(np.zeros((2, 3))),
    )
    with pytest.raises(kind, match=message):
        fixed_points(**(arguments | changes))


def test_counters_and_half_precision_are_refused():
    clock = rnn.ClockworkRNN(4)
    params = clock.init(jax.random.key(0), 2, jnp.float64)
    with pytest.raises(TypeError, match="integers are counters"):
        fixed_points(clock, params, np.zeros(2), clock.init_state(params, (3,)))
