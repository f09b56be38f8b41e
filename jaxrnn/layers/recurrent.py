"""One cell as a layer."""

from typing import Any

from jaxrnn import _validation as checks
from jaxrnn._cell import Cell, bind_with_key, can_step, input_rank, is_stochastic, step_with_key
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import unroll
from jaxrnn.engines import Engine
from jaxrnn.engines._engine import check_engine
from jaxrnn.layers._layer import Layer


@frozen
class Recurrent:
    """A cell that runs over a sequence, with the engine and the direction it runs in.

        final_state, ys = jaxrnn.unroll(cell, params, xs, state, engine=engine, reverse=reverse)

    Wherever a layer is wanted a bare cell is taken too, and stands for ``Recurrent(cell)``.

    Args:
        cell: the cell to run.
        engine: how to run it, a value from `jaxrnn.engines`; None is ``Auto()``.
        reverse: whether time runs backwards; such a layer has no ``step``.

    Shapes:
        xs ``[time, *batch, features]``, ys ``[time, *batch, output_size]``.

    Raises:
        TypeError: ``cell`` is no cell, ``engine`` no engine, or ``reverse`` no bool.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> layer = rnn.layers.Recurrent(rnn.GRU(4), reverse=True)
        >>> params = layer.init(jax.random.key(0), input_size=3)
        >>> final, ys = layer.apply(params, None, jax.numpy.ones((7, 2, 3)))
        >>> bool((final.hidden == ys[0]).all())
        True
    """

    cell: Cell
    engine: Engine | None = None
    reverse: bool = False

    def __post_init__(self):
        checks.check_cell(self.cell)
        if self.engine is not None:
            check_engine(self.engine)
        if not isinstance(self.reverse, bool):
            raise TypeError(f"reverse must be True or False, got {self.reverse!r}")

    @property
    def output_size(self) -> int | None:
        """The cell's."""
        return self.cell.output_size

    @property
    def input_rank(self) -> int:
        """The cell's."""
        return input_rank(self.cell)

    @property
    def stochastic(self) -> bool:
        """Whether the cell takes a key."""
        return is_stochastic(self.cell)

    @property
    def can_step(self) -> bool:
        """Whether the layer runs forward in time."""
        return not self.reverse

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the cell's parameters."""
        return self.cell.init(key, input_size, dtype)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the cell's initial state."""
        return self.cell.init_state(params, batch_shape)

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """What the cell draws once a sequence."""
        return bind_with_key(self.cell, params, key, batch_shape)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the cell."""
        if self.reverse:
            raise TypeError(f"{self!r} runs backward over a whole sequence: call apply, not step")
        return step_with_key(self.cell, params, state, x, key)

    def apply(
        self,
        params: PyTree,
        state: PyTree,
        xs: PyTree,
        *,
        lengths: Any = None,
        mask: Any = None,
        starts: Any = None,
        key: Array | None = None,
    ) -> tuple[PyTree, PyTree]:
        """Runs the cell over a sequence; see `jaxrnn.unroll` for the arguments."""
        return unroll(
            self.cell,
            params,
            xs,
            state,
            lengths=lengths,
            mask=mask,
            starts=starts,
            reverse=self.reverse,
            key=key,
            engine=self.engine,
        )


def as_layer(value: Layer | Cell, name: str) -> Layer:
    """Returns a layer as it is, and a bare cell as ``Recurrent(cell)``."""
    if isinstance(value, type):
        raise TypeError(
            f"{name} must be an instance, got the class {value.__name__}; make one, e.g. "
            f"{value.__name__}(hidden_size=128)"
        )
    if callable(getattr(value, "apply", None)):
        return value  # pyright: ignore[reportReturnType]
    if not can_step(value):
        raise TypeError(
            f"{name} must be a layer or a cell, got {value!r}, which has neither apply nor step"
        )
    return Recurrent(value)  # pyright: ignore[reportArgumentType]
