"""Data parallelism: the rows of a batch spread over devices, the parameters on every one.

Only the layout is said here. What the step computes is the same program as on one device, and the
compiler puts the sums over rows together; so results agree to rounding.
"""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.common.errors import UserError
from experiments.common.step import State

PyTree = Any


def layout(
    count: int, state: State, batch: PyTree, rows: PyTree, carry_rows: PyTree
) -> tuple[State, PyTree, NamedSharding]:
    """Where the state, a batch, and whatever is the same everywhere shall lie.

    Args:
        count: how many of the local devices to use; 0 is all.
        state: of the run.
        batch: as every step has it.
        rows: the axis of rows of every leaf of the batch: a number, or a tree of numbers that may
            end above the leaves. None: such leaves are copied to every device.
        carry_rows: the same for `state.carry`.

    Raises:
        UserError: there are fewer devices, or they cannot share the rows evenly.
    """
    devices = jax.local_devices()
    count = count or len(devices)
    if count > len(devices):
        raise UserError(f"devices: this process has {len(devices)}, and --devices is {count}")
    mesh = jax.make_mesh((count,), ("rows",), axis_types=(AxisType.Auto,), devices=devices[:count])
    everywhere = NamedSharding(mesh, PartitionSpec())

    def spread(axis: int | None, leaf: Any) -> NamedSharding:
        if axis is None:
            return everywhere
        if leaf.ndim <= axis or leaf.shape[axis] % count:
            raise UserError(
                f"devices: {count} devices cannot share evenly an array of shape {leaf.shape} "
                f"along axis {axis}; change --devices or the number of rows"
            )
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "rows"))

    def place(axes: PyTree, tree: PyTree) -> PyTree:
        return jax.tree.map(
            lambda axis, part: jax.tree.map(lambda leaf: spread(axis, leaf), part),
            axes,
            tree,
            is_leaf=lambda node: node is None,
        )

    replicated = jax.tree.map(lambda _: everywhere, state)
    return replicated._replace(carry=place(carry_rows, state.carry)), place(rows, batch), everywhere
