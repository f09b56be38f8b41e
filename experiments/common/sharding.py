"""How batches, states and parameters are sharded over the devices of all processes.

S. Rajbhandari, J. Rasley, O. Ruwase and Y. He, "ZeRO: memory optimizations toward training trillion
parameter models", 2020: stage 1 shards the optimizer state, stage 3 (FSDP) the parameters too.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.common.errors import UserError

PyTree = Any
ROWS = "rows"
Shard = Literal["none", "optimizer", "parameters"]


def make_mesh(devices: int, rows: int, report: Callable[[str], None]) -> Mesh | None:
    """The mesh of the devices that share a batch, process after process; None for one device.

    Args:
        devices: devices of each process; 0 is all, or the largest number that divides the rows.
        rows: the rows of a batch.
        report: receives a line if some devices are not used.
    """
    processes, local = jax.process_count(), jax.local_device_count()
    if devices > local:
        raise UserError(f"devices: this process has {local}, and --devices is {devices}")
    divisors = [n for n in range(1, (devices or local) + 1) if rows % (n * processes) == 0]
    count = max(divisors, default=0)
    if count == 0 or devices not in (0, count):
        raise UserError(
            f"devices: {rows} rows cannot be shared by {processes} x {devices or 1} devices; "
            "change --devices, the number of processes, or the batch size"
        )
    if count < (devices or local):
        report(f"uses {count} of {local} devices, the largest number that divides {rows} rows")
    if count * processes == 1:
        return None
    own = {index: [] for index in range(processes)}
    for device in jax.devices():
        own[device.process_index].append(device)
    chosen = [device for group in own.values() for device in group[:count]]
    return jax.make_mesh((len(chosen),), (ROWS,), axis_types=(AxisType.Auto,), devices=chosen)


def count_rows(axes: PyTree, tree: PyTree) -> int:
    """The largest number that divides the sizes of some axes, a tree prefix of `tree`."""
    sizes = []

    def add(axis, subtree):
        if axis is not None:
            leaves = jax.tree.leaves(subtree)
            sizes.extend(leaf.shape[axis] if leaf.ndim > axis else 1 for leaf in leaves)

    jax.tree.map(add, axes, tree, is_leaf=_is_none)
    return math.gcd(*sizes)


class Layout(NamedTuple):
    """The shardings of a step's arguments and results.

    Attributes:
        state: of the state, as a `State`.
        batch: of a batch, a tree prefix.
        replicated: of what every device holds.
    """

    state: Any
    batch: PyTree
    replicated: NamedSharding


def make_layout(mesh: Mesh, state: Any, batch_axes: PyTree, carry_axes: PyTree, what: Shard):
    """The shardings of a `State` and of a batch.

    Args:
        mesh: the devices.
        state: the state, or its shapes.
        batch_axes: the axis of a batch to shard, or a tree prefix of axes; None replicates.
        carry_axes: the same for the carry.
        what: `"optimizer"` shards the optimizer state and the EMA of the parameters,
            `"parameters"` those and the parameters; `"none"` replicates them.
    """

    def rows(axis: int | None) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*() if axis is None else (*[None] * axis, ROWS)))

    def spread(leaf: Any) -> NamedSharding:
        """Shards the largest axis that the devices divide."""
        sizes = [(n, -axis) for axis, n in enumerate(leaf.shape) if n and n % mesh.size == 0]
        return rows(-max(sizes)[1] if sizes else None)

    batch, carry = (jax.tree.map(rows, axes, is_leaf=_is_none) for axes in (batch_axes, carry_axes))
    replicated = rows(None)
    held = jax.tree.map(lambda leaf: replicated, state)
    spreads = jax.tree.map(spread, state)
    params = spreads.params if what == "parameters" else held.params
    more = held if what == "none" else spreads
    layout = type(state)(params, more.opt_state, carry, more.ema)
    return Layout(layout, batch, replicated)


def place(tree: PyTree, shardings: PyTree) -> PyTree:
    """Shards arrays of which every process holds the whole."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def put(sharding, subtree):
        def make(leaf):
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

        return jax.tree.map(make, subtree)

    return jax.tree.map(put, shardings, tree, is_leaf=lambda x: isinstance(x, NamedSharding))


def own_rows(batch: PyTree, axes: PyTree) -> PyTree:
    """The rows of a batch that belong to this process."""
    index, count = jax.process_index(), jax.process_count()

    def cut(axis, subtree):
        if axis is None:
            return subtree
        return jax.tree.map(lambda leaf: np.split(leaf, count, axis)[index], subtree)

    return jax.tree.map(cut, axes, batch, is_leaf=_is_none)


def place_rows(own: PyTree, shardings: PyTree, axes: PyTree) -> PyTree:
    """Shards a batch of which every process has its own rows, by `axes` as in `Task`."""

    def put(axis, sharding, subtree):
        def make(leaf):
            leaf = np.asarray(leaf)
            shape = list(leaf.shape)
            if axis is not None:
                shape[axis] *= jax.process_count()
            return jax.make_array_from_process_local_data(sharding, leaf, tuple(shape))

        return jax.tree.map(make, subtree)

    return jax.tree.map(put, axes, shardings, own, is_leaf=_is_none)


def _is_none(value: Any) -> bool:
    return value is None
