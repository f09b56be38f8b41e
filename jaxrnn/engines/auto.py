"""The engine that chooses an engine."""

import jax

from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._platform import CPU, by_platform, kind_of
from jaxrnn._typing import PyTree
from jaxrnn.engines._engine import Engine
from jaxrnn.engines.associative import Associative
from jaxrnn.engines.hoisted import Hoisted


@frozen
class Auto:
    """Chooses an engine by the cell, the static shapes and the platform of the program.

    The result is exact up to rounding (no approximation, no reduced precision), and every JAX
    transformation is supported. See `choose` for the rule and its measurements (two CPU cores with
    AVX-512, jax 0.10.2, float32, forward and backward, ``python -m experiments.benchmark``).

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.numpy.ones((5, 2, 3))
        >>> rnn.engines.Auto().choose(cell, params, cell.init_state(params, (2,)), xs)
        Hoisted()
    """

    def choose(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, platform: str | None = None
    ) -> Engine:
        """Returns the engine that will run this work.

        - `Associative`, for the cells that it accepts, on a CPU if the sequence is longer than one
          chunk: 64 steps of a `ChunkedCell`, 1 MiB of states of an `AffineCell`. Against a plain
          scan, 1024×4×128×128 with 4 heads: GatedLinearAttention 1.8 times faster, MLSTM 4.8,
          DeltaNet 3.8 times; MinGRU 4096×8×64×64 and 4096×8×256×256 3.2 and 3.0 times, LRU
          4096×8×64×64 4.5 times; with 6 to 37 times less temporary memory. `Hoisted` takes 1.4 to
          1.9 times as long for the elementwise ones, 1.7 to 10 times for the others. Forward only,
          matrix states of this size are faster in a plain scan: 1.2 to 1.9 times.
        - `Associative`, for the cells that it accepts, on every other platform, where a loop of one
          multiply-add a step leaves most of the device idle. This is not measured.
        - `Hoisted` for sizes that are symbolic, in `jax.export`.
        - `Hoisted` otherwise. It keeps in the loop what it cannot hoist, so at worst it equals
          `Sequential`. Against the fastest of a plain scan, Flax, Haiku, Equinox and Keras, medians
          of interleaved runs of LSTM and GRU: 100×1×64×128 1.4 and 1.1 times faster, 128×32×128×256
          1.4 and 1.2 times, 512×8×64×128 2.6 and 2.4 times, 1000×16×32×64 1.5 and 1.7 times,
          256×64×512×512 1.02 and 1.05 times, 64×128×256×512 1.00 and 1.01 times.
        - never `CuDNN`: its binding supports first-order reverse mode only. Pass it explicitly.
        """
        parallel = Associative()
        sizes = (size for leaf in jax.tree.leaves(xs) for size in leaf.shape)
        if not all(isinstance(size, int) for size in sizes):
            return Hoisted()
        if parallel.why_not(cell, params, state, xs) is not None:
            return Hoisted()
        if platform is None:
            platform = kind_of(params, state, xs)
        several = jax.tree.leaves(xs)[0].shape[0] > parallel.steps_at_once(cell, state, xs, CPU)
        return parallel if several or platform != CPU else Hoisted()

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Always None: every cell is accepted."""
        return None

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""

        def run(platform, params, state, xs):
            engine = self.choose(cell, params, state, xs, platform)
            return engine(cell, params, state, xs, reverse=reverse)

        return by_platform(run, params, state, xs)
