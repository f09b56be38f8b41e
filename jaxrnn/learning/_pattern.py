"""The structure of influence: which elements of the state a parameter reaches.

It is found in the equations of one step. The derivative of a step, traced as a program, is analyzed
for what each element of its result depends on: that an element of θ̄ depends on element i of the
cotangent s̄ says that the parameter reaches element i of the new state.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

from jaxrnn._schedule.dependence import Labels, dependence
from jaxrnn._schedule.flat_state import FlatState
from jaxrnn.learning._rotation import rotated_halves


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """What may be non-zero in the derivatives of a step; all arrays are bool.

    Args:
        jacobian: ∂s'/∂s, ``[new, old]``.
        immediate: ∂s'/∂θ of each learned array, ``[new, *shape]``, where an axis of size 1 stands
            for one along which all elements are alike.
        initial: the same of the initial state.
        rotated: which arrays have influence i times as large in the second half of their last axis.
    """

    jacobian: np.ndarray
    immediate: tuple[np.ndarray, ...]
    initial: tuple[np.ndarray, ...]
    rotated: tuple[bool, ...]


def structure_of(
    transition: Callable, initial: Callable, theta: Sequence[Any], vector: Any, flat: FlatState
) -> Structure:
    """The structure of ``s' = transition(θ, s)`` and of ``s = initial(θ)``."""
    n = vector.shape[-1]

    def pull_step(theta, vector, cotangent):
        return jax.vjp(transition, theta, vector)[1](cotangent)

    def pull_initial(theta, cotangent):
        return jax.vjp(initial, theta)[1](cotangent)

    pulled = jax.make_jaxpr(pull_step)(theta, vector, vector).jaxpr
    step = _reached(pulled, n)
    start = _reached(jax.make_jaxpr(pull_initial)(theta, vector).jaxpr, n)
    shapes = [leaf.shape for leaf in theta]
    immediate = [_bits(x, n, len(s)) for x, s in zip(step[:-1], shapes, strict=True)]
    first = [_bits(x, n, len(s)) for x, s in zip(start, shapes, strict=True)]
    jacobian = np.broadcast_to(_bits(step[-1], n, 1), (n, n))
    turned = zip(rotated_halves(pulled, flat), start, strict=True)
    rotated = tuple(found and labels is None for found, labels in turned)
    return Structure(jacobian, tuple(immediate), tuple(first), rotated)


def _reached(pull: jex.Jaxpr, n: int) -> list[Labels]:
    """The labels of the results of a program whose last operand is the cotangent."""
    labels: list[Labels] = [None] * len(pull.invars)
    labels[-1] = np.packbits(np.eye(n, dtype=bool), axis=-1)
    return dependence(pull, labels)


def _bits(labels: Labels, n: int, ndim: int) -> np.ndarray:
    """Labels as bool ``[n, *shape or 1]``."""
    if labels is None:
        return np.zeros((n, *(1,) * ndim), bool)
    return np.moveaxis(np.unpackbits(labels, axis=-1, count=n).astype(bool), -1, 0)


def reach(structure: Structure, order: int | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Where influence may be non-zero after any number of steps, or is kept by SnAp.

    Args:
        structure: that of the step.
        order: the number of steps within which a parameter reaches an element; None is any number.

    Returns:
        Bool ``[n, *shape or 1]`` for each learned array, and ``[n, n]`` for the initial state.
    """
    n = len(structure.jacobian)
    identity = np.eye(n, dtype=bool)
    within = identity | structure.jacobian  # one step or none
    powers, count = identity, math.inf if order is None else order - 1
    while count > 0:
        grown = _product(within, powers)
        if (grown == powers).all():
            break
        powers, count = grown, count - 1
    arrays = []
    for immediate, initial in zip(structure.immediate, structure.initial, strict=True):
        seen = immediate | initial
        columns, places = _distinct(seen.reshape(n, -1))
        arrays.append(reduced(_product(powers, columns)[:, places].reshape(seen.shape)))
    return arrays, _product(within, powers)


def _distinct(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct columns of a bool matrix, and the number of each column among them."""
    packed = np.ascontiguousarray(np.packbits(columns, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, places = np.unique(keys, return_index=True, return_inverse=True)
    return columns[:, first], places.reshape(-1)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product of Boolean matrices."""
    if (a == np.eye(len(a), dtype=bool)).all():
        return b
    return a.astype(np.float32) @ b.astype(np.float32) > 0


def first_half(array: np.ndarray) -> np.ndarray:
    """The first half of the last axis; an axis of size 1 stands for all elements."""
    return array[..., : max(1, array.shape[-1] // 2)]


def reduced(kept: np.ndarray) -> np.ndarray:
    """Axes after the first along which all elements are alike, reduced to size 1."""
    for axis in range(1, kept.ndim):
        first = kept.take([0], axis) if kept.shape[axis] else kept
        if kept.shape[axis] > 1 and (kept == first).all():
            kept = first
    return kept


def colors(conflicts: np.ndarray) -> np.ndarray:
    """Greedy colors of elements, such that no two in conflict share one."""
    n = len(conflicts)
    if conflicts.all():
        return np.arange(n)
    found = np.zeros(n, int)
    for i in range(n):
        taken = {*found[:i][conflicts[i, :i]].tolist()}
        found[i] = next(c for c in range(n) if c not in taken)
    return found


def conflicts_of(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Which rows of matrices ``[n, ...]`` have a non-zero column in common."""
    n = len(matrices[0])
    total = np.zeros((n, n), bool)
    for matrix in matrices:
        columns = _distinct(matrix.reshape(n, -1))[0].astype(np.float32)
        total |= columns @ columns.T > 0
    return total


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """The elements of influence that are stored for one array of parameters.

    Args:
        shape: the shape of the array.
        rows: int ``[k, *shape or 1]``: the state elements that each parameter reaches, in order;
            n is padding.
        size: n, the size of the state.
    """

    shape: tuple[int, ...]
    rows: np.ndarray
    size: int

    @classmethod
    def of(cls, reached: np.ndarray, shape: tuple[int, ...]) -> "Kept":
        """The elements of a bool array ``[n, *shape or 1]``."""
        n, count = len(reached), int(reached.sum(axis=0).max(initial=0))
        rows = np.argsort(~reached, axis=0, kind="stable")[:count]
        rows = np.where(np.take_along_axis(reached, rows, 0), rows, n)
        return cls(shape, rows, n)

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of the influence of one row of the batch."""
        return (len(self.rows), *self.shape)

    @property
    def elements(self) -> int:
        """The number of stored elements of one row of the batch."""
        return math.prod(self.stored)

    @property
    def valid(self) -> np.ndarray:
        """Where `rows` is not padding."""
        return self.rows < self.size

    def of_state(self, kept: np.ndarray) -> np.ndarray:
        """A bool array ``[n, *shape or 1]`` at the stored elements: ``[k, *shape or 1]``."""
        shape = np.broadcast_shapes(kept.shape[1:], self.rows.shape[1:])
        padded = np.concatenate([kept, np.zeros_like(kept[:1])])
        padded = np.broadcast_to(padded, (len(padded), *shape))
        return np.take_along_axis(
            padded, np.broadcast_to(self.rows, (len(self.rows), *shape)), axis=0
        )
