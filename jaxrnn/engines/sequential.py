"""The reference engine: a scan over time."""

import jax

from jaxrnn._arguments import check_size
from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._typing import PyTree
from jaxrnn.engines._engine import check_symbolic, why_not_options


@frozen
class Sequential:
    """Plain `jax.lax.scan` over the step of the cell: the reference for all other engines.

    Accepts every cell and supports every JAX transformation.

    Args:
        unroll: steps in one iteration of the compiled loop.

    Raises:
        TypeError, ValueError: ``unroll`` is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.Elman(2)
        >>> params = cell.init(jax.random.key(0), input_size=1)
        >>> engine = rnn.engines.Sequential(unroll=4)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((5, 1)), engine=engine)
        >>> ys.shape
        (5, 2)
    """

    unroll: int = 1

    def __post_init__(self):
        check_size("unroll", self.unroll)

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why an option cannot be had, or None: every cell is accepted."""
        return why_not_options(self, xs, "unroll")

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        check_symbolic(self, xs, "unroll")

        def body(state: PyTree, x: PyTree):
            return cell.step(params, state, x)

        return jax.lax.scan(body, state, xs, reverse=reverse, unroll=self.unroll)
