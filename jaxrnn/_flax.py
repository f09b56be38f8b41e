"""What the Flax adapters share: layout, order and padding of a sequence, and names of parameters.

Nothing here imports Flax.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import engines, layers
from jaxrnn._cell import input_rank
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import unroll
from jaxrnn.layers.bidirectional import reverse_layer
from jaxrnn.wrappers._wrapper import Wrapper


class Options(NamedTuple):
    """How one call of an RNN runs, in Flax' words."""

    time_major: bool
    return_carry: bool
    reverse: bool
    keep_order: bool
    run_padding: bool
    engine: engines.Engine | None


def check_own(cell: Any, foreign: str) -> None:
    """Raises unless this is a jaxrnn cell or layer that draws its own parameters."""
    lacks = [name for name in ("init", "init_state") if not callable(getattr(cell, name, None))]
    if isinstance(cell, type) or lacks:
        raise TypeError(
            f"cell must be a jaxrnn cell or layer with init and init_state, or {foreign}, got "
            f"{cell!r}; write e.g. RNN(jaxrnn.LSTM(hidden_size=128))"
        )


def engine_of(engine: engines.Engine | None, steps: int) -> engines.Engine | None:
    """The engine that ``engine`` and Flax' ``unroll`` ask for together."""
    if steps == 1:
        return engine
    if engine is not None:
        raise ValueError(
            f"engine and unroll were both given ({engine!r} and {steps}); an engine holds its own "
            "options: write e.g. engine=jaxrnn.engines.Hoisted(unroll=8) alone"
        )
    return engines.Hoisted(unroll=steps)


def time_axis(inputs: PyTree, rank: int, time_major: bool) -> int:
    """Where time is: Flax puts it between the batch axes and the features."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        if jnp.ndim(leaf) < rank + 1:
            wanted = "[time, *batch, features]" if time_major else "[*batch, time, features]"
            raise ValueError(
                f"inputs{jax.tree_util.keystr(path)} must have shape {wanted} with {rank} axes of "
                f"features, so {rank + 1} axes or more, got {jnp.shape(leaf)}"
            )
        return 0 if time_major else jnp.ndim(leaf) - rank - 1
    raise ValueError(f"inputs must hold at least one array, got {inputs!r}")


def first_step(inputs: PyTree, axis: int) -> PyTree:
    """The input of one step, by which a cell knows its sizes."""
    return jax.tree.map(lambda leaf: jax.lax.index_in_dim(leaf, 0, axis, keepdims=False), inputs)


def run(
    network: Any,
    params: PyTree,
    inputs: PyTree,
    carry: PyTree,
    lengths: Any,
    key: Array | None,
    options: Options,
) -> Any:
    """Runs a cell or a layer over a sequence laid out as Flax lays it out.

    Returns what Flax returns: the outputs, or ``(carry, outputs)``.
    """
    axis = time_axis(inputs, input_rank(network), options.time_major)
    batch_rank = jnp.ndim(jax.tree.leaves(inputs)[0]) - input_rank(network) - 1
    xs = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axis, 0), inputs)
    if lengths is not None and options.run_padding:
        carry, ys = _through_padding(network, params, xs, carry, lengths, key, options)
    else:
        layer = _as_layer(network, options.engine)
        layer = reverse_layer(layer) if options.reverse else layer
        carry, ys = layer.apply(params, carry, xs, lengths=lengths, key=key)
        if options.reverse and not options.keep_order:
            ys = flip(ys, lengths)
    outputs = jax.tree.map(
        lambda leaf: leaf if options.time_major else jnp.moveaxis(leaf, 0, batch_rank), ys
    )
    return (carry, outputs) if options.return_carry else outputs


def flip(xs: PyTree, lengths: Any) -> PyTree:
    """Turns each row around, its padding left at its end; leaves ``[time, *batch, ...]``."""
    if lengths is None:
        return jax.tree.map(lambda leaf: jnp.flip(leaf, 0), xs)
    lengths = jnp.asarray(lengths)

    def turned(leaf: Array) -> Array:
        time = jnp.arange(leaf.shape[0], dtype=lengths.dtype)
        source = lengths - 1 - time.reshape(-1, *(1 for _ in lengths.shape))
        return _take(leaf, source % max(1, leaf.shape[0]))

    return jax.tree.map(turned, xs)


def _take(leaf: Array, steps: Array) -> Array:
    """The steps ``[n, *batch]`` of each row of ``[time, *batch, ...]``."""
    steps = steps.reshape(*steps.shape, *(1,) * (leaf.ndim - steps.ndim))
    return jnp.take_along_axis(leaf, steps, 0)


def _as_layer(network: Any, engine: engines.Engine | None) -> Any:
    if not callable(getattr(network, "apply", None)):
        return layers.Recurrent(network, engine)
    if engine is not None:
        raise ValueError(
            f"engine={engine!r} was given beside the layer {type(network).__name__}, whose cells "
            "have engines of their own: write jaxrnn.layers.Recurrent(cell, engine=...) inside it"
        )
    return network


def _through_padding(network, params, xs, carry, lengths, key, options: Options):
    """Flax' way: every step of every row is run, and each row's carry is looked up afterwards."""
    layer = _as_layer(network, options.engine)
    if not isinstance(layer, layers.Recurrent) or layer.reverse:
        raise ValueError(
            f"run_padding=True takes a cell, got {network!r}; leave run_padding out, so that "
            "steps past a row's length are skipped"
        )
    lengths = jnp.asarray(lengths)
    xs = flip(xs, lengths) if options.reverse else xs
    cell = _EmitBoth(layer.cell) if options.return_carry else layer.cell
    carry, ys = unroll(cell, params, xs, carry, key=key, engine=layer.engine)
    if options.return_carry:
        carries, ys = ys
        time = jax.tree.leaves(xs)[0].shape[0]
        carry = jax.tree.map(lambda leaf: _take(leaf, (lengths[None] - 1) % time)[0], carries)
    return carry, flip(ys, lengths) if options.reverse and options.keep_order else ys


@dataclasses.dataclass(frozen=True)
class _EmitBoth(Wrapper):
    """Gives the state beside the output."""

    def step(self, params, state, x, *, key=None):
        state, y = super().step(params, state, x, key=key)
        return state, (state, y)

    def readout(self, params, state, x):
        return state, super().readout(params, state, x)


@dataclasses.dataclass(frozen=True)
class _Carried(Wrapper):
    """A cell whose states are of the kind that came, whatever its own initial states are."""

    structure: Any = None
    leaves: tuple[tuple[tuple[int, ...], Any], ...] = ()  # shapes beside the batch, and dtypes

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        zeros = [jnp.zeros((*batch_shape, *shape), dtype) for shape, dtype in self.leaves]
        return jax.tree.unflatten(self.structure, zeros)


def carried(cell: Any, carry: PyTree, batch_rank: int) -> Any:
    """A cell for states like this carry; Flax asks cells for none when it is given one."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, carry))
    kinds = tuple((leaf.shape[batch_rank:], leaf.dtype) for leaf in leaves)
    return _Carried(cell, structure, kinds)


def one_float_dtype(params: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """Widens floating-point leaves to the widest dtype among them.

    A Flax cell casts what it is given, and widening changes nothing that it would not change
    itself; `jaxrnn.unroll` promotes nothing, and wants one dtype at its door.
    """
    floats = [
        leaf.dtype
        for leaf in jax.tree.leaves((params, xs))
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    if len(set(floats)) < 2:
        return params, xs
    wide = functools.reduce(jnp.promote_types, floats)

    def cast(leaf):
        return leaf.astype(wide) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, (params, xs))


def one_key(keys: list[Array]) -> Array | None:
    """One key that depends on all of these."""
    if not keys:
        return None
    return functools.reduce(
        lambda one, other: jax.random.fold_in(one, jax.random.bits(other, (), "uint32")), keys
    )


# Names ------------------------------------------------------------------------------------------


def named(tree: PyTree) -> dict[str, Any]:
    """A pytree as nested dicts by its names, which is how Flax keeps parameters."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *outer, inner = [_word(entry) for entry in path] or ["value"]
        node = nested
        for word in outer:
            node = node.setdefault(word, {})
        node[inner] = leaf
    return nested


def unnamed(like: PyTree, nested: Any) -> PyTree:
    """The inverse of `named`, for a pytree structured like this one."""

    def find(path, leaf):
        node = nested
        for word in [_word(entry) for entry in path] or ["value"]:
            node = node[word]
        return node

    return jax.tree_util.tree_map_with_path(find, like)


def _word(entry: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
