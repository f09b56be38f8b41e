"""The engine for those who do not want to choose one."""

import jax

from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._typing import PyTree
from jaxrnn.engines._engine import Engine
from jaxrnn.engines.associative import Associative
from jaxrnn.engines.hoisted import Hoisted


@frozen
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

        - `Associative`, for the cells that it takes, on a CPU where time fills more than one of its
          chunks: 64 steps of a cell with a closed form for chunks, 1 MiB of states of an affine
          cell. Against a plain scan, 1024×4×128×128 with 4 heads: GatedLinearAttention 1.8 times
          faster, MLSTM 4.8, DeltaNet 3.8 times; MinGRU 4096×8×64×64 and 4096×8×256×256 3.2 and 3.0
          times, LRU 4096×8×64×64 4.5 times; with 6 to 37 times less temporary memory. `Hoisted`
          takes 1.4 to 1.9 times as long for the elementwise ones, 1.7 to 10 times for the others.
          Forward only, matrix states of this size are faster in a plain scan: 1.2 to 1.9 times.
        - `Associative`, for the cells that it takes, on every other backend. That is not measured:
          there a loop of one multiply-add a step leaves most of the machine idle.
        - else `Hoisted`, for every cell. It keeps in the loop what it cannot hoist, so where it
          finds nothing it is `Sequential`. Against the fastest of a plain scan, Flax, Haiku,
          Equinox and Keras, medians of interleaved runs of LSTM and GRU: 100×1×64×128 1.4 and 1.1
          times faster, 128×32×128×256 1.4 and 1.2 times, 512×8×64×128 2.6 and 2.4 times,
          1000×16×32×64 1.5 and 1.7 times, 256×64×512×512 1.02 and 1.05 times, 64×128×256×512 1.00
          and 1.01 times.
        - never `CuDNN`: its binding differentiates once, in reverse mode only, so it is not open to
          every transformation. Who wants it names it.
        """
        parallel = Associative()
        if parallel.why_not(cell, params, state, xs) is not None:
            return Hoisted()
        several = jax.tree.leaves(xs)[0].shape[0] > parallel.steps_at_once(cell, state, xs)
        return parallel if several or jax.default_backend() != "cpu" else Hoisted()

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Never refuses."""
        return None

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        return self.choose(cell, params, state, xs)(cell, params, state, xs, reverse=reverse)
