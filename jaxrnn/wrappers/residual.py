"""Residual connections."""

import jax
import jax.numpy as jnp

from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper


@frozen
class Residual(Wrapper):
    """Adds the input of each step to the output: a residual connection around a cell.

        state', y = cell.step(params, state, x);   the output is x + y

    Args:
        cell: a cell with as many output features as input features.

    Shapes:
        x and the output ``[*batch, output_size]``.

    Raises:
        ValueError: in `init` and `step`, if input and output differ in size.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.wrappers.Residual(rnn.GRU(3))
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.random.normal(jax.random.key(1), (7, 2, 3))
        >>> _, ys = rnn.unroll(cell, params, xs)
        >>> _, without = rnn.unroll(cell.cell, params, xs)
        >>> bool((ys == xs + without).all())
        True

    References:
        Y. Wu et al., "Google's neural machine translation system", 2016, section 3.1.

    Note:
        Between the layers of a stack, `jaxrnn.layers.Stack` has ``residual=True``.
    """

    def init(self, key: Array, input_size: int, dtype=None) -> PyTree:
        """Draws the wrapped cell's parameters."""
        if self.output_size is not None and self.output_size != input_size:
            self._refuse(f"{input_size} features", f"{self.output_size}")
        return super().init(key, input_size, dtype)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell, with its input added to the output."""
        state, y = super().step(params, state, x, key=key)
        return state, self._sum(x, y)

    def readout(self, params: PyTree, state: PyTree, x: PyTree) -> PyTree:
        """The wrapped cell's output from its new state, plus the input."""
        return self._sum(x, super().readout(params, state, x))

    def _sum(self, x: PyTree, y: PyTree) -> PyTree:
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (x, y)]
        if shapes[0] != shapes[1]:
            self._refuse(*shapes)
        return jax.tree.map(jnp.add, x, y)

    def _refuse(self, incoming, outgoing):
        raise ValueError(
            f"Residual needs equal shapes of input and output, got {incoming} and {outgoing} for "
            f"{type(self.cell).__name__}; change the sizes, or project the input first"
        )
