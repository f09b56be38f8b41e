"""The layer of a single cell."""

from typing import Any

from jaxrnn._cell import Cell, can_step
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import unroll
from jaxrnn.engines import Engine
from jaxrnn.engines._engine import check_engine
from jaxrnn.engines._levels import Level, levels_of
from jaxrnn.layers._layer import Layer
from jaxrnn.wrappers._wrapper import Wrapper


@frozen
class Recurrent(Wrapper):
    """A cell as a layer, with an engine and a direction of time.

        final_state, ys = jaxrnn.unroll(cell, params, xs, state, engine=engine, reverse=reverse)

    Wherever a layer is expected, a bare cell is converted to ``Recurrent(cell)``.

    Args:
        cell: the cell to run.
        engine: the engine that runs it, from `jaxrnn.engines`; default ``Auto()``.
        reverse: whether to run backward in time; such a layer cannot ``step``.

    Shapes:
        xs ``[time, *batch, features]``, ys ``[time, *batch, output_size]``.

    Raises:
        TypeError: ``cell`` is not a cell, ``engine`` not an engine, or ``reverse`` not a bool.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> layer = rnn.layers.Recurrent(rnn.GRU(4), reverse=True)
        >>> params = layer.init(jax.random.key(0), input_size=3)
        >>> final, ys = layer.apply(params, None, jax.numpy.ones((7, 2, 3)))
        >>> bool((final.hidden == ys[0]).all())
        True
    """

    engine: Engine | None = None
    reverse: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.engine is not None:
            check_engine(self.engine)
        if not isinstance(self.reverse, bool):
            raise TypeError(f"reverse must be True or False, got {self.reverse!r}")

    @property
    def can_step(self) -> bool:
        """Whether the layer runs forward in time."""
        return not self.reverse

    @property
    def levels(self) -> tuple[Level, ...]:
        """The cells by level and direction, for engines that run a network in one call."""
        return tuple(
            level._replace(engines=(self.engine,) * len(level.cells), reverse=self.reverse)
            for level in levels_of(self.cell)
        )

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the cell."""
        if self.reverse:
            raise TypeError(f"{self!r} runs backward over a whole sequence: call apply, not step")
        return super().step(params, state, x, key=key)

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
    """Converts a bare cell to ``Recurrent(cell)``; returns a layer unchanged."""
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
