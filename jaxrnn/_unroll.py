"""`unroll`, which runs a cell over a sequence."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import _validation as checks
from jaxrnn import engines
from jaxrnn._arguments import check_key
from jaxrnn._cell import Cell, is_stochastic
from jaxrnn._masking import MaskedInput, effective_starts, safe_inputs, valid_steps
from jaxrnn._platform import named_platforms
from jaxrnn._sharding import equally_varying, on_mesh_of, reshard_like, with_rows_of
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines._engine import check_engine
from jaxrnn.engines._levels import Level, NotLevels
from jaxrnn.wrappers.masked import Masked


def unroll(
    cell: Cell,
    params: PyTree,
    xs: PyTree,
    state: PyTree = None,
    *,
    lengths: Any = None,
    mask: Any = None,
    starts: Any = None,
    reverse: bool = False,
    key: Array | None = None,
    engine: engines.Engine | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs a cell over a sequence.

        state, ys[t] = cell.step(params, state, xs[t])     for t = 0, 1, ..., time - 1

    A step that is invalid by ``mask`` or ``lengths`` is skipped: the state is held, ``ys`` is zero,
    no gradient flows through the step, and its ``xs`` (NaN included) have no effect. Where
    ``starts`` is True a new sequence begins: the state is replaced by ``cell.init_state`` before
    that step. With ``reverse`` time runs backwards, but ``ys[t]`` still belongs to ``xs[t]``, a
    padded row begins at its last valid step, and a start divides the row at the same place as it
    does forwards. A start at a skipped step takes effect at the next valid step.

    Args:
        cell: the cell to run; see `Cell`.
        params: the cell's parameters.
        xs: inputs, an array or a pytree of arrays with the same leading axes.
        state: the initial state; None is ``cell.init_state``.
        lengths: the number of valid steps of each row; shorthand for ``mask = t < lengths``.
        mask: False where a step is skipped.
        starts: True where a new sequence begins.
        reverse: whether time runs backwards.
        key: a random key, for stochastic cells (dropout, zoneout): step t receives
            ``jax.random.fold_in(key, t)``, and ``cell.bind`` a separate key. None is deterministic.
        engine: the implementation of the loop, a value from `jaxrnn.engines`; None is ``Auto()``.
            Engines differ in speed, never in the result. A rule from `jaxrnn.learning` stands here
            too; it has the same outputs, and gradients of its own.

    Shapes:
        xs ``[time, *batch, features]`` (time first, any number of batch axes, ``cell.input_rank``
        trailing axes); state ``[*batch, ...]``; lengths int ``[*batch]``; mask and
        starts bool ``[time, *batch]``, not broadcast; ys ``[time, *batch, output_size]``.

    Returns:
        ``(final_state, ys)``: the state after each row's last valid step, and all outputs.

    Raises:
        TypeError: an argument has the wrong type or dtype; floating-point parameters and inputs
            must share one dtype, since dtypes are not promoted implicitly.
        ValueError: an argument has the wrong shape or value, or both ``lengths`` and ``mask`` are
            given.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.LSTM(hidden_size=8)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.random.normal(jax.random.key(1), (10, 2, 3))
        >>> final, ys = rnn.unroll(cell, params, xs, lengths=jnp.array([10, 4]))
        >>> ys.shape, bool((ys[4:, 1] == 0).all()), bool((final.hidden[1] == ys[3, 1]).all())
        ((10, 2, 8), True, True)
    """
    params, xs, state, time, batch_shape = checks.check_sequence(cell, params, xs, state)
    engine = engines.Auto() if engine is None else engine
    check_engine(engine)
    if not isinstance(reverse, bool | np.bool_):
        raise TypeError(f"reverse must be True or False, got {reverse!r}")
    if key is not None:
        check_key(key)
    if lengths is not None and mask is not None:
        raise ValueError(
            "lengths and mask were both given; lengths is shorthand for a mask: pass one of them "
            "(combine both by & to one mask)"
        )
    if lengths is not None:
        lengths = checks.check_lengths(lengths, time, batch_shape)
    mask = checks.check_flags("mask", mask, (time, *batch_shape))
    starts = checks.check_flags("starts", starts, (time, *batch_shape))
    call = _Call(cell, engine, bool(reverse), time, batch_shape, named_platforms())
    return _run(call, params, state, xs, lengths, mask, starts, key)


class _Call(NamedTuple):
    """The static part of a call: equal values share one trace and one compilation."""

    cell: Cell
    engine: engines.Engine
    reverse: bool
    time: int
    batch_shape: tuple[int, ...]
    platforms: tuple[str, ...]


@functools.partial(jax.jit, static_argnums=0)
def _run(call: _Call, params, state, xs, lengths, mask, starts, key):
    cell: Any  # the wrappers below have a step with other parameter names than `Cell`
    engine: Any  # a stochastic learning rule takes a key too
    cell, engine, reverse, time, batch_shape, _ = call
    params, state, xs = jax.tree.map(_strong, (params, state, xs))
    # Once, before any loop: the gradient of the cast is a sum over devices.
    params, state, xs = equally_varying((params, state, xs))
    params, state = on_mesh_of((params, state), xs)
    if key is not None and hasattr(cell, "bind"):
        params = cell.bind(params, key_of_sequence(key), batch_shape)
    state = checks.check_state(cell, params, state, xs, batch_shape)
    mask = valid_steps(xs, lengths, mask)
    if starts is not None:
        starts = effective_starts(starts, mask, reverse)
    if mask is not None:
        xs = safe_inputs(xs, mask)
    if mask is not None or starts is not None:
        from_lengths = lengths is not None and starts is None
        cell, xs = Masked(cell, from_lengths), MaskedInput(xs, mask, starts)
    if key is not None and is_stochastic(cell):
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(time))
        cell, xs = Keyed(cell), (xs, keys)
    state = settled(cell, params, state, xs, len(batch_shape))
    if time == 0 or 0 in batch_shape:
        engine = engines.Sequential()  # the scan gives the empty arrays their shapes
    if getattr(engine, "stochastic", False):  # a learning rule that draws random numbers
        key = None if key is None else key_of_rule(key)
        return engine(cell, params, state, xs, reverse=reverse, key=key)
    return engine(cell, params, state, xs, reverse=reverse)


def settled(cell: Any, params: PyTree, state: PyTree, xs: PyTree, rank: int) -> PyTree:
    """The state with ``rank`` batch axes, sharded as after a step, which is checked.

    The carry of a loop has one type, and the zeros that a cell creates have no sharding: begin with
    that of the rows of ``xs``, and iterate until the sharding reaches a fixed point.
    """
    state = with_rows_of(state, xs, rank)
    for _ in range(1 + len(jax.tree.leaves(state))):
        placed = reshard_like(state, checks.check_step(cell, params, state, xs))
        if placed is state:
            break
        state = placed
    return state


def key_of_sequence(key: Array) -> Array:
    """The key for ``cell.bind``: by the largest 32-bit number, which no step has."""
    return jax.random.fold_in(key, np.uint32(2**32 - 1))


def key_of_rule(key: Array) -> Array:
    """The key for a learning rule, which neither a step nor ``bind`` has."""
    return jax.random.fold_in(key, np.uint32(2**32 - 2))


def _strong(leaf: Array) -> Array:
    """Removes a weak type, so that a Python scalar among the parameters is not promoted."""
    return jax.lax.convert_element_type(leaf, leaf.dtype)


@dataclasses.dataclass(frozen=True)
class Keyed:
    """A stochastic cell whose input includes the key of the step."""

    cell: Any

    @property
    def output_size(self) -> int | None:
        return self.cell.output_size

    @property
    def levels(self) -> tuple[Level, ...]:
        raise NotLevels(
            "cannot draw the random numbers of jaxrnn: dropout between layers, and all that a key "
            "is for, is applied outside of the engine; call the stack's apply, with the engine in "
            "each of its layers"
        )

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        return self.cell.init(key, input_size, dtype)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        return self.cell.init_state(params, batch_shape)

    def step(self, params: PyTree, state: PyTree, inputs: tuple[PyTree, Array]):
        x, key = inputs
        return self.cell.step(params, state, x, key=key)
