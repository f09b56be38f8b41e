"""The structure of a step's Jacobian: which elements of the new state depend on which of the old.

Elements that depend on each other, directly or through others, form a block; a cell whose blocks
have one element has a diagonal Jacobian, one whose blocks are small has a cheap one. Nothing is
declared: it is read off the step's equations.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.sparse.csgraph import connected_components

from jaxrnn._schedule.dependence import Labels, dependence
from jaxrnn._schedule.flat_state import FlatState
from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.trace import STATE, Step

LARGEST = 4096
"""States of more real numbers than this are not looked into (the sets of labels would take more
than megabytes), and count as one block."""


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a Jacobian.

    Args:
        members: int ``[size, count]``: the places of each block's elements in the flat state;
            ``state_size`` where a block has fewer elements than the largest.
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
        """How many blocks there are."""
        return self.members.shape[1]

    @property
    def in_order(self) -> bool:
        """Whether the elements lie in the flat state as they do here, with none missing."""
        return bool(np.array_equal(self.members.ravel(), np.arange(self.state_size)))


def blocks(dependent: np.ndarray) -> Blocks:
    """The blocks of a Jacobian that can be non-zero where ``dependent[new, old]``."""
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
    step: Step, plan: Schedule, flat: FlatState, batch_rank: int, *, quasi: bool = False
) -> Blocks:
    """The blocks of a step's Jacobian; with ``quasi``, of its approximation by `quasi_products`."""
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
    ignored = {id(product.eqn) for product in quasi_products(plan)} if quasi else set()
    rows = []
    for v, found in zip(plan.state_in, _follow(step, plan, seeds, ignored), strict=True):
        shape = v.aval.shape[batch_rank:]
        bits = np.zeros((1, identity.shape[-1]), np.uint8) if found is None else found
        # A batch costs nothing, since its rows are alike; where an operation told them apart, the
        # structure is that of all rows together.
        bits = np.bitwise_or.reduce(bits, tuple(range(bits.ndim - 1 - len(shape))))
        bits = np.broadcast_to(bits, (*shape, bits.shape[-1])).reshape(-1, bits.shape[-1])
        copies = 2 if jnp.issubdtype(v.aval.dtype, jnp.complexfloating) else 1
        rows += [bits] * copies
    dependent = np.unpackbits(np.concatenate(rows), axis=-1, count=n).astype(bool)
    return blocks(dependent)


def rows_are_apart(step: Step, plan: Schedule, flat: FlatState, batch_rank: int) -> bool:
    """Whether each row of a batch depends on the same row of the old state alone.

    A row is labelled by the digits of its number, as pairs "this digit is 0", "this digit is 1":
    any other row brings a label that is not its own.
    """
    batch = plan.state_in[0].aval.shape[:batch_rank]
    count = math.prod(batch)
    digits = np.arange(count)[:, None] >> np.arange(max(1, (count - 1).bit_length())) & 1
    own = np.packbits(np.concatenate([digits == 0, digits == 1], axis=-1), axis=-1)
    own = own.reshape(*batch, own.shape[-1])
    seeds = [own.reshape(*batch, *(1,) * len(shape), -1) for shape in flat.shapes]
    for found, shape in zip(_follow(step, plan, seeds, set()), flat.shapes, strict=True):
        allowed = own.reshape(*batch, *(1,) * len(shape), -1)
        if found is not None and (found & ~allowed).any():
            return False
    return True


def quasi_products(plan: Schedule) -> list[Any]:
    """The products ``h [n] @ kernel [n, k n]`` in the loop, of which a diagonal can be taken."""
    return [product for product in plan.products if is_square(product.eqn, product.operand)]


def is_square(eqn: Any, operand: Any) -> bool:
    """Whether an equation multiplies ``[*batch, n]`` by square kernels ``[n, n]`` side by side."""
    if eqn.primitive.name != "dot_general" or eqn.invars[0] is not operand:
        return False
    x, kernel = (v.aval for v in eqn.invars)
    wanted = (((x.ndim - 1,), (0,)), ((), ()))
    plain = kernel.ndim == 2 and eqn.params["dimension_numbers"] == wanted
    return plain and kernel.shape[1] % kernel.shape[0] == 0


def _follow(step: Step, plan: Schedule, seeds: list[np.ndarray], ignored: set[int]) -> list[Labels]:
    """The labels of the new state, from those of the old."""
    labels = iter(seeds)
    inputs = [next(labels) if kind == STATE else None for kind in step.kinds]
    return dependence(step.jaxpr, inputs, ignored)[: len(plan.state_out)]
