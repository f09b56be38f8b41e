"""The engine for those who do not want to choose one."""

import dataclasses

from jaxrnn._cell import Cell, PyTree
from jaxrnn.engines._engine import Engine
from jaxrnn.engines.hoisted import Hoisted


@dataclasses.dataclass(frozen=True)
class Auto:
    """Picks an engine by what the cell can do, the static shapes, the dtype and the backend.

    The choice is exact to rounding (never an approximation, never reduced precision) and open to
    every JAX transformation. The rule, with the measurements behind it (two CPU cores with AVX-512,
    jax 0.10.2, float32, forward and backward, `experiments/benchmark.py`), is in `choose`.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.numpy.ones((5, 2, 3))
        >>> rnn.engines.Auto().choose(cell, params, cell.init_state(params, (2,)), xs)
        Hoisted(unroll=1, checkpoint_every=None)
    """

    def choose(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> Engine:
        """Returns the engine that will run this work.

        - `Hoisted`, for every cell. It keeps in the loop what it cannot hoist, so where it finds
          nothing it is `Sequential`. Against a plain scan, the medians of interleaved runs:
          LSTM 512×8×64×128 2.7 times faster, GRU 2.4 times; 128×32×128×256 1.1 times each;
          100×1×64×128 0.9 to 1.6 times.
        - never `CuDNN`: its binding differentiates once, in reverse mode only, so it is not open to
          every transformation. Who wants it names it.
        """
        return Hoisted()

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Never refuses."""
        return None

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        return self.choose(cell, params, state, xs)(cell, params, state, xs, reverse=reverse)
