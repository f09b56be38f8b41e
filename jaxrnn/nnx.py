"""Flax nnx: jaxrnn's cells in nnx models, and nnx's cells under jaxrnn's engines.

Replace ``flax.nnx.RNN`` by ``jaxrnn.nnx.RNN``. This module imports Flax, so ``import jaxrnn`` does
not import it: write ``import jaxrnn.nnx``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import Bidirectional

from jaxrnn import _flax
from jaxrnn._arguments import check_size, float_dtype
from jaxrnn._cell import input_rank, is_stochastic, step_with_key
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines import Engine

__all__ = ["RNN", "Bidirectional", "Cell", "NNXCell", "from_nnx_cell"]


class Cell(nnx.Module):
    """A jaxrnn cell, or a layer, as a cell of Flax nnx.

    It is called step by step or run by ``flax.nnx.RNN`` or `RNN`, like nnx's own cells. The
    parameters are ``nnx.Param`` under ``params``, in nested dicts with jaxrnn's field names. The
    carry is the cell's state, such as ``LSTMState(hidden, cell)``.

    Args:
        cell: a jaxrnn cell or layer.
        in_features: the ``input_size`` of the cell's ``init``.
        rngs: the random streams of the parameters and of dropout and zoneout.
        param_dtype: the dtype of the parameters; None is JAX's default. The inputs must have this
            dtype: nothing is promoted.
        rng_collection: the name of the random stream for dropout and zoneout.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from flax import nnx as fnnx
        >>> from jaxrnn import nnx
        >>> cell = nnx.Cell(rnn.GRU(hidden_size=4), 3, rngs=fnnx.Rngs(0))
        >>> carry, y = cell(cell.initialize_carry((2, 3)), jax.numpy.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Note:
        ``eval()`` of a model sets ``deterministic``, which turns dropout and zoneout's sampling
        off; ``train()`` turns them on again.
    """

    def __init__(
        self,
        cell: Any,
        in_features: int,
        *,
        rngs: nnx.Rngs,
        param_dtype: Any = None,
        rng_collection: str = "dropout",
    ):
        _flax.check_own(cell, "an nnx cell in RNN")
        check_size("in_features", in_features)
        self.cell = cell
        self.in_features = in_features
        self.deterministic = False
        params = cell.init(rngs.params(), in_features, float_dtype(param_dtype))
        self.params = _as_variables(_flax.to_nested(params))
        stochastic = is_stochastic(cell) or hasattr(cell, "bind")
        self.rngs = rngs[rng_collection].fork() if stochastic else nnx.data(None)

    def parameters(self) -> PyTree:
        """The cell's parameters, as its own pytree."""
        like = jax.eval_shape(lambda key: self.cell.init(key, self.in_features), jax.random.key(0))
        return _flax.from_nested(like, nnx.to_pure_dict(nnx.state(self.params)))

    def key(self) -> Array | None:
        """A new key for dropout and zoneout, unless the cell is deterministic."""
        return None if self.rngs is None or self.deterministic else self.rngs()

    def __call__(self, carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        """Takes one step: ``(carry, inputs) -> (carry, outputs)``."""
        return step_with_key(self.cell, self.parameters(), carry, inputs, self.key())

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None) -> PyTree:
        """Returns the initial state for inputs ``[*batch, features]`` of this shape."""
        batch_shape = tuple(input_shape[: len(input_shape) - self.num_feature_axes])
        return self.cell.init_state(self.parameters(), batch_shape)

    @property
    def num_feature_axes(self) -> int:
        """The number of non-batch axes of one input."""
        return input_rank(self.cell)


def _as_variables(nested: dict[str, Any]) -> nnx.Dict:
    return nnx.Dict(
        {
            name: _as_variables(value) if isinstance(value, dict) else nnx.Param(value)
            for name, value in nested.items()
        }
    )


class RNN(nnx.Module):
    """Applies a cell over a sequence, as ``flax.nnx.RNN`` does, with jaxrnn's engines.

    Args:
        cell: an nnx cell, or a jaxrnn cell or layer, which is shorthand for
            ``Cell(cell, in_features, rngs=rngs)``.
        in_features: for a jaxrnn cell: the number of input features.
        time_major: whether inputs are ``[time, *batch, features]`` instead of ``[*batch, time,
            features]``.
        return_carry: whether to return ``(carry, outputs)`` instead of the outputs alone.
        reverse: whether to run time backwards.
        keep_order: with ``reverse``, whether to return the outputs in the order of the inputs.
        unroll: the number of steps in one iteration of the compiled loop; shorthand for
            ``engine=engines.Hoisted(unroll)``.
        state_axes: must be None, or its default in Flax.
        broadcast_rngs: a filter of an nnx cell's random streams that keep one key for a whole
            sequence, such as ``"recurrent_dropout"``; the others get a new key at each step.
        engine: how to run, a value from `jaxrnn.engines`; None is ``Auto()``.
        run_padding: whether to run the steps past a row's length as Flax does: outputs there are
            computed from the padding, and NaN in it propagates. By default they are skipped.
        rngs: keys for an nnx cell's ``initialize_carry``, True for a stream of its own; for a
            jaxrnn cell the ``nnx.Rngs`` that initialize its parameters.

    Shapes:
        inputs ``[*batch, time, features]``, outputs ``[*batch, time, output_size]``.

    Raises:
        TypeError: a jaxrnn cell is given without ``in_features`` and ``rngs``.
        ValueError: arguments contradict each other or the inputs, or an nnx cell changes variables
            other than its random streams.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from flax import nnx
        >>> from jaxrnn.nnx import RNN
        >>> layer = RNN(rnn.LSTM(hidden_size=8), in_features=3, rngs=nnx.Rngs(0))
        >>> layer(jax.numpy.ones((2, 10, 3)), seq_lengths=jax.numpy.array([10, 4])).shape
        (2, 10, 8)

    Note:
        Differences from ``flax.nnx.RNN``: outputs past a row's length are zero, and no gradient
        flows through them, unless ``run_padding``; a row of length 0 returns its initial carry
        (Flax: the carry after all padding); each random stream gives one key per call, from which
        the keys of the steps are derived, so random numbers differ from Flax's. Keep
        ``flax.nnx.RNN`` for a cell that changes variables at each step (``state_axes``).
    """

    def __init__(
        self,
        cell: Any,
        *,
        in_features: int | None = None,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        unroll: int = 1,
        state_axes: Any = None,
        broadcast_rngs: Any = None,
        engine: Engine | None = None,
        run_padding: bool = False,
        rngs: nnx.Rngs | nnx.RngStream | bool = True,
    ):
        if not isinstance(cell, nnx.Module):
            _flax.check_own(cell, "an nnx cell")
            if in_features is None or not isinstance(rngs, nnx.Rngs):
                raise TypeError(
                    f"in_features and rngs must be given with {cell!r}, whose parameters are "
                    "initialized here; write e.g. RNN(cell, in_features=3, rngs=nnx.Rngs(0))"
                )
            cell = Cell(cell, in_features, rngs=rngs)
        self.cell: Any = cell
        self.time_major = time_major
        self.return_carry = return_carry
        self.reverse = reverse
        self.keep_order = keep_order
        _flax.engine_of(engine, unroll)
        self.engine = engine
        self.unroll = unroll
        self.state_axes = nnx.StateAxes({...: nnx.Carry})
        if state_axes is not None and state_axes != self.state_axes:
            raise ValueError(
                f"state_axes must be None, because a cell's variables must not change from step to "
                f"step, got {state_axes!r}; keep flax.nnx.RNN for this cell"
            )
        self.broadcast_rngs = broadcast_rngs
        self.run_padding = run_padding
        if isinstance(rngs, bool):
            self.rngs = nnx.RngStream(0, tag="carry") if rngs else nnx.data(None)
        else:
            self.rngs = rngs.carry.fork() if isinstance(rngs, nnx.Rngs) else rngs

    def __call__(
        self,
        inputs: PyTree,
        *,
        initial_carry: PyTree = None,
        seq_lengths: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Any:
        """Applies the RNN; an argument that is not None overrides the attribute of that name.

        Args:
            inputs: the sequence.
            initial_carry: the initial carry; None is the cell's own.
            seq_lengths: int ``[*batch]``, the number of valid steps of each row.
            return_carry: see `RNN`.
            time_major: see `RNN`.
            reverse: see `RNN`.
            keep_order: see `RNN`.
            rngs: keys for an nnx cell's ``initialize_carry``.

        Returns:
            The outputs, or ``(carry, outputs)`` with the carry after each row's last valid step.
        """
        options = _flax.call_options(
            self,
            _flax.engine_of(self.engine, self.unroll),
            time_major=time_major,
            return_carry=return_carry,
            reverse=reverse,
            keep_order=keep_order,
        )
        inputs = jax.tree.map(jnp.asarray, inputs)
        axis = _flax.time_axis(inputs, self.cell.num_feature_axes, options.time_major)
        if isinstance(self.cell, Cell):
            params, key = self.cell.parameters(), self.cell.key()
            rest = initial_carry, seq_lengths, key, options
            return _flax.run(self.cell.cell, params, inputs, *rest)
        x = _flax.first_step(inputs, axis)
        carry = initial_carry
        if carry is None:
            _flax.check_foreign(self.cell, nnx.Module, "nnx")
            rngs = self.rngs if rngs is None else rngs
            rngs = rngs.carry.fork() if isinstance(rngs, nnx.Rngs) else rngs
            carry = self.cell.initialize_carry(x.shape, rngs)
        cell, params = _split(self.cell, (1,), self.broadcast_rngs)
        key = _flax.combine_keys(_keys_of(self.cell, cell.drawn(params, carry, x)))
        return _flax.run_foreign(cell, params, inputs, carry, seq_lengths, key, options)


def _keys_of(module: nnx.Module, paths: set) -> list[Array]:
    """A new key from each stream at one of these paths."""
    nodes = nnx.iter_graph(module)
    return [node() for path, node in nodes if isinstance(node, nnx.RngStream) and path in paths]


# nnx's cells under jaxrnn's engines -------------------------------------------------------------


class _Stream(NamedTuple):
    """The static part of a random stream in an nnx cell."""

    path: tuple[Any, ...]
    tag: str
    broadcast: bool


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
        """Whether the cell has random streams."""
        return bool(self.streams)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Raises an error: `from_nnx_cell` returns the parameters, which nnx initializes itself."""
        raise TypeError(
            "params of an nnx cell are those that from_nnx_cell returned with it; create another "
            "nnx module for new ones"
        )

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the cell's ``initialize_carry`` for ``nnx.Rngs(0)``."""
        weights = params.variables if isinstance(params, _flax.Bound) else params
        module = self._module(weights, {})
        return module.initialize_carry((*batch_shape, *self.input_shape), nnx.Rngs(0))

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Draws the keys that stay the same for a whole sequence."""
        return _flax.Bound(params, self._keys(key, True))

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """Takes one step of the cell."""
        keys: dict[int, Array] = {}
        if isinstance(params, _flax.Bound):
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
        """The module's result, and the paths of the streams that it drew from."""
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
                    f" ({kind.__name__}), which is not part of a row's state; keep flax.nnx.RNN "
                    "for this cell"
                )
            drawn.add(path[:-1])
        return result, drawn


def _values(module: nnx.Module) -> dict[tuple, tuple[type, Any]]:
    flat = nnx.to_flat_state(nnx.state(module))
    return {path: (type(variable), variable.get_raw_value()) for path, variable in flat}


def from_nnx_cell(
    cell: Any, *, input_shape: tuple[int, ...] = (1,), broadcast_rngs: Any = None
) -> tuple[NNXCell, PyTree]:
    """Wraps an nnx cell as a jaxrnn cell, for `jaxrnn.unroll` and every engine and layer.

    Args:
        cell: an nnx module ``(carry, x) -> (carry, y)`` with ``initialize_carry`` and
            ``num_feature_axes``.
        input_shape: the shape of one input without its batch axes, for a cell whose carry depends
            on it. nnx's own cells use the batch axes only.
        broadcast_rngs: a filter of the random streams that keep one key for a whole sequence.

    Returns:
        ``(cell, params)``: the params are the module's state without its random streams, an
        ``nnx.State``; ``nnx.update(module, params)`` writes trained ones back. The state is the
        module's carry.

    Raises:
        TypeError: ``cell`` is not an nnx module with that protocol.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from flax import nnx
        >>> from jaxrnn.nnx import from_nnx_cell
        >>> cell, params = from_nnx_cell(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3), "float32"))
        >>> ys.shape
        (7, 2, 4)
    """
    _flax.check_foreign(cell, nnx.Module, "nnx")
    return _split(cell, tuple(input_shape), broadcast_rngs)


def _split(cell: Any, input_shape: tuple[int, ...], broadcast_rngs: Any) -> tuple[NNXCell, PyTree]:
    fixed = nnx.All(nnx.RngKey, broadcast_rngs)
    graphdef, broadcast, keys, _, weights = nnx.split(cell, fixed, nnx.RngKey, nnx.RngCount, ...)
    streams = [
        _Stream(path[:-1], variable.tag, group is broadcast)
        for group in (broadcast, keys)
        for path, variable in nnx.to_flat_state(group)
    ]
    size = getattr(cell, "hidden_features", None)
    return NNXCell(graphdef, tuple(streams), input_shape, size, cell.num_feature_axes), weights
