"""Masks and starts of sequences."""

import jax
import jax.numpy as jnp

from jaxrnn._frozen import frozen
from jaxrnn._masking import MaskedInput, select, zero_skipped
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper


@frozen
class Masked(Wrapper):
    """Applies a mask and sequence starts to one step of a cell.

        state ← cell.init_state   where start
        state', y = cell.step(params, state, x)
        state' ← the state given, y ← 0   where not valid

    `jaxrnn.unroll` wraps a cell in this wrapper if it is given ``lengths``, ``mask`` or ``starts``.
    It first makes inputs safe by `safe_inputs` and moves starts to valid steps by
    `effective_starts`.

    Args:
        cell: the cell to run.
        from_lengths: whether the mask is that of lengths, i.e. the valid steps of every row come
            first, and there are no starts; some engines run lengths only.

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

    from_lengths: bool = False

    def step(
        self, params: PyTree, state: PyTree, inputs: MaskedInput, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; rows that are not valid keep their state and output zeros."""
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
