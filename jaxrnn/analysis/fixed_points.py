"""Fixed points of a cell under a constant input, and their stability."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxrnn._arguments import check_key, check_positive, check_size, is_number
from jaxrnn._cell import Cell, input_rank, step_with_key
from jaxrnn._schedule.flat_state import FlatState, flatten_state, is_inexact
from jaxrnn._typing import Array, PyTree
from jaxrnn._validation import as_arrays, check_cell, check_same, prepare
from jaxrnn.analysis.linearise import linearise


class FixedPoints(NamedTuple):
    """Fixed points and their stability, the result of `fixed_points`.

    Attributes:
        state: the states, leaves ``[points, ...]``.
        speed: ‖F(s) - s‖, the length of the step that is left ``[points]``.
        jacobian: ∂F/∂s ``[points, n, n]``, see `linearise`.
        eigenvalues: of the Jacobian, by descending modulus, complex ``[points, n]``.
        stable: whether all eigenvalues lie inside the unit circle, bool ``[points]``.
        unstable_directions: how many eigenvalues lie on or outside the unit circle ``[points]``.
        candidates: the number of candidates that converged to each point ``[points]``.
    """

    state: PyTree
    speed: np.ndarray
    jacobian: np.ndarray
    eigenvalues: np.ndarray
    stable: np.ndarray
    unstable_directions: np.ndarray
    candidates: np.ndarray


def fixed_points(
    cell: Cell,
    params: PyTree,
    x: PyTree,
    candidates: PyTree,
    *,
    count: int | None = None,
    noise: float = 0.0,
    key: Array | None = None,
    tolerance: float = 1e-5,
    distance: float = 1e-2,
    outlier: float | None = 10.0,
    max_steps: int = 200,
) -> FixedPoints:
    """Finds the states that one step under a constant input maps to themselves.

        F(s) = step(params, s, x),   minimize ½‖F(s) - s‖² from each candidate s

    by the Levenberg-Marquardt method, which converges to stable and unstable points alike. All
    candidates are optimized in one program. Then these are removed in turn: candidates that are
    still faster than ``tolerance``; of each group closer than ``distance``, all but the slowest;
    and points far from all candidates. The state s is one real vector of n numbers, see
    `linearise`.

    The number of points is known only after the search, so this function runs outside `jax.jit`.

    Candidates are best drawn from the trajectories of the task, with noise, since unstable points
    lie between the states that the network visits.

    Args:
        cell: the cell; a stochastic one runs without a key.
        params: its parameters.
        x: the constant input of one step, without batch axes.
        candidates: states from which to start, leaves ``[*leading, ...]`` with one or more leading
            axes, for instance the states ``[time, *batch, ...]`` of `wrappers.EmitState`.
        count: the number of candidates to draw at random; None uses each of them once.
        noise: the standard deviation of Gaussian noise added to the candidates.
        key: the random key of the draw and of the noise; required with either.
        tolerance: the largest ‖F(s) - s‖ of a point. A larger one also admits slow points, which
            are no fixed points.
        distance: the least distance of two points.
        outlier: removes points farther from the mean of the candidates than this multiple of the
            candidates' mean distance from it; None keeps them.
        max_steps: the largest number of Levenberg-Marquardt iterations.

    Returns:
        `FixedPoints`, by descending number of candidates that converged to each; there may be none.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or range; the state holds
            anything but float32, float64 or complex numbers.
        ImportError: Optimistix is not installed.

    Example:
        h' = tanh(2 h) has two stable fixed points, and an unstable one between them.

        >>> import jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.Elman(1)
        >>> params = rnn.cells.ElmanParams(jnp.ones((1, 1)), jnp.full((1, 1), 2.0), jnp.zeros(1))
        >>> states = rnn.ElmanState(jnp.linspace(-1, 1, 9)[:, None])
        >>> points = rnn.analysis.fixed_points(cell, params, jnp.zeros(1), states)  # doctest: +SKIP
        >>> sorted(zip(points.state.hidden[:, 0].round(3), points.stable))  # doctest: +SKIP
        [(-0.958, True), (0.0, False), (0.958, True)]

    References:
        D. Sussillo and O. Barak, "Opening the black box: low-dimensional dynamics in
        high-dimensional recurrent neural networks", Neural Computation 25, 2013.
        M. Golub and D. Sussillo, "FixedPointFinder: a Tensorflow toolbox for identifying and
        characterizing fixed points in recurrent neural networks", 2018: the filters.
    """
    _check_options(count, noise, key, tolerance, distance, outlier, max_steps)
    params, x, state = _check_states(cell, params, x, candidates)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, x, state, key))):
        raise TypeError("fixed_points runs outside jax.jit, since their number depends on values")
    vectors = _starts(flatten_state(state, 1)[0], count, noise, key)
    layout = FlatState.of(jax.tree.leaves(state), 1)
    found, speed = map(np.asarray, _minimize(cell, max_steps, layout, params, x, state, vectors))
    kept = np.flatnonzero(np.isfinite(found).all(axis=-1) & (speed < tolerance))
    kept, counts = _distinct(found, kept[np.argsort(speed[kept], kind="stable")], distance)
    inside = _near(found[kept], np.asarray(vectors), outlier)
    kept, counts = kept[inside], counts[inside]
    order = np.argsort(-counts, kind="stable")
    return _characterize(cell, params, x, state, layout, found, speed, kept[order], counts[order])


def _check_options(count, noise, key, tolerance, distance, outlier, max_steps) -> None:
    if count is not None:
        check_size("count", count)
    if not is_number(noise) or not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a number, 0 or more, got {noise!r}")
    if key is not None:
        check_key(key)
    elif noise or count is not None:
        raise ValueError(
            f"count={count} and noise={noise:g} draw random numbers and need a key; pass "
            "key=jax.random.key(0), or omit both"
        )
    check_positive("tolerance", tolerance)
    check_positive("distance", distance)
    if outlier is not None:
        check_positive("outlier", outlier)
    check_size("max_steps", max_steps)


def _check_states(cell: Any, params: PyTree, x: PyTree, candidates: PyTree):
    """The checked parameters and input, and the candidates with one leading axis."""
    check_cell(cell)
    params, x = as_arrays("params", params), as_arrays("x", x)
    candidates, rank = as_arrays("candidates", candidates), input_rank(cell)
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if leaf.ndim != rank:
            raise ValueError(
                f"x{jax.tree_util.keystr(path)} must be the constant input of one step without "
                f"batch axes, {rank} axes, got shape {leaf.shape}; call fixed_points once for each "
                "input"
            )
    one = jax.eval_shape(lambda params: cell.init_state(params, ()), params)
    remedy = "pass states of this cell, e.g. those that wrappers.EmitState(cell) emits"
    leaves, wanted = jax.tree.leaves(candidates), jax.tree.leaves(one)
    if jax.tree.structure(candidates) == jax.tree.structure(one) and leaves:
        leading = leaves[0].shape[: max(0, leaves[0].ndim - wanted[0].ndim)]
        if not math.prod(leading) or not leading:
            raise ValueError(
                "candidates must have one or more leading axes and hold at least one state "
                f"{wanted[0].shape}, got shape {leaves[0].shape}; for one state write "
                "jax.tree.map(lambda leaf: leaf[None], state)"
            )
        expected = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((*leading, *leaf.shape), leaf.dtype), one
        )
    else:
        expected, leading = one, ()
    name = type(cell).__name__
    check_same("candidates", candidates, expected, f"states of {name}", remedy)
    for leaf in leaves:
        if not is_inexact(leaf) or jnp.finfo(leaf.dtype).bits < 32:
            raise TypeError(
                f"the state of {name} must hold float32, float64 or complex arrays only, got "
                f"{leaf.dtype}: integers are counters, which have no fixed point, and 16 bits are "
                "too few to tell a fixed point from a slow one"
            )
    state = jax.tree.map(
        lambda leaf, aim: leaf.reshape(-1, *leaf.shape[len(leading) :]), candidates, expected
    )
    count = len(jax.tree.leaves(state)[0])
    xs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1, count, *leaf.shape)), x)
    prepare(cell, params, xs, state)
    return params, x, state


def _starts(vectors: Array, count: int | None, noise: float, key: Any) -> Array:
    """The candidates ``[count, n]``, drawn at random and with noise if that is asked for."""
    if count is not None:
        key, draw = jax.random.split(key)
        vectors = jax.random.choice(draw, vectors, (count,), replace=count > len(vectors))
    if noise:
        vectors += noise * jax.random.normal(key, vectors.shape, vectors.dtype)
    return vectors


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _minimize(cell: Cell, max_steps: int, layout: FlatState, params, x, state, vectors):
    """The minima ``[candidates, n]`` and their speeds ``[candidates]``."""
    optimistix = _import_optimistix()
    structure = jax.tree.structure(state)

    def residual(vector, arguments):
        params, x = arguments
        before = structure.unflatten(layout.unpack(vector))
        after = step_with_key(cell, params, before, x, None)[0]
        return layout.pack(jax.tree.leaves(after)) - vector

    # Both tolerances far below `tolerance`: convergence is quadratic near a zero of the residual.
    precision = float(jnp.finfo(vectors.dtype).eps) ** 0.75
    solver = optimistix.LevenbergMarquardt(rtol=precision, atol=precision)

    def minimize(vector):
        solution = optimistix.least_squares(
            residual, solver, vector, (params, x), max_steps=max_steps, throw=False
        )
        return solution.value, jnp.linalg.norm(residual(solution.value, (params, x)))

    return jax.vmap(minimize)(vectors)


def _import_optimistix() -> Any:
    try:
        import optimistix
    except ImportError as error:
        raise ImportError(
            "fixed_points needs Optimistix, which is not installed: pip install 'jaxrnn[analysis]'"
        ) from error
    return optimistix


def _distinct(found: np.ndarray, kept: np.ndarray, distance: float):
    """The first of each group of points closer than a distance, and the size of each group."""
    chosen, counts = [], []
    while len(kept):
        near = np.linalg.norm(found[kept] - found[kept[0]], axis=-1) < distance
        chosen.append(kept[0])
        counts.append(int(near.sum()))
        kept = kept[~near]
    return np.array(chosen, int), np.array(counts, int)


def _near(points: np.ndarray, vectors: np.ndarray, outlier: float | None) -> np.ndarray:
    """Which points are no outliers by their distance from the mean of the candidates."""
    center = vectors.mean(axis=0)
    scale = np.linalg.norm(vectors - center, axis=-1).mean()
    if outlier is None or scale == 0:  # a single candidate has no scale
        return np.ones(len(points), bool)
    return np.linalg.norm(points - center, axis=-1) <= outlier * scale


def _characterize(cell, params, x, state, layout, found, speed, kept, counts) -> FixedPoints:
    points = jax.tree.structure(state).unflatten(layout.unpack(jnp.asarray(found[kept])))
    size = layout.size
    if len(kept):
        wide = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(kept), *leaf.shape)), x)
        jacobian = np.asarray(linearise(cell, params, points, wide).jacobian)
    else:
        jacobian = np.zeros((0, size, size), found.dtype)
    # NumPy, because JAX has eigenvalues of general matrices on some backends only.
    eigenvalues = np.linalg.eigvals(jacobian).astype(np.result_type(found.dtype, np.complex64))
    moduli = np.abs(eigenvalues)
    eigenvalues = np.take_along_axis(eigenvalues, np.argsort(-moduli, axis=-1), axis=-1)
    unstable = (moduli >= 1).sum(axis=-1)
    return FixedPoints(
        jax.tree.map(np.asarray, points),
        speed[kept],
        jacobian,
        eigenvalues,
        unstable == 0,
        unstable,
        counts,
    )
