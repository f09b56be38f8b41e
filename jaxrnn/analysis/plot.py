"""The plot of fixed points among the trajectories of a network, and of their eigenvalues."""

from typing import Any

import jax
import numpy as np

from jaxrnn._typing import PyTree
from jaxrnn.analysis.fixed_points import FixedPoints

_COLORS = ("#111111", "#c1272d", "#0072b2", "#e69f00", "#7b3294")


def plot_fixed_points(points: FixedPoints, trajectories: PyTree = None, *, scale: float = 1.0):
    """Plots fixed points, the trajectories around them, and the eigenvalues of their Jacobians.

    On the left, the first three principal components of the trajectories (of the points, if there
    are no trajectories): stable points are filled, the others are open and colored by their number
    of unstable directions, with a line along each real unstable eigenvector. On the right, the
    eigenvalues in the complex plane with the unit circle.

    Args:
        points: the result of `fixed_points`.
        trajectories: states ``[time, *batch, ...]`` with the tree structure of ``points.state``;
            every batch element is one line.
        scale: the length of the lines along unstable eigenvectors, in units of the state.

    Returns:
        A Matplotlib ``Figure``; ``figure.savefig(path)`` writes it.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: there is nothing to plot.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_fixed_points needs Matplotlib, which is not installed: pip install "
            "'jaxrnn[analysis]'"
        ) from error
    states = _vectors(points.state, 1)
    lines = None if trajectories is None else _lines(trajectories, points.state)
    if lines is None and not len(states):
        raise ValueError("expected fixed points or trajectories to plot, got neither")
    cloud = states if lines is None else lines.reshape(-1, lines.shape[-1])
    center = cloud.mean(axis=0)
    axes = np.linalg.svd(cloud - center, full_matrices=False)[2][:3]
    axes = np.pad(axes, ((0, 3 - len(axes)), (0, 0)))  # states of fewer than three numbers

    def project(vectors: np.ndarray) -> np.ndarray:
        return (vectors - center) @ axes.T

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    space: Any = figure.add_subplot(1, 2, 1, projection="3d")
    if lines is not None:
        for row in np.moveaxis(lines, 1, 0):
            space.plot(*project(row).T, color="#9aa5b1", linewidth=0.5, alpha=0.5)
    plane = figure.add_subplot(1, 2, 2)
    turn = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    plane.plot(np.real(turn), np.imag(turn), color="#9aa5b1", linewidth=0.9)
    for count in sorted(set(points.unstable_directions.tolist())):
        chosen = points.unstable_directions == count
        color, face = _COLORS[min(count, len(_COLORS) - 1)], "none" if count else _COLORS[0]
        label = "stable" if count == 0 else f"{count} unstable direction{'s' * (count > 1)}"
        label = f"{label}: {chosen.sum()}"
        style: dict[str, Any] = dict(edgecolor=color, facecolor=face, label=label)
        space.scatter(*project(states[chosen]).T, s=45, depthshade=False, **style)
        eigenvalues = points.eigenvalues[chosen].ravel()
        plane.scatter(np.real(eigenvalues), np.imag(eigenvalues), s=14, linewidth=0.8, **style)
    for state, jacobian in zip(states, points.jacobian, strict=True):
        for direction in _unstable_eigenvectors(jacobian):
            ends = project(state + scale * np.array([[-1], [1]]) * direction)
            space.plot(*ends.T, color=_COLORS[1], linewidth=1)
    space.set_box_aspect(None, zoom=0.85)  # room for the label of the vertical axis
    space.set(xlabel="PC 1", ylabel="PC 2", zlabel="PC 3", title="fixed points")
    plane.set(xlabel="real part", ylabel="imaginary part", title="eigenvalues", aspect="equal")
    plane.spines[["top", "right"]].set_visible(False)
    if len(states):
        plane.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def _vectors(state: PyTree, leading: int) -> np.ndarray:
    """States as real vectors ``[*leading, n]``, in the order of the Jacobians."""
    parts = []
    for leaf in map(np.asarray, jax.tree.leaves(state)):
        flat = leaf.reshape(*leaf.shape[:leading], -1)
        parts += [np.real(flat), np.imag(flat)] if np.iscomplexobj(flat) else [flat]
    return np.concatenate(parts, axis=-1)


def _lines(trajectories: PyTree, state: PyTree) -> np.ndarray:
    """Trajectories as vectors ``[time, rows, n]``."""
    own = [leaf.ndim - 1 for leaf in jax.tree.leaves(state)]
    leading = jax.tree.leaves(trajectories)[0].ndim - own[0]
    vectors = _vectors(trajectories, leading)
    return vectors.reshape(len(vectors), -1, vectors.shape[-1])


def _unstable_eigenvectors(jacobian: np.ndarray) -> np.ndarray:
    """The eigenvectors ``[count, n]`` of the real eigenvalues outside the unit circle."""
    values, vectors = np.linalg.eig(jacobian)
    chosen = (np.abs(values) >= 1) & (np.abs(np.imag(values)) < 1e-9)
    return np.real(vectors[:, chosen]).T
