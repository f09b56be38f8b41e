"""States as outputs."""

import dataclasses
from typing import Any

from jaxrnn._cell import Array, Cell, PyTree, input_rank, is_stochastic, step_with_key


@dataclasses.dataclass(frozen=True)
class EmitState:
    """Gives the whole state after every step as the output, in place of the cell's own.

        state', y = cell.step(params, state, x);   the output is state'

    Under a mask the output of a skipped step is zero, as every output is.

    Args:
        cell: the cell to run.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.wrappers.EmitState(rnn.LSTM(2))
        >>> params = cell.init(jax.random.key(0), input_size=1)
        >>> final, states = rnn.unroll(cell, params, jax.numpy.ones((5, 1)))
        >>> states.cell.shape
        (5, 2)
    """

    cell: Cell

    @property
    def output_size(self) -> int | None:
        """The wrapped cell's: the state itself may have another width, and several parts."""
        return self.cell.output_size

    @property
    def input_rank(self) -> int:
        """The wrapped cell's."""
        return input_rank(self.cell)

    @property
    def stochastic(self) -> bool:
        """Whether the wrapped cell takes a key."""
        return is_stochastic(self.cell)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the wrapped cell's parameters."""
        return self.cell.init(key, input_size, dtype)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the wrapped cell's initial state."""
        return self.cell.init_state(params, batch_shape)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell, whose output is dropped."""
        state, _ = step_with_key(self.cell, params, state, x, key)
        return state, state
