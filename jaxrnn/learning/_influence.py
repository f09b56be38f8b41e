"""The influence of the parameters on the state, M = ds/dθ, stored where it may be non-zero.

    M' = J M + B,   J = ∂s'/∂s,   B = ∂s'/∂θ
    θ̄ += s̄ M

J and B are computed by as many vector-Jacobian products as their structure needs: rows that have no
non-zero column in common share one. So a diagonal J takes one product, and so does the B of a GRU.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._sharding import equally_varying
from jaxrnn._typing import Array, PyTree
from jaxrnn.learning._pattern import (
    Kept,
    colors,
    conflicts_of,
    first_half,
    reach,
    reduced,
    structure_of,
)
from jaxrnn.learning._real_step import Learned, Reals, RealStep, Refused, State
from jaxrnn.learning._rotation import transposed_rotation
from jaxrnn.learning._tracker import Cost, Sample

EXACT = jax.lax.Precision.HIGHEST  # not TF32
Memory = tuple[Array, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Move:
    """J M for one array: the sum over d of ``coefficient[:, d] * M[neighbors[:, d]]``.

    Args:
        neighbors: int ``[k, d]``, elements of M.
        color, column: int ``[k, d, *shape or 1]``, the place of the coefficient among the products.
        mask: bool, whether there is a coefficient.
    """

    neighbors: np.ndarray
    color: np.ndarray
    column: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, kept: Kept, jacobian: np.ndarray, row_colors: np.ndarray) -> "Move":
        """How the stored elements of one array move by a Jacobian bool ``[new, old]``."""
        padded = np.pad(jacobian, ((0, 1), (0, 1)))
        some = padded[kept.rows[:, None], kept.rows[None]]
        pairs = np.asarray(some.any(axis=tuple(range(2, some.ndim))))
        width = int(pairs.sum(axis=1).max(initial=0))
        if width > 4 and (width > 8 or 2 * width > len(pairs)):  # a matrix product
            width = len(pairs)
        neighbors = np.argsort(~pairs, axis=1, kind="stable")[:, :width]
        if width == len(pairs):
            neighbors = np.broadcast_to(np.arange(width), pairs.shape)
        index = neighbors.reshape(*neighbors.shape, *(1,) * len(kept.shape))
        column = kept.rows[neighbors]
        color = np.append(row_colors, 0)[np.broadcast_to(kept.rows[:, None], column.shape)]
        mask = np.take_along_axis(some, np.broadcast_to(index, column.shape), axis=1)
        return cls(neighbors, color, np.where(mask, column, 0), mask)

    def __call__(self, products: Array, memory: Array) -> Array:
        """``J M``, from the products ``[colors, n]``."""
        factors = products[self.color, self.column]
        if not self.mask.all():
            factors = jnp.where(self.mask, factors, jnp.zeros_like(factors))
        width = self.neighbors.shape[1]
        if width > 4 and width == len(self.neighbors):
            axes = range(2, memory.ndim + 1)
            factors, varying = _squeezed(factors, 2)
            out = [0, *axes]
            return jnp.einsum(factors, [0, 1, *varying], memory, [1, *axes], out, precision=EXACT)
        if width == 0:
            return equally_varying((jnp.zeros_like(memory), memory))[0]
        terms = []
        for place in range(width):
            chosen = self.neighbors[:, place]
            in_order = np.array_equal(chosen, np.arange(len(chosen)))
            terms.append(factors[:, place] * (memory if in_order else memory[chosen]))
        return functools.reduce(jnp.add, terms)


@dataclasses.dataclass(frozen=True, eq=False)
class Push:
    """B for one array: the products ``color [k, *shape or 1]``, where ``mask``."""

    color: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, kept: Kept, immediate: np.ndarray, row_colors: np.ndarray) -> "Push":
        """Where the stored elements of one array are among the products."""
        return cls(np.append(row_colors, 0)[kept.rows], kept.of_state(immediate))

    def __call__(self, products: Array, dtype: Any) -> Array | None:
        """B, from the products ``[colors, *shape]``; None if it is zero."""
        if not self.mask.any():
            return None
        products = products.astype(dtype)
        color = np.broadcast_to(self.color, self.mask.shape)
        axes = tuple(range(1, color.ndim))
        low = np.where(self.mask, color, color.max()).min(axis=axes)
        high = np.where(self.mask, color, -1).max(axis=axes)
        if (low >= high).all():  # one product for each stored element
            same = (low == low[0]).all()
            chosen = products[low[:1]] if same else products[low]
        else:
            shape = (len(color), *products.shape[1:])
            chosen = jnp.take_along_axis(products, jnp.asarray(np.broadcast_to(color, shape)), 0)
        return chosen if self.mask.all() else jnp.where(self.mask, chosen, jnp.zeros_like(chosen))


@dataclasses.dataclass(frozen=True, eq=False)
class Influence:
    """The influence of the learned arrays on the state.

    Its memory is a tuple of arrays ``[*batch, k, *shape]``, one for each learned array, and with
    ``from_start`` one more for the initial state, ``[*batch, k, n]``. Of a rotated array it has the
    first half of the last axis, of which that of the second half is i times.
    """

    step: RealStep
    learned: Learned
    from_start: bool
    kept: tuple[Kept, ...]
    moves: tuple[Move, ...]
    pushes: tuple[Push, ...]
    starts: tuple[Push, ...]
    jacobian_colors: np.ndarray
    step_colors: np.ndarray
    start_colors: np.ndarray
    rotated: tuple[bool, ...]

    @classmethod
    def of(
        cls,
        sample: Sample,
        *,
        order: int | None = None,
        diagonal: bool = False,
        max_bytes: int | None = None,
    ) -> "Influence":
        """Finds the structure of a step, given values of one time step.

        Args:
            sample: the step and the values.
            order: the number of steps within which influence is kept; None is any number.
            diagonal: whether only the diagonal of J counts.
            max_bytes: the largest influence of the whole batch; None is any.

        Raises:
            Refused: the influence is larger than that.
        """
        step, arrays, learned, state, x, from_start = sample
        theta, n = learned.reals(arrays), step.size
        row: State = jax.tree.map(lambda leaf: leaf[(0,) * step.rank], state)
        row_x = jax.tree.map(lambda leaf: leaf[(0,) * step.rank], x)

        def transition(theta, vector):
            return step.transition(learned.join(theta, arrays), State(vector, row.rest), row_x)

        def initial(theta):
            return step.initial(learned.join(theta, arrays)).vector

        found = structure_of(transition, initial, theta, row.vector, step.flat)
        if diagonal:
            only = found.jacobian & np.eye(n, dtype=bool)
            found = dataclasses.replace(found, jacobian=only)
        reached, of_initial = reach(found, order)
        immediate, firsts, kept = list(found.immediate), list(found.initial), []
        for number, leaf in enumerate(theta):
            shape = leaf.shape
            if found.rotated[number]:
                shape = (*shape[:-1], shape[-1] // 2)
                for group in (reached, immediate, firsts):
                    group[number] = first_half(group[number])
            kept.append(Kept.of(reduced(reached[number]), shape))
        none = (np.zeros((n, 1), bool),) * from_start
        if from_start:
            kept.append(Kept.of(reduced(of_initial), (n,)))
        rows = math.prod(state.vector.shape[:-1]) if step.rank else 1
        size = rows * sum(k.elements for k in kept) * step.flat.dtype.itemsize
        if max_bytes is not None and size > max_bytes:
            shapes = ", ".join(str(list(k.stored)) for k in kept if k.elements)
            raise Refused(
                f"the influence of {len(theta)} arrays of parameters on a state of {n} numbers "
                f"takes {size:,} bytes for {rows} rows ({shapes} each), and max_bytes is "
                f"{max_bytes:,}; use a cell with a diagonal Jacobian, learning.SnAp(1), "
                "learning.UORO(), learning.TBPTT(window), or a larger max_bytes"
            )
        groups = [colors(conflicts_of((found.jacobian,)))]
        pushes = []
        for pushed in (immediate, firsts):
            groups.append(colors(conflicts_of((*pushed, np.zeros((n, 1), bool)))))
            pairs = zip(kept, (*pushed, *none), strict=True)
            pushes.append(tuple(Push.of(k, b, groups[-1]) for k, b in pairs))
        moves = tuple(Move.of(k, found.jacobian, groups[0]) for k in kept)
        rotated = (*found.rotated, *(False,) * from_start)
        return cls(step, learned, from_start, tuple(kept), moves, *pushes, *groups, rotated=rotated)

    def cost(self, batch: tuple[int, ...]) -> Cost:
        """What is kept and done: J M + B, and s̄ M."""
        rows = math.prod(batch) if self.step.rank else 1
        elements = rows * sum(kept.elements for kept in self.kept)
        operations = rows * sum(
            (2 * move.neighbors.shape[1] + 3 + 2 * rotated) * kept.elements
            for kept, move, rotated in zip(self.kept, self.moves, self.rotated, strict=True)
        )
        return Cost(elements, elements * self.step.flat.dtype.itemsize, operations)

    def nothing(self, batch: tuple[int, ...], key: Array | None, arrays: Sequence[Any]) -> Memory:
        """The influence before the first step: none, but of the initial state on itself."""
        batch, dtype = batch if self.step.rank else (), self.step.flat.dtype
        memory = [jnp.zeros((*batch, *kept.stored), dtype) for kept in self.kept]
        if self.from_start:
            identity = self.kept[-1].rows == np.arange(self.step.size)
            memory[-1] = jnp.broadcast_to(jnp.asarray(identity, dtype), memory[-1].shape)
        return tuple(memory)

    def of_initial_state(self, arrays: Sequence[Any], key: Array | None = None) -> Memory:
        """The influence on ``cell.init_state``, of one row."""
        dtype = self.step.flat.dtype
        zeros = [jnp.zeros(kept.stored, dtype) for kept in self.kept]
        if not any(push.mask.any() for push in self.starts):
            return tuple(zeros)

        def initial(theta):
            return self.step.initial(self.learned.join(theta, arrays)).vector

        pull = jax.vjp(initial, self.learned.reals(arrays))[1]
        products = jax.vmap(lambda s: pull(s)[0])(_seeds(self.start_colors, dtype, arrays))
        return self._add(zeros, self.starts, products)

    def advance(
        self,
        memory: Memory,
        arrays: Sequence[Any],
        state: State,
        x: PyTree,
        key: Array | None = None,
    ) -> Memory:
        """The influence after a step from ``state``."""

        def row(memory, arrays, state, x):
            def transition(theta, vector):
                whole = self.learned.join(theta, arrays)
                return self.step.transition(whole, State(vector, state.rest), x)

            theta, dtype = self.learned.reals(arrays), self.step.flat.dtype
            pull = jax.vjp(transition, theta, state.vector)[1]
            jacobian = jax.vmap(lambda s: pull(s)[1])(_seeds(self.jacobian_colors, dtype, state))
            products = jax.vmap(lambda s: pull(s)[0])(_seeds(self.step_colors, dtype, state))
            moved = [m(jacobian, leaf) for m, leaf in zip(self.moves, memory, strict=True)]
            return self._add(moved, self.pushes, products)

        return self.step.over_rows(row, (True, False, True, True))(memory, arrays, state, x)

    def contract(self, memory: Memory, cotangent: Array) -> tuple[Reals, Array | None]:
        """``s̄ M``: the gradients of the learned arrays, and that of the initial state."""
        lead, s = cotangent.shape[:-1], cotangent.reshape(-1, self.step.size)
        none, turned = jnp.zeros_like(s[:, :1]), s
        if any(self.rotated):
            turned = jnp.concatenate([transposed_rotation(self.step.flat, s), none], axis=-1)
        s = jnp.concatenate([s, none], axis=-1)
        found = []
        for number, (kept, leaf) in enumerate(zip(self.kept, memory, strict=True)):
            per_row = number == len(self.kept) - self.from_start
            leaf, chosen = leaf.reshape(len(s), *kept.stored), s[:, kept.rows]
            if self.rotated[number]:  # both halves in one fusion
                chosen = jnp.stack([chosen, turned[:, kept.rows]], axis=-2)
                leaf = leaf[..., None, :]
            few, varying = _squeezed(chosen, 2)
            if varying and not per_row and 0 < len(kept.rows) <= 8:
                # Fused with the multiplication; a batched product of a few numbers each is slow.
                weighted = chosen * leaf
                terms = [weighted[:, place] for place in range(weighted.shape[1])]
                total = functools.reduce(jnp.add, terms)
                total = total[0] if len(s) == 1 else total.sum(axis=0)
            else:
                axes = list(range(2, leaf.ndim))
                own = list(axes)
                if self.rotated[number]:
                    leaf = leaf.squeeze(own.pop(-2))
                operands = (few, [0, 1, *varying], leaf, [0, 1, *own])
                total = jnp.einsum(*operands, [0, *axes] if per_row else axes, precision=EXACT)
            if self.rotated[number]:
                total = total.reshape(*total.shape[:-2], -1)
            found.append(total)
        of_start = found.pop().reshape(*lead, self.step.size) if self.from_start else None
        return tuple(found), of_start

    def _add(self, moved: Sequence[Array], pushes: Sequence[Push], products: Reals) -> Memory:
        total, dtype = list(moved), self.step.flat.dtype
        for number, product in enumerate(products):  # the initial state has no product
            if self.rotated[number]:
                product = product[..., : product.shape[-1] // 2]
            pushed = pushes[number](product, dtype)
            if pushed is not None:
                total[number] = total[number] + pushed
        return tuple(total)


def _seeds(groups: np.ndarray, dtype: Any, like: PyTree) -> Array:
    """The cotangents of the products, ``[colors, n]``."""
    seeds = jnp.asarray(np.arange(groups.max(initial=-1) + 1)[:, None] == groups, dtype)
    return equally_varying((seeds, like))[0]


def _squeezed(array: Array, first: int) -> tuple[Array, list[int]]:
    """Without the axes of size 1 from ``first`` on, and the numbers of the others."""
    axes = range(first, array.ndim)
    alone = tuple(axis for axis in axes if array.shape[axis] == 1)
    return array.squeeze(alone), [axis for axis in axes if axis not in alone]
