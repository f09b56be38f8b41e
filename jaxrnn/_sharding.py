"""What the types of arrays say about devices, and casts between such types.

Varying axes are those of `jax.shard_map`, shardings those of meshes with explicit axes. Under
automatic sharding the types say nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn._typing import Array, PyTree


def equally_varying(tree: PyTree) -> PyTree:
    """Within `jax.shard_map`, casts arrays to vary along the axes along which any of them does.

    The gradient of such a cast is one sum over devices.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    own = [_varying_axes(leaf) for leaf in leaves]
    union = frozenset().union(*own)
    cast = [_cast(leaf, union - axes) for leaf, axes in zip(leaves, own, strict=True)]
    return jax.tree.unflatten(structure, cast)


def reshard_like(tree: PyTree, wanted: PyTree) -> PyTree:
    """A tree of arrays, sharded as the types in ``wanted``; the same object if nothing changes."""
    before = jax.eval_shape(lambda tree: tree, tree)
    changed = False

    def reshard(leaf, old, new):
        nonlocal changed
        if new.manual_axis_type is not None:
            axes = new.manual_axis_type.varying - old.manual_axis_type.varying
            changed |= bool(axes)
            return _cast(leaf, axes)
        if new.sharding != old.sharding:
            changed = True
            return jax.reshard(leaf, new.sharding)
        return leaf

    placed = jax.tree.map(reshard, tree, before, wanted)
    return placed if changed else tree


def sharded_as(x: Array, like: Array) -> Array:
    """An array of the same shape as another, sharded explicitly as that one is, if it is."""
    return jax.reshard(x, jax.typeof(like).sharding) if is_explicit(like) else x


def on_mesh_of(tree: PyTree, xs: PyTree) -> PyTree:
    """A tree whose arrays that are on no mesh are on that of ``xs``, the same on every device.

    Only if the inputs are sharded explicitly.
    """
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(xs) if is_explicit(leaf)]
    if not meshes:
        return tree

    def place(leaf):
        alone = jax.typeof(leaf).sharding.mesh.empty
        return jax.reshard(leaf, NamedSharding(meshes[0], P())) if alone else leaf

    return jax.tree.map(place, tree)


def with_rows_of(state: PyTree, xs: PyTree, rank: int) -> PyTree:
    """A state whose batch axes are sharded as those of the inputs ``[time, *batch, ...]``.

    Those of a state that is sharded stay.
    """
    sharded = [leaf for leaf in jax.tree.leaves(xs) if any(specs_of(leaf)[1 : 1 + rank])]
    if not sharded or is_explicit(state):
        return state
    batch, rows = sharded[0].shape[1 : 1 + rank], specs_of(sharded[0])[1 : 1 + rank]

    def place(leaf):
        if leaf.shape[:rank] != batch:
            return leaf
        spec = P(*rows, *[None] * (leaf.ndim - rank))
        return jax.reshard(leaf, NamedSharding(jax.typeof(sharded[0]).sharding.mesh, spec))

    return jax.tree.map(place, state)


def is_explicit(tree: PyTree) -> bool:
    """Whether an array of a tree is sharded explicitly, by its type."""
    return any(_is_sharded(jax.typeof(leaf)) for leaf in jax.tree.leaves(tree))


def specs_of(tree: PyTree) -> PyTree:
    """The partition specs of arrays, or of types."""

    def spec(leaf):
        kind = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        return kind.sharding.spec if kind.sharding else P()

    return jax.tree.map(spec, tree)


def with_automatic_axes(function: Callable, specs: PyTree) -> Callable:
    """A function computed under automatic sharding.

    Args:
        function: arrays with explicit shardings come to it without.
        specs: how its results are sharded.

    Raises:
        ValueError: no mesh is set.
    """
    if jax.sharding.get_abstract_mesh().empty:
        raise ValueError(
            "arrays are sharded explicitly and no mesh is set; call within jax.set_mesh(mesh), "
            "where mesh is that of the arrays"
        )
    return jax.sharding.auto_axes(function, out_sharding=specs)


def _is_sharded(kind: Any) -> bool:
    return any(kind.sharding.spec)


def _varying_axes(x: Any) -> frozenset[str]:
    kind = jax.eval_shape(lambda x: x, x).manual_axis_type
    return frozenset() if kind is None else frozenset(kind.varying)


def _cast(x: Array, axes: frozenset[str]) -> Array:
    return jax.lax.pcast(x, tuple(axes), to="varying") if axes else x
