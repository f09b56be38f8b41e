"""Steps that are skipped, and steps at which a new sequence begins."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._cell import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper


class MaskedInput(NamedTuple):
    """The input of one step of a `Masked` cell; None stands for "no mask", "no starts"."""

    x: PyTree
    valid: Array | None = None  # bool [*batch]
    start: Array | None = None  # bool [*batch]


def select(where: Array, on_true: Array, on_false: Array) -> Array:
    """Selects whole batch rows: ``where`` is ``[*batch]``, the leaves ``[*batch, ...]``."""
    where = where.reshape(where.shape + (1,) * (on_false.ndim - where.ndim))
    return jnp.where(where, on_true, on_false)


def zero_skipped(xs: PyTree, valid: Array | None) -> PyTree:
    """Replaces what stands at skipped steps, NaN included, by zeros."""
    if valid is None:
        return xs
    return jax.tree.map(lambda leaf: select(valid, leaf, jnp.zeros_like(leaf)), xs)


@dataclasses.dataclass(frozen=True)
class Masked(Wrapper):
    """Runs a cell under a mask and with starts: the sequence contract, one step of it.

        state ← cell.init_state   where start
        state', y = cell.step(params, state, x)
        state' ← the state given, y ← 0   where not valid

    `jaxrnn.unroll` wraps a cell in this when it is given ``lengths``, ``mask`` or ``starts``, with
    inputs made safe by `safe_inputs` and starts moved to valid steps by `effective_starts`.

    Args:
        cell: the cell to run.

    Shapes:
        The input of a step is ``MaskedInput(x, valid, start)``, both bool ``[*batch]`` or None.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.wrappers.Masked(rnn.GRU(2))
        >>> params = cell.init(jax.random.key(0), input_size=1)
        >>> state = cell.init_state(params, (2,))
        >>> x = rnn.wrappers.MaskedInput(jnp.ones((2, 1)), valid=jnp.array([True, False]))
        >>> state, y = cell.step(params, state, x)
        >>> print((y != 0).any(axis=-1), (state.hidden != 0).any(axis=-1))
        [ True False] [ True False]
    """

    def step(
        self, params: PyTree, state: PyTree, inputs: MaskedInput, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; rows that are not valid keep their state and give zeros."""
        x, valid, start = inputs
        held = state
        if start is not None:
            initial = self.cell.init_state(params, start.shape)
            state = jax.tree.map(lambda new, old: select(start, new, old), initial, state)
        state, y = super().step(params, state, x, key=key)
        if valid is not None:
            state = jax.tree.map(lambda new, old: select(valid, new, old), state, held)
        return state, zero_skipped(y, valid)

    def affine(self, params: PyTree, inputs: MaskedInput) -> tuple[PyTree, PyTree]:
        """The wrapped cell's (a, b); (1, 0) at a skipped step, (0, a · initial + b) at a start."""
        x, valid, start = inputs
        a, b = super().affine(params, x)
        a = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), a, b)
        if start is not None:
            initial = self.cell.init_state(params, start.shape)
            b = jax.tree.map(lambda a, h, b: select(start, a * h + b, b), a, initial, b)
            a = zero_skipped(a, ~start)
        if valid is not None:
            a = jax.tree.map(lambda a: select(valid, a, jnp.ones_like(a)), a)
            b = zero_skipped(b, valid)
        return a, b

    def readout(self, params: PyTree, state: PyTree, inputs: MaskedInput) -> PyTree:
        """The wrapped cell's output, zero at a skipped step."""
        return zero_skipped(super().readout(params, state, inputs.x), inputs.valid)


def safe_inputs(xs: PyTree, mask: Array) -> PyTree:
    """Replaces the inputs of skipped steps by inputs that a step can take without harm.

    Selecting the result of a skipped step is not enough: the derivative of what was not selected is
    0 · ∞ if the step overflowed. So a skipped step gets the inputs of the first valid step of its
    row, else of the first row that has one, else, where nothing is valid at all, harmless numbers;
    integers too, since a token out of range may have no embedding.

    Shapes:
        mask bool ``[time, *batch]``, leaves of xs ``[time, *batch, ...]``.
    """
    if mask.size == 0:
        return xs
    axes = tuple(range(mask.ndim - 1))  # those of the batch
    # Choosing by sums of what is kept, not by indices, leaves a batch on the devices that hold it.
    first = _first(mask, 0)  # the step to copy, of each row
    lendable = mask.any(axis=0)
    lender = _first(lendable, axes)  # the row to copy, for those that have no such step

    def safe(leaf: Array) -> Array:
        fixed = jax.lax.stop_gradient(leaf)
        own = _sum(first, fixed, 0)
        lent = _sum(lender, own, axes)
        lent = jnp.where(lendable.any(), lent, _harmless(lent))
        substitute = select(lendable, own, jnp.broadcast_to(lent, own.shape))
        return select(mask, leaf, jnp.broadcast_to(substitute, leaf.shape))

    return jax.tree.map(safe, xs)


def _first(flags: Array, axes: int | tuple[int, ...]) -> Array:
    """Keeps True at the first of the flags that are True along the axes."""
    order = jnp.arange(flags.size).reshape(flags.shape)
    return flags & (order == jnp.where(flags, order, flags.size).min(axis=axes, keepdims=True))


def _sum(where: Array, leaf: Array, axes: int | tuple[int, ...]) -> Array:
    """The sum over the axes of the rows where a flag holds, in the leaf's own dtype."""
    return select(where, leaf, jnp.zeros_like(leaf)).sum(axis=axes, dtype=leaf.dtype)


def _harmless(leaf: Array) -> Array:
    """Neither zero nor constant, where norms, logarithms and variances have no derivative."""
    if leaf.ndim == 0 or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return jnp.broadcast_to(jnp.linspace(0.25, 0.75, leaf.shape[-1], dtype=leaf.dtype), leaf.shape)


def effective_starts(starts: Array, mask: Array | None, reverse: bool) -> Array:
    """Moves every start to the valid step before which it resets the state.

    Forward, the state is reset before valid step t if a start lies in (p, t], where p is the valid
    step processed before t (-1 at first); in reverse, if one lies in (t, p] (p = time - 1 at
    first). With c[t] the number of starts up to t, that is c[t] ≠ c[p]; and c at the valid step
    before is a running maximum, or minimum in reverse, because c never falls.

    Shapes:
        starts, mask and the result are bool ``[time, *batch]``.
    """
    if starts.shape[0] == 0:
        return starts
    valid = jnp.ones_like(starts) if mask is None else mask
    count = jnp.cumsum(starts, axis=0, dtype=jnp.int32)
    if reverse:
        last = count[-1:]
        seen = jax.lax.cummin(jnp.where(valid, count, last), axis=0, reverse=True)
        before = jnp.concatenate([seen[1:], last])
    else:
        seen = jax.lax.cummax(jnp.where(valid, count, 0), axis=0)
        before = jnp.concatenate([jnp.zeros_like(count[:1]), seen[:-1]])
    return (count != before) & valid
