"""A cell of Flax nnx as a cell of jaxrnn."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree


class _Stream(NamedTuple):
    """What is static about a stream of keys inside an nnx cell."""

    path: tuple[Any, ...]
    tag: str
    broadcast: bool


class _Bound(NamedTuple):
    """Weights beside the keys that are drawn once a sequence, numbered as the streams are."""

    weights: PyTree
    keys: dict[int, Array]


@frozen
class NNXCell:
    """An nnx cell as a jaxrnn cell; see `from_nnx_cell`."""

    graphdef: Any
    streams: tuple[_Stream, ...] = ()
    input_shape: tuple[int, ...] = (1,)
    output_size: int | None = None
    input_rank: int = 1

    @property
    def stochastic(self) -> bool:
        """Whether the cell has keys to draw with."""
        return bool(self.streams)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Raises: an nnx module has drawn its parameters already, and `from_nnx_cell` gave them."""
        raise TypeError(
            "params of an nnx cell are those that from_nnx_cell returned beside it; make another "
            "nnx module for other ones"
        )

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns what the cell's ``initialize_carry`` gives for ``nnx.Rngs(0)``."""
        weights = params.weights if isinstance(params, _Bound) else params
        module = self._module(weights, {})
        return module.initialize_carry((*batch_shape, *self.input_shape), nnx.Rngs(0))

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Draws the keys that stay the same for a whole sequence."""
        return _Bound(params, self._keys(key, True))

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the cell."""
        keys: dict[int, Array] = {}
        if isinstance(params, _Bound):
            params, keys = params
        if key is not None:
            keys = keys | self._keys(key, False)
        result, drawn = self._call(params, keys, state, x)
        for i, stream in enumerate(self.streams):
            if stream.path in drawn and i not in keys:
                raise ValueError(
                    f"key must be given, because the cell draws from its stream {stream.tag!r}; "
                    "pass key=..., or call eval() of the module before from_nnx_cell"
                )
        return result

    def drawn(self, params: PyTree, state: PyTree, x: PyTree) -> set:
        """The paths of the streams that one step draws from."""
        found = set()

        def step(params, state, x):
            found.update(self._call(params, {}, state, x)[1])

        jax.eval_shape(step, params, state, x)
        return found

    def _keys(self, key: Array, broadcast: bool) -> dict[int, Array]:
        return {
            i: jax.random.fold_in(key, i)
            for i, stream in enumerate(self.streams)
            if stream.broadcast == broadcast
        }

    def _module(self, weights: PyTree, keys: dict[int, Array]) -> Any:
        flat = []
        for i, (path, tag, _) in enumerate(self.streams):
            key = keys.get(i, jax.random.key(0))
            flat.append(((*path, "key"), nnx.RngKey(key, tag=tag)))
            flat.append(((*path, "count"), nnx.RngCount(jnp.zeros((), "uint32"), tag=tag)))
        return nnx.merge(self.graphdef, weights, nnx.from_flat_state(flat), copy=True)

    def _call(self, weights: PyTree, keys: dict[int, Array], state: PyTree, x: PyTree):
        """What the module gives, and the paths of the streams that it drew from."""
        module = self._module(weights, keys)
        before = _values(module)
        result = module(state, x)
        drawn = set()
        for path, (kind, value) in _values(module).items():
            if path in before and value is before[path][1]:
                continue
            if kind is not nnx.RngCount:
                raise ValueError(
                    f"cell must not change its variables, but it changed {'.'.join(map(str, path))}"
                    f" ({kind.__name__}), which has no place in the state of a row; keep "
                    "flax.nnx.RNN for this cell"
                )
            drawn.add(path[:-1])
        return result, drawn


def _values(module: nnx.Module) -> dict[tuple, tuple[type, Any]]:
    flat = nnx.to_flat_state(nnx.state(module))
    return {path: (type(variable), variable.get_raw_value()) for path, variable in flat}


def from_nnx_cell(
    cell: Any, *, input_shape: tuple[int, ...] = (1,), broadcast_rngs: Any = None
) -> tuple[NNXCell, PyTree]:
    """Makes a jaxrnn cell of an nnx cell, for `jaxrnn.unroll` and every engine and layer.

    Args:
        cell: an nnx module ``(carry, x) -> (carry, y)`` with ``initialize_carry`` and
            ``num_feature_axes``.
        input_shape: the shape of one step's input beside the batch axes, for a cell whose carry
            depends on it. nnx's own look at the batch axes alone.
        broadcast_rngs: a filter of the cell's keys that stay the same for a whole sequence.

    Returns:
        ``(cell, params)``: the params are the module's state without its keys, an ``nnx.State``;
        ``nnx.update(module, params)`` takes trained ones back. The state is the module's carry.

    Raises:
        TypeError: ``cell`` is no nnx module with that protocol.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from flax import nnx
        >>> from jaxrnn.nnx import from_nnx_cell
        >>> cell, params = from_nnx_cell(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3), "float32"))
        >>> ys.shape
        (7, 2, 4)
    """
    lacks = [n for n in ("initialize_carry", "num_feature_axes") if not hasattr(cell, n)]
    if not isinstance(cell, nnx.Module) or lacks:
        raise TypeError(
            "cell must be an nnx cell, a module with initialize_carry and num_feature_axes, got "
            f"{cell!r}; derive it from flax.nnx.RNNCellBase"
        )
    fixed = nnx.All(nnx.RngKey, broadcast_rngs)
    graphdef, broadcast, keys, _, weights = nnx.split(cell, fixed, nnx.RngKey, nnx.RngCount, ...)
    streams = [
        _Stream(path[:-1], variable.tag, group is broadcast)
        for group in (broadcast, keys)
        for path, variable in nnx.to_flat_state(group)
    ]
    made = NNXCell(
        graphdef,
        tuple(streams),
        tuple(input_shape),
        getattr(cell, "hidden_features", None),
        cast(Any, cell).num_feature_axes,
    )
    return made, weights
