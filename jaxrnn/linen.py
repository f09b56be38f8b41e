"""Flax linen: jaxrnn's cells in linen models, linen's cells under jaxrnn's engines.

from jaxrnn.linen import RNN        # in place of flax.linen.RNN
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

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

    What linen does with its own cells it does with this one: it is called step by step, and run by
    ``flax.linen.RNN`` or by `RNN`. The parameters stand in the collection ``params`` as nested
    dicts under their own names, ``{"input_kernel": ..., "bias": ...}``. The carry is the cell's
    state, such as ``LSTMState(hidden, cell)``.

    Args:
        cell: a jaxrnn cell, or a layer.
        in_features: what the cell's ``init`` is told; None is the last axis of the inputs. A cell
            that takes tokens has to be told.
        param_dtype: the dtype of the parameters; None is that of the inputs, which must have it in
            any case: nothing is promoted.
        rng_collection: the name of the key of cells that draw (dropout, zoneout); where ``apply``
            is given no such key, the cell is deterministic.

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
        A learned initial state is the learned one in `RNN`; ``initialize_carry`` has no parameters
        to look it up in, and gives a freshly drawn one.
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
        """The cell's parameters; drawn, if this is ``init``."""
        size = self.in_features or _width(self.cell, inputs)
        floats = [x.dtype for x in jax.tree.leaves(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]
        dtype = self.param_dtype or (floats[0] if floats else None)

        def draw(key):
            return self.cell.init(key, size, dtype)

        like = jax.eval_shape(draw, jax.random.key(0))
        names = _flax.named(like)
        if all(self.has_variable("params", name) for name in names):
            return _flax.unnamed(like, {name: self.get_variable("params", name) for name in names})
        if not self.is_mutable_collection("params"):
            held = ", ".join(self.variables.get("params", {})) or "nothing"
            raise ValueError(
                f"variables must hold the params {', '.join(names)} of {type(self.cell).__name__}, "
                f"got {held}; make them with init of the same model"
            )
        drawn = _flax.named(draw(self.make_rng("params")))
        kept = {n: self.variable("params", n, lambda n=n: drawn[n]).value for n in names}
        return _flax.unnamed(like, kept)

    def key(self) -> Array | None:
        """A key for what the cell draws, if ``apply`` was given one."""
        name = self.rng_collection
        return self.make_rng(name) if self.has_rng(name) else None

    def __call__(self, carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        """One step: ``(carry, inputs) -> (carry, outputs)``."""
        return step_with_key(self.cell, self.parameters(inputs), carry, inputs, self.key())

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> PyTree:
        """The state before the first step, for inputs ``[*batch, features]`` of this shape."""
        rank = input_rank(self.cell)
        size = self.in_features or input_shape[-1]
        params = self.cell.init(rng, size, self.param_dtype)
        return self.cell.init_state(params, tuple(input_shape[: len(input_shape) - rank]))

    @property
    def num_feature_axes(self) -> int:
        """The number of axes of an input that are not batch axes."""
        return input_rank(self.cell)


def _width(cell: Any, inputs: PyTree) -> int:
    leaf = jax.tree.leaves(inputs)[0]
    if input_rank(cell) == 0 or leaf.ndim == 0:
        raise ValueError(
            f"in_features must be given for {cell!r}, whose inputs have no axis of features; "
            "write e.g. Cell(cell, in_features=50) for 50 tokens"
        )
    return leaf.shape[-1]


class RNN(nn.Module):
    """Runs a cell over a sequence, as ``flax.linen.RNN`` does, with jaxrnn's engines.

    A linen cell keeps its parameters where ``flax.linen.RNN`` has them, so that checkpoints carry
    over, and the same key draws the same ones. A jaxrnn cell stands for ``Cell(cell)``.

    Args:
        cell: a jaxrnn cell or layer, or a linen cell: any module with linen's cell protocol.
        time_major: whether inputs are ``[time, *batch, features]``, not ``[*batch, time,
            features]``.
        return_carry: whether to return ``(carry, outputs)``, not the outputs alone.
        reverse: whether time runs backwards.
        keep_order: with ``reverse``, whether outputs come back in the order of the inputs.
        unroll: steps in one iteration of the compiled loop; stands for ``engines.Hoisted(unroll)``.
        split_rngs: for a linen cell, the names of the keys that it draws with: True for a new key
            at each step, False for one key a sequence.
        engine: how to run, a value from `jaxrnn.engines`; None is ``Auto()``.
        run_padding: whether to run the steps past a row's length too, as Flax does: outputs there
            are what the padding gives, and NaN in it leaks. By default they are skipped.
        param_dtype: the dtype of a jaxrnn cell's parameters; None is that of the inputs.

    Shapes:
        inputs ``[*batch, time, features]``, outputs ``[*batch, time, output_size]``.

    Raises:
        ValueError: an argument does not fit another, or the inputs.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from jaxrnn.linen import RNN
        >>> layer = RNN(rnn.LSTM(hidden_size=8))
        >>> xs = jax.numpy.ones((2, 10, 3))
        >>> variables = layer.init(jax.random.key(0), xs)
        >>> layer.apply(variables, xs, seq_lengths=jax.numpy.array([10, 4])).shape
        (2, 10, 8)

    Note:
        Where it differs from ``flax.linen.RNN``: outputs past a row's length are zero, and no
        gradient flows through them, unless ``run_padding``; a row of length 0 gives its initial
        carry back (Flax: the carry after all padding); random numbers within a sequence are others
        than Flax draws from the same key. A cell whose collections change from step to step
        (``variable_axes``, ``variable_carry``), or that shares modules with its surroundings, stays
        with ``flax.linen.RNN``.
    """

    cell: Any
    time_major: bool = False
    return_carry: bool = False
    reverse: bool = False
    keep_order: bool = False
    unroll: int = 1
    split_rngs: Mapping[str, bool] = FrozenDict({"params": False})
    engine: Engine | None = None
    run_padding: bool = False
    param_dtype: Any = None

    def __post_init__(self):
        if not isinstance(self.cell, nn.Module):
            cell = Cell(self.cell, param_dtype=self.param_dtype, parent=None)
            object.__setattr__(self, "cell", cell)
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
        """Applies the RNN; an argument that is not None stands before the attribute of its name.

        Args:
            inputs: the sequence.
            initial_carry: the carry to begin with; None is the cell's own.
            init_key: a key for a linen cell's ``initialize_carry``; None is ``jax.random.key(0)``.
            seq_lengths: int ``[*batch]``, the number of valid steps of each row.
            return_carry: see `RNN`.
            time_major: see `RNN`.
            reverse: see `RNN`.
            keep_order: see `RNN`.

        Returns:
            The outputs, or ``(carry, outputs)``: the carry after each row's last valid step.
        """
        options = _flax.Options(
            self.time_major if time_major is None else time_major,
            self.return_carry if return_carry is None else return_carry,
            self.reverse if reverse is None else reverse,
            self.keep_order if keep_order is None else keep_order,
            self.run_padding,
            _flax.engine_of(self.engine, self.unroll),
        )
        inputs = jax.tree.map(jnp.asarray, inputs)
        axis = _flax.time_axis(inputs, self.cell.num_feature_axes, options.time_major)
        x = _flax.first_step(inputs, axis)
        if isinstance(self.cell, Cell):
            network, carry = self.cell.cell, initial_carry
            params, key = self.cell.parameters(x), self.cell.key()
        else:
            network, params, carry, key = self._around(x, initial_carry, init_key)
            params, inputs = _flax.one_float_dtype(params, inputs)
        return _flax.run(network, params, inputs, carry, seq_lengths, key, options)

    def _around(self, x: Array, carry: PyTree, init_key: Array | None):
        """The linen cell as a jaxrnn cell, with its variables, its first carry and a key."""
        if carry is None:
            init_key = jax.random.key(0) if init_key is None else init_key
            carry = self.cell.initialize_carry(init_key, x.shape)
        for name, part in vars(self.cell).items():
            if isinstance(part, nn.Module) and name != "parent" and part.parent is not self.cell:
                raise ValueError(
                    f"cell must own its modules, but {name} of {type(self.cell).__name__} is "
                    "another module's; build it inside the cell, or keep flax.linen.RNN here"
                )
        if self.is_initializing():
            self.cell(carry, x)
        module, variables = self.cell.unbind()
        split = {n: s for n, s in self.split_rngs.items() if n != "params" and self.has_rng(n)}
        keys = [self.make_rng(name) for name in split]
        cell = from_linen_cell(module, split_rngs=split)
        cell = _flax.carried(cell, carry, x.ndim - module.num_feature_axes)
        return cell, variables, carry, _flax.one_key(keys)


# Linen's cells under jaxrnn's engines -----------------------------------------------------------


class _Bound(NamedTuple):
    """Variables beside the keys that are drawn once a sequence."""

    variables: PyTree
    keys: dict[str, Array]


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
        """The number of axes of an input that are not batch axes."""
        return self.module.num_feature_axes  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def stochastic(self) -> bool:
        """Whether the cell draws with keys."""
        return bool(self.split_rngs)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the variables; ``dtype`` stands before the cell's ``param_dtype``."""
        dtype = check_init(key, input_size, dtype or getattr(self.module, "param_dtype", None))
        x = jnp.zeros((1, *self.input_shape[:-1], input_size), dtype)
        module = _of_dtype(self.module, dtype)
        names = ["params", *(name for name, _ in self.split_rngs)]
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        return module.init(keys, module.initialize_carry(key, x.shape), x)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns what the cell's ``initialize_carry`` gives for ``jax.random.key(0)``."""
        floats = [p.dtype for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.floating)]
        module = _of_dtype(self.module, floats[0]) if floats else self.module
        return module.initialize_carry(jax.random.key(0), (*batch_shape, *self.input_shape))

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Draws the keys that stay the same for a whole sequence."""
        return _Bound(params, _keys(key, self.split_rngs, False))

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the cell."""
        keys = {}
        if isinstance(params, _Bound):
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
    """Makes a jaxrnn cell of a linen cell, for `jaxrnn.unroll` and every engine and layer.

    Its params are the cell's variables, ``{"params": ...}``, such as a trained model has; its state
    is the cell's carry.

    Args:
        cell: an unbound linen module ``(carry, x) -> (carry, y)`` with ``initialize_carry`` and
            ``num_feature_axes``.
        input_shape: the shape of one step's input beside the batch axes, for a cell whose carry
            depends on it: ``ConvLSTMCell``. Others look at the batch axes alone.
        split_rngs: the names of the keys that the cell draws with; True for a new key at each step,
            False for one key a sequence.

    Raises:
        TypeError: ``cell`` is no linen module with that protocol.

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
    lacks = [n for n in ("initialize_carry", "num_feature_axes") if not hasattr(cell, n)]
    if not isinstance(cell, nn.Module) or lacks:
        raise TypeError(
            "cell must be a linen cell, a module with initialize_carry and num_feature_axes, got "
            f"{cell!r}; derive it from flax.linen.RNNCellBase"
        )
    return LinenCell(cell, tuple(input_shape), tuple(sorted(split_rngs.items())))
