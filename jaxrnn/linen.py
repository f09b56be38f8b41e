"""Flax linen: jaxrnn's cells in linen models, and linen's cells under jaxrnn's engines.

Replace ``flax.linen.RNN`` by ``jaxrnn.linen.RNN``. This module imports Flax, so ``import jaxrnn``
does not import it: write ``import jaxrnn.linen``.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from flax.linen import Bidirectional

from jaxrnn import _flax
from jaxrnn._arguments import check_init
from jaxrnn._cell import input_rank, step_with_key
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines import Engine

__all__ = ["RNN", "Bidirectional", "Cell", "LinenCell", "from_linen_cell"]


class Cell(nn.RNNCellBase):
    """A jaxrnn cell, or a layer, as a cell of Flax linen.

    It is called step by step or run by ``flax.linen.RNN`` or `RNN`, like linen's own cells. The
    parameters are in the collection ``params`` as nested dicts with jaxrnn's field names,
    ``{"input_kernel": ..., "bias": ...}``. The carry is the cell's state, such as
    ``LSTMState(hidden, cell)``.

    Args:
        cell: a jaxrnn cell or layer.
        in_features: the ``input_size`` of the cell's ``init``; None is the size of the inputs'
            last axis. Required for a cell that takes tokens.
        param_dtype: the dtype of the parameters; None is that of the inputs. The inputs must have
            this dtype: nothing is promoted.
        rng_collection: the name of the random stream for dropout and zoneout; without this stream
            in ``apply``, the cell is deterministic.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from jaxrnn import linen
        >>> cell = linen.Cell(rnn.GRU(hidden_size=4))
        >>> x = jax.numpy.ones((2, 3))
        >>> carry = cell.initialize_carry(jax.random.key(0), x.shape)
        >>> (carry, y), variables = cell.init_with_output(jax.random.key(0), carry, x)
        >>> y.shape, sorted(variables["params"])
        ((2, 4), ['bias', 'candidate_bias', 'input_kernel', 'recurrent_kernel'])

    Note:
        `RNN` uses a learned initial state. ``initialize_carry`` has no access to the parameters
        and returns a newly initialized state instead.
    """

    cell: Any
    in_features: int | None = None
    param_dtype: Any = None
    rng_collection: str = "dropout"

    def __post_init__(self):
        _flax.check_own(self.cell, "a linen cell in RNN")
        super().__post_init__()

    @nn.compact
    def parameters(self, inputs: PyTree) -> PyTree:
        """The cell's parameters; ``init`` initializes them."""
        size = self.in_features or _width(self.cell, inputs)
        dtype = self.param_dtype or next(iter(_flax.float_dtypes(inputs)), None)

        def init(key):
            return self.cell.init(key, size, dtype)

        like = jax.eval_shape(init, jax.random.key(0))
        names = _flax.to_nested(like)
        if all(self.has_variable("params", name) for name in names):
            return _flax.from_nested(like, {n: self.get_variable("params", n) for n in names})
        if not self.is_mutable_collection("params"):
            held = ", ".join(self.variables.get("params", {})) or "nothing"
            raise ValueError(
                f"variables must hold the params {', '.join(names)} of {type(self.cell).__name__}, "
                f"got {held}; create them with init of the same model"
            )
        new = _flax.to_nested(init(self.make_rng("params")))
        held = {n: self.variable("params", n, lambda n=n: new[n]).value for n in names}
        return _flax.from_nested(like, held)

    def key(self) -> Array | None:
        """A key for dropout and zoneout, if ``apply`` was given the stream."""
        name = self.rng_collection
        return self.make_rng(name) if self.has_rng(name) else None

    def __call__(self, carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        """Takes one step: ``(carry, inputs) -> (carry, outputs)``."""
        return step_with_key(self.cell, self.parameters(inputs), carry, inputs, self.key())

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> PyTree:
        """Returns the initial state for inputs ``[*batch, features]`` of this shape."""
        rank = input_rank(self.cell)
        size = self.in_features or input_shape[-1]
        params = self.cell.init(rng, size, self.param_dtype)
        return self.cell.init_state(params, tuple(input_shape[: len(input_shape) - rank]))

    @property
    def num_feature_axes(self) -> int:
        """The number of non-batch axes of one input."""
        return input_rank(self.cell)


def _width(cell: Any, inputs: PyTree) -> int:
    leaf = jax.tree.leaves(inputs)[0]
    if input_rank(cell) == 0 or leaf.ndim == 0:
        raise ValueError(
            f"in_features must be given for {cell!r}, whose inputs have no feature axis; write "
            "e.g. Cell(cell, in_features=50) for 50 tokens"
        )
    return leaf.shape[-1]


class RNN(nn.Module):
    """Applies a cell over a sequence, as ``flax.linen.RNN`` does, with jaxrnn's engines.

    The parameters of a linen cell have the names and values of ``flax.linen.RNN``, so checkpoints
    carry over and the same key initializes the same parameters. A jaxrnn cell is shorthand for
    ``Cell(cell)``.

    Args:
        cell: a jaxrnn cell or layer, or a linen cell: any module with linen's cell protocol.
        time_major: whether inputs are ``[time, *batch, features]`` instead of ``[*batch, time,
            features]``.
        return_carry: whether to return ``(carry, outputs)`` instead of the outputs alone.
        reverse: whether to run time backwards.
        keep_order: with ``reverse``, whether to return the outputs in the order of the inputs.
        unroll: the number of steps in one iteration of the compiled loop; shorthand for
            ``engine=engines.Hoisted(unroll)``.
        variable_axes: must be empty, as by default in Flax.
        variable_broadcast: has no effect: all variables of a linen cell are broadcast.
        variable_carry: must be False, as by default in Flax.
        split_rngs: for a linen cell: the names of its random streams, with True for a new key at
            each step, False for one key per sequence. As in Flax, a missing stream is replaced by
            that of the parameters.
        engine: how to run, a value from `jaxrnn.engines`; None is ``Auto()``.
        run_padding: whether to run the steps past a row's length as Flax does: outputs there are
            computed from the padding, and NaN in it propagates. By default they are skipped.
        param_dtype: the dtype of a jaxrnn cell's parameters; None is that of the inputs.

    Shapes:
        inputs ``[*batch, time, features]``, outputs ``[*batch, time, output_size]``.

    Raises:
        ValueError: arguments contradict each other or the inputs.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from jaxrnn.linen import RNN
        >>> layer = RNN(rnn.LSTM(hidden_size=8))
        >>> xs = jax.numpy.ones((2, 10, 3))
        >>> variables = layer.init(jax.random.key(0), xs)
        >>> layer.apply(variables, xs, seq_lengths=jax.numpy.array([10, 4])).shape
        (2, 10, 8)

    Note:
        Differences from ``flax.linen.RNN``: outputs past a row's length are zero, and no gradient
        flows through them, unless ``run_padding``; a row of length 0 returns its initial carry
        (Flax: the carry after all padding); random numbers within a sequence differ from those
        that Flax draws from the same key. Keep ``flax.linen.RNN`` for a cell whose collections
        change from step to step (``variable_axes``, ``variable_carry``) or that shares modules
        with the rest of the model.
    """

    cell: Any
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False
    unroll: int = 1
    variable_axes: Mapping[str, Any] = FrozenDict()
    variable_broadcast: Any = "params"
    variable_carry: Any = False
    split_rngs: Mapping[str, bool] = FrozenDict({"params": False})
    engine: Engine | None = None
    run_padding: bool = False
    param_dtype: Any = None

    def __post_init__(self):
        if not isinstance(self.cell, nn.Module):
            cell = Cell(self.cell, param_dtype=self.param_dtype, parent=None)
            object.__setattr__(self, "cell", cell)
        for name, default in (("variable_axes", {}), ("variable_carry", False)):
            if getattr(self, name):
                raise ValueError(
                    f"{name} must be {default}, because a cell's variables must not change from "
                    f"step to step, got {getattr(self, name)!r}; keep flax.linen.RNN for this cell"
                )
        super().__post_init__()

    def __call__(
        self,
        inputs: PyTree,
        *,
        initial_carry: PyTree = None,
        init_key: Array | None = None,
        seq_lengths: Any = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Applies the RNN; an argument that is not None overrides the attribute of that name.

        Args:
            inputs: the sequence.
            initial_carry: the initial carry; None is the cell's own.
            init_key: a key for a linen cell's ``initialize_carry``; None is ``jax.random.key(0)``.
            seq_lengths: int ``[*batch]``, the number of valid steps of each row.
            return_carry: see `RNN`.
            time_major: see `RNN`.
            reverse: see `RNN`.
            keep_order: see `RNN`.

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
        x = _flax.first_step(inputs, axis)
        if isinstance(self.cell, Cell):
            params, key = self.cell.parameters(x), self.cell.key()
            rest = initial_carry, seq_lengths, key, options
            return _flax.run(self.cell.cell, params, inputs, *rest)
        cell, params, carry, key = self._foreign(x, initial_carry, init_key)
        return _flax.run_foreign(cell, params, inputs, carry, seq_lengths, key, options)

    @nn.nowrap
    def _foreign(self, x: Array, carry: PyTree, init_key: Array | None):
        """The linen cell as a jaxrnn cell, with its variables, its initial carry and a key."""
        if carry is None:
            _flax.check_foreign(self.cell, nn.Module, "linen")
            init_key = jax.random.key(0) if init_key is None else init_key
            carry = self.cell.initialize_carry(init_key, x.shape)
        for name, part in vars(self.cell).items():
            if isinstance(part, nn.Module) and name != "parent" and part.parent is not self.cell:
                raise ValueError(
                    f"cell must own its modules, but {name} of {type(self.cell).__name__} belongs "
                    "to another module; create it inside the cell, or keep flax.linen.RNN here"
                )
        if self.is_initializing():
            self.cell(carry, x)
        module, variables = self.cell.unbind()
        split = tuple((n, s) for n, s in sorted(self.split_rngs.items()) if self.has_rng(n))
        key = _flax.combine_keys([self.make_rng(name) for name, _ in split])
        return LinenCell(module, split_rngs=split), variables, carry, key


# Linen's cells under jaxrnn's engines -----------------------------------------------------------


@frozen
class LinenCell:
    """A linen cell as a jaxrnn cell; see `from_linen_cell`."""

    module: nn.Module
    input_shape: tuple[int, ...] = (1,)
    split_rngs: tuple[tuple[str, bool], ...] = ()

    @property
    def output_size(self) -> int | None:
        """The cell's ``features``, if it has them."""
        return getattr(self.module, "features", None)

    @property
    def input_rank(self) -> int:
        """The number of non-batch axes of one input."""
        return self.module.num_feature_axes  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def stochastic(self) -> bool:
        """Whether the cell uses random streams."""
        return bool(self.split_rngs)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Initializes the variables; ``dtype`` overrides the cell's ``param_dtype``."""
        dtype = check_init(key, input_size, dtype or getattr(self.module, "param_dtype", None))
        x = jnp.zeros((1, *self.input_shape[:-1], input_size), dtype)
        module = _of_dtype(self.module, dtype)
        names = sorted({"params", *dict(self.split_rngs)})
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        return module.init(keys, module.initialize_carry(key, x.shape), x)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the cell's ``initialize_carry`` for ``jax.random.key(0)``."""
        floats = _flax.float_dtypes(params)
        module = _of_dtype(self.module, floats[0]) if floats else self.module
        return module.initialize_carry(jax.random.key(0), (*batch_shape, *self.input_shape))

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Draws the keys that stay the same for a whole sequence."""
        return _flax.Bound(params, _keys(key, self.split_rngs, False))

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """Takes one step of the cell."""
        keys = {}
        if isinstance(params, _flax.Bound):
            params, keys = params
        if key is not None:
            keys = keys | _keys(key, self.split_rngs, True)
        return self.module.apply(params, state, x, rngs=keys)  # pyright: ignore[reportReturnType]


def _keys(key: Array, split_rngs: tuple[tuple[str, bool], ...], split: bool) -> dict[str, Array]:
    return {n: jax.random.fold_in(key, i) for i, (n, s) in enumerate(split_rngs) if s == split}


def _of_dtype(module: Any, dtype: Any) -> Any:
    return module.clone(param_dtype=dtype) if hasattr(module, "param_dtype") else module


def from_linen_cell(
    cell: nn.Module,
    *,
    input_shape: tuple[int, ...] = (1,),
    split_rngs: Mapping[str, bool] = FrozenDict(),
) -> LinenCell:
    """Wraps a linen cell as a jaxrnn cell, for `jaxrnn.unroll` and every engine and layer.

    Its params are the cell's variables, ``{"params": ...}``, as a trained model has them; its
    state is the cell's carry.

    Args:
        cell: an unbound linen module ``(carry, x) -> (carry, y)`` with ``initialize_carry`` and
            ``num_feature_axes``.
        input_shape: the shape of one input without its batch axes, for a cell whose carry depends
            on it: ``ConvLSTMCell``. Other cells use the batch axes only.
        split_rngs: the names of the cell's random streams, with True for a new key at each step,
            False for one key per sequence.

    Raises:
        TypeError: ``cell`` is not a linen module with that protocol.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from flax import linen as nn
        >>> from jaxrnn.linen import from_linen_cell
        >>> cell = from_linen_cell(nn.GRUCell(features=4))
        >>> variables = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, variables, jax.numpy.ones((7, 2, 3), "float32"))
        >>> ys.shape
        (7, 2, 4)
    """
    _flax.check_foreign(cell, nn.Module, "linen")
    return LinenCell(cell, tuple(input_shape), tuple(sorted(split_rngs.items())))
