"""The initial state as a parameter."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import float_dtype
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper


class LearnedInitialStateParams(NamedTuple):
    """Parameters of `LearnedInitialState`."""

    cell: PyTree  # the wrapped cell's
    initial: PyTree  # its state without batch axes; complex numbers as [2, ...], integers as None


@frozen
class LearnedInitialState(Wrapper):
    """Learns the initial state of a cell, one for all rows of a batch.

        init_state(params) = params.initial

    It is initialized to the wrapped cell's initial state. Integers in a state (counters) are not
    learned. Sequences that begin at ``starts`` use the learned state too.

    Args:
        cell: the cell to run.

    Shapes:
        ``params.initial`` has the structure of the state, leaves ``[...]`` without batch axes and
        of the parameters' dtype.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.wrappers.LearnedInitialState(rnn.GRU(4))
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> loss = lambda params: rnn.unroll(cell, params, jax.numpy.ones((5, 3)))[1].sum()
        >>> bool((jax.grad(loss)(params).initial.hidden != 0).all())
        True

    References:
        M. L. Forcada and R. C. Carrasco, "Learning the initial state of a second-order recurrent
        neural network during regular-language inference", Neural Computation 7, 1995.
    """

    def init(self, key: Array, input_size: int, dtype: Any = None) -> LearnedInitialStateParams:
        """Draws the wrapped cell's parameters and adds its initial state."""
        dtype = float_dtype(dtype)
        params = self.cell.init(key, input_size, dtype)

        def learned(leaf):
            if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                leaf = jnp.stack([leaf.real, leaf.imag])
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else None

        initial = jax.tree.map(learned, self.cell.init_state(params, ()))
        return LearnedInitialStateParams(params, initial)

    def init_state(
        self, params: LearnedInitialStateParams, batch_shape: tuple[int, ...] = ()
    ) -> PyTree:
        """Returns the learned state, the same for each row."""

        def of(own, learned):
            if learned is None:
                return own
            if jnp.issubdtype(own.dtype, jnp.complexfloating):
                learned = jax.lax.complex(*learned.astype(own.real.dtype))
            return jnp.broadcast_to(learned.astype(own.dtype), own.shape)

        state = self.cell.init_state(params.cell, batch_shape)
        return jax.tree.map(of, state, params.initial)

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Makes the wrapped cell's random draws of one sequence."""
        return params._replace(cell=super().bind(params.cell, key, batch_shape))

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell."""
        return super().step(params.cell, state, x, key=key)

    def affine(self, params: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """``(a, b)`` of the wrapped cell, if it is affine."""
        return super().affine(params.cell, x)

    def readout(self, params: PyTree, state: PyTree, x: PyTree) -> PyTree:
        """The output from the NEW state, if the wrapped cell is affine."""
        return super().readout(params.cell, state, x)
