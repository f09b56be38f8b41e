"""The contract of a layer."""

from typing import Any, Protocol, runtime_checkable

from jaxrnn._typing import Array, PyTree


@runtime_checkable
class Layer(Protocol):
    """The contract of a layer: maps sequences to sequences; a frozen dataclass of hyperparameters.

    A unidirectional layer is also a `Cell`: its ``step`` decodes and samples one step at a time.
    `can_step` is false for a layer that needs the whole sequence.

    Example:
        >>> import jaxrnn as rnn
        >>> isinstance(rnn.layers.Recurrent(rnn.LSTM(8)), rnn.layers.Layer)
        True
    """

    @property
    def output_size(self) -> int | None:
        """The number of features of one output."""
        ...

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the parameters, a pytree of arrays of one floating-point dtype."""
        ...

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the state before the first step, leaves ``[*batch_shape, ...]``."""
        ...

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
        """Runs over a sequence: ``(params, state, xs) -> (final_state, ys)``."""
        ...


def check_parts(name: str, parts: Any, count: int, remedy: str) -> None:
    """Raises unless ``parts`` is a tuple with one entry for each of several layers."""
    if not isinstance(parts, tuple):
        raise TypeError(
            f"{name} must be a tuple with {count} entries, got {type(parts).__name__}; {remedy}"
        )
    if len(parts) != count:
        raise ValueError(f"{name} must have {count} entries, got {len(parts)}; {remedy}")
