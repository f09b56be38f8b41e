"""The structure of a step's Jacobian: which elements of the new state depend on which old ones.

Elements that depend on each other, directly or through others, form a block; a cell whose blocks
have one element has a diagonal Jacobian, and small blocks make the Jacobian cheap. The structure is
derived from the equations of the step.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from scipy.sparse.csgraph import connected_components

from jaxrnn._schedule.dependence import Labels, dependence
from jaxrnn._schedule.flat_state import FlatState
from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.trace import STATE

LARGEST = 4096
"""States of more real numbers than this are not analyzed (the labels would take megabytes), and
count as one block."""


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a Jacobian.

    Args:
        members: int ``[size, count]``: the positions of each block's elements in the flat state;
            ``state_size`` is the padding of blocks with fewer elements than the largest.
        state_size: elements of the flat state.
    """

    members: np.ndarray
    state_size: int

    @property
    def size(self) -> int:
        """Elements of the largest block; 1 is a diagonal Jacobian."""
        return self.members.shape[0]

    @property
    def count(self) -> int:
        """The number of blocks."""
        return self.members.shape[1]

    @property
    def in_order(self) -> bool:
        """Whether ``members`` is the flat state reshaped, without padding."""
        return bool(np.array_equal(self.members.ravel(), np.arange(self.state_size)))


def blocks(dependent: np.ndarray) -> Blocks:
    """The blocks of a Jacobian that is zero except where ``dependent[new, old]``."""
    n = dependent.shape[0]
    if dependent.all():
        return Blocks(np.arange(n)[:, None], n)
    count, label = connected_components(dependent, directed=False)
    groups = [np.flatnonzero(label == number) for number in range(count)]
    groups.sort(key=lambda group: group[0])
    members = np.full((max(map(len, groups)), count), n)
    for number, group in enumerate(groups):
        members[: len(group), number] = group
    return Blocks(members, n)


def state_blocks(
    plan: Schedule, flat: FlatState, batch_rank: int, *, quasi: bool = False
) -> Blocks:
    """The blocks of a step's Jacobian.

    With ``quasi``, square recurrent kernels are approximated by their diagonals.
    """
    n = flat.size
    if n > LARGEST:
        return Blocks(np.arange(n)[:, None], n)
    identity = np.packbits(np.eye(n, dtype=bool), axis=-1)
    seeds, begin = [], 0
    for shape, size in zip(flat.shapes, flat.sizes, strict=True):
        bits = identity[begin : begin + size]
        begin += size
        if size != math.prod(shape):  # real and imaginary parts
            bits = bits[: size // 2] | bits[size // 2 :]
        seeds.append(bits.reshape(*(1,) * batch_rank, *shape, -1))
    diagonal = {id(p.eqn) for p in plan.products if p.is_square} if quasi else set()
    rows = []
    for v, found in zip(plan.state_in, _new_state_labels(plan, seeds, diagonal), strict=True):
        shape = v.aval.shape[batch_rank:]
        bits = np.zeros((1, identity.shape[-1]), np.uint8) if found is None else found
        # The rows of a batch have the same structure; where an operation distinguishes them, the
        # structure is the union over rows.
        bits = np.bitwise_or.reduce(bits, tuple(range(bits.ndim - 1 - len(shape))))
        bits = np.broadcast_to(bits, (*shape, bits.shape[-1])).reshape(-1, bits.shape[-1])
        copies = 2 if jnp.issubdtype(v.aval.dtype, jnp.complexfloating) else 1
        rows += [bits] * copies
    dependent = np.unpackbits(np.concatenate(rows), axis=-1, count=n).astype(bool)
    return blocks(dependent)


def rows_are_independent(plan: Schedule, flat: FlatState, batch_rank: int) -> bool:
    """Whether each row of a batch depends only on the same row of the old state.

    A row is labeled by the binary digits of its number, as pairs "digit is 0", "digit is 1": any
    other row adds a label that the row itself does not have.
    """
    batch = plan.state_in[0].aval.shape[:batch_rank]
    count = math.prod(batch)
    digits = np.arange(count)[:, None] >> np.arange(max(1, (count - 1).bit_length())) & 1
    own = np.packbits(np.concatenate([digits == 0, digits == 1], axis=-1), axis=-1)
    own = own.reshape(*batch, own.shape[-1])
    seeds = [own.reshape(*batch, *(1,) * len(shape), -1) for shape in flat.shapes]
    for found, shape in zip(_new_state_labels(plan, seeds, set()), flat.shapes, strict=True):
        allowed = own.reshape(*batch, *(1,) * len(shape), -1)
        if found is not None and (found & ~allowed).any():
            return False
    return True


def _new_state_labels(plan: Schedule, seeds: list[np.ndarray], diagonal: set[int]) -> list[Labels]:
    """The labels of the new state, given those of the old one."""
    labels = iter(seeds)
    inputs = [next(labels) if kind == STATE else None for kind in plan.step.kinds]
    return dependence(plan.step.jaxpr, inputs, diagonal)[: len(plan.state_out)]
