"""What the Flax adapters share: time axes, reversal and padding, parameter names, keys.

Nothing here imports Flax.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import engines, layers
from jaxrnn._cell import input_rank
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import unroll
from jaxrnn.layers.bidirectional import reverse_layer
from jaxrnn.wrappers._wrapper import Wrapper


class Options(NamedTuple):
    """How one call of an RNN runs, named as in Flax."""

    time_major: bool
    return_carry: bool
    reverse: bool
    keep_order: bool
    run_padding: bool
    engine: engines.Engine | None


class Bound(NamedTuple):
    """A foreign cell's variables and the keys that stay the same for a whole sequence."""

    variables: PyTree
    keys: dict[Any, Array]


def call_options(layer: Any, engine: engines.Engine | None, **given: bool | None) -> Options:
    """The options of one call: each argument that is None takes the layer's attribute."""
    chosen = {n: getattr(layer, n) if value is None else value for n, value in given.items()}
    return Options(**chosen, run_padding=layer.run_padding, engine=engine)


def check_own(cell: Any, foreign: str) -> None:
    """Raises unless this is a jaxrnn cell or layer with ``init`` and ``init_state``."""
    lacks = [name for name in ("init", "init_state") if not callable(getattr(cell, name, None))]
    if isinstance(cell, type) or lacks:
        raise TypeError(
            f"cell must be a jaxrnn cell or layer with init and init_state, or {foreign}, got "
            f"{cell!r}; write e.g. RNN(jaxrnn.LSTM(hidden_size=128))"
        )


def check_foreign(cell: Any, module: type, flavor: str) -> None:
    """Raises unless this is an instance of ``module`` with Flax's cell protocol."""
    lacks = [n for n in ("initialize_carry", "num_feature_axes") if not hasattr(cell, n)]
    if not isinstance(cell, module) or lacks:
        raise TypeError(
            f"cell must be a Flax {flavor} cell, a module with initialize_carry and "
            f"num_feature_axes, got {cell!r}; subclass flax.{flavor}.RNNCellBase"
        )


def engine_of(engine: engines.Engine | None, steps: int) -> engines.Engine | None:
    """The engine that ``engine`` and Flax's ``unroll`` select together."""
    if steps == 1:
        return engine
    if engine is not None:
        raise ValueError(
            f"engine and unroll were both given ({engine!r} and {steps}); an engine has its own "
            "options: write e.g. engine=jaxrnn.engines.Hoisted(unroll=8) alone"
        )
    return engines.Hoisted(unroll=steps)


def time_axis(inputs: PyTree, rank: int, time_major: bool) -> int:
    """The time axis: Flax puts it between the batch axes and the features."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        if jnp.ndim(leaf) < rank + 1:
            wanted = "[time, *batch, features]" if time_major else "[*batch, time, features]"
            raise ValueError(
                f"inputs{jax.tree_util.keystr(path)} must have shape {wanted} with {rank} feature "
                f"axes, so at least {rank + 1} axes, got {jnp.shape(leaf)}"
            )
        return 0 if time_major else jnp.ndim(leaf) - rank - 1
    raise ValueError(f"inputs must hold at least one array, got {inputs!r}")


def first_step(inputs: PyTree, axis: int) -> PyTree:
    """The input of the first step."""
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
    """Runs a cell or a layer over a sequence in Flax's layout.

    Returns:
        As in Flax: the outputs, or ``(carry, outputs)``.
    """
    axis = time_axis(inputs, input_rank(network), options.time_major)
    batch_rank = jnp.ndim(jax.tree.leaves(inputs)[0]) - input_rank(network) - 1
    xs = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axis, 0), inputs)
    if lengths is not None and options.run_padding:
        carry, ys = _run_padding(network, params, xs, carry, lengths, key, options)
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
    """Reverses each row, with its padding left at the end; leaves ``[time, *batch, ...]``."""
    if lengths is None:
        return jax.tree.map(lambda leaf: jnp.flip(leaf, 0), xs)
    lengths = jnp.asarray(lengths)

    def reverse(leaf: Array) -> Array:
        time = jnp.arange(leaf.shape[0], dtype=lengths.dtype)
        source = lengths - 1 - time.reshape(-1, *(1 for _ in lengths.shape))
        return _take(leaf, source % max(1, leaf.shape[0]))

    return jax.tree.map(reverse, xs)


def _take(leaf: Array, steps: Array) -> Array:
    """The steps ``[n, *batch]`` of each row of ``[time, *batch, ...]``."""
    steps = steps.reshape(*steps.shape, *(1,) * (leaf.ndim - steps.ndim))
    return jnp.take_along_axis(leaf, steps, 0)


def _as_layer(network: Any, engine: engines.Engine | None) -> Any:
    if not callable(getattr(network, "apply", None)):
        return layers.Recurrent(network, engine)
    if engine is not None:
        raise ValueError(
            f"engine={engine!r} was given with the layer {type(network).__name__}, whose cells "
            "have engines of their own: write jaxrnn.layers.Recurrent(cell, engine=...) inside it"
        )
    return network


def _run_padding(network, params, xs, carry, lengths, key, options: Options):
    """Runs every step of every row, as Flax does, and selects each row's carry afterwards."""
    layer = _as_layer(network, options.engine)
    if not isinstance(layer, layers.Recurrent) or layer.reverse:
        raise ValueError(
            f"run_padding=True takes a cell, got {network!r}; omit run_padding, so that steps "
            "past a row's length are skipped"
        )
    lengths = jnp.asarray(lengths)
    xs = flip(xs, lengths) if options.reverse else xs
    cell = _EmitBoth(layer.cell) if options.return_carry else layer.cell
    carry, ys = unroll(cell, params, xs, carry, key=key, engine=layer.engine)
    if options.return_carry:
        carries, ys = ys
        time = jax.tree.leaves(xs)[0].shape[0]
        last = (jnp.minimum(lengths, time)[None] - 1) % time
        carry = jax.tree.map(lambda leaf: _take(leaf, last)[0], carries)
    return carry, flip(ys, lengths) if options.reverse and options.keep_order else ys


@frozen
class _EmitBoth(Wrapper):
    """Emits the state together with the output."""

    def step(self, params, state, x, *, key=None):
        state, y = super().step(params, state, x, key=key)
        return state, (state, y)

    def readout(self, params, state, x):
        return state, super().readout(params, state, x)


class _Leaf(NamedTuple):
    """One leaf of a carry: its shape without batch axes, and whether it has none."""

    shape: tuple[int, ...]
    dtype: Any
    shared: bool


@frozen
class _WithCarry(Wrapper):
    """A cell whose states have the structure, shapes and dtypes of a given carry.

    In Flax a leaf of the carry may lack batch axes, such as a step counter; here every row has a
    copy of it.
    """

    structure: Any = None
    leaves: tuple[_Leaf, ...] = ()

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        zeros = [jnp.zeros((*batch_shape, *leaf.shape), leaf.dtype) for leaf in self.leaves]
        return jax.tree.unflatten(self.structure, zeros)

    def step(self, params, state, x, *, key=None):
        first = jax.tree.leaves(x)[0]
        batch_shape = first.shape[: first.ndim - self.input_rank]
        state, y = super().step(params, self.shared(state, len(batch_shape)), x, key=key)
        return self.per_row(state, batch_shape), y

    def per_row(self, carry: PyTree, batch_shape: tuple[int, ...]) -> PyTree:
        """Gives every row a copy of the leaves without batch axes."""
        return self._map_shared(lambda a: jnp.broadcast_to(a, (*batch_shape, *a.shape)), carry)

    def shared(self, state: PyTree, batch_rank: int) -> PyTree:
        """The inverse of `per_row`."""
        return self._map_shared(lambda a: a[(0,) * batch_rank], state)

    def _map_shared(self, function, tree):
        leaves, structure = jax.tree.flatten(tree)
        pairs = zip(leaves, self.leaves, strict=True)
        return jax.tree.unflatten(structure, [function(a) if k.shared else a for a, k in pairs])


def run_foreign(
    cell: Any,
    params: PyTree,
    inputs: PyTree,
    carry: PyTree,
    lengths: Any,
    key: Array | None,
    options: Options,
) -> Any:
    """Runs a foreign cell like `run`; as in Flax, dtypes are promoted, and any carry is valid."""
    params, inputs = promote_floats(params, inputs)
    x = first_step(inputs, time_axis(inputs, input_rank(cell), options.time_major))
    first = jax.tree.leaves(x)[0]
    batch_shape = first.shape[: first.ndim - input_rank(cell)]
    rank, kinds = len(batch_shape), []
    carry = jax.tree.map(jnp.asarray, carry)
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        shared = leaf.shape[:rank] != batch_shape
        if shared and lengths is not None and (options.return_carry or not options.run_padding):
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} must have shape [*batch, ...] with the batch "
                f"shape {batch_shape} if seq_lengths is given, got {leaf.shape}; give it batch "
                "axes, or pass run_padding=True and return_carry=False"
            )
        kinds.append(_Leaf(leaf.shape[0 if shared else rank :], leaf.dtype, shared))
    cell = _WithCarry(cell, jax.tree.structure(carry), tuple(kinds))
    carry = cell.per_row(carry, batch_shape)
    result = run(cell, params, inputs, carry, lengths, key, options)
    return (cell.shared(result[0], rank), result[1]) if options.return_carry else result


def float_dtypes(tree: PyTree) -> list[Any]:
    """The dtypes of the floating-point leaves, in order."""
    return [x.dtype for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    """Casts the floating-point leaves."""

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def promote_floats(params: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """Promotes floating-point leaves to their common dtype, as a Flax cell does at every step.

    `jaxrnn.unroll` promotes nothing and requires one dtype.
    """
    dtypes = set(float_dtypes((params, xs)))
    if len(dtypes) < 2:
        return params, xs
    return cast_floats((params, xs), functools.reduce(jnp.promote_types, dtypes))


def combine_keys(keys: list[Array]) -> Array | None:
    """One key that depends on all of these."""
    if not keys:
        return None
    return functools.reduce(
        lambda one, other: jax.random.fold_in(one, jax.random.bits(other, (), "uint32")), keys
    )


# Parameter names --------------------------------------------------------------------------------


def to_nested(tree: PyTree) -> dict[str, Any]:
    """A pytree as nested dicts by field names, which is how Flax keeps parameters."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *outer, inner = _names(path)
        node = nested
        for name in outer:
            node = node.setdefault(name, {})
        node[inner] = leaf
    return nested


def from_nested(like: PyTree, nested: Any) -> PyTree:
    """The inverse of `to_nested`, for a pytree with the structure of ``like``."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: functools.reduce(lambda node, name: node[name], _names(path), nested),
        like,
    )


def _names(path: tuple[Any, ...]) -> list[str]:
    """The names along a path of a pytree; a bare array is called value."""
    return [jax.tree_util.keystr((entry,), simple=True) for entry in path] or ["value"]
