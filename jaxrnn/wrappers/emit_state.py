"""States as outputs."""

from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper


@frozen
class EmitState(Wrapper):
    """Replaces the output of a cell by its whole state after every step.

        state', y = cell.step(params, state, x);   the output is state'

    Under a mask the output of a skipped step is zero, as for every cell. ``output_size`` remains
    that of the wrapped cell, although the state may have another size and several parts.

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

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell; its output is discarded."""
        state, _ = super().step(params, state, x, key=key)
        return state, state

    def readout(self, params: PyTree, state: PyTree, x: PyTree) -> PyTree:
        """The new state."""
        return state
