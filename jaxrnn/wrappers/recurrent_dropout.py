"""Recurrent dropout: dropout on the candidate."""

import dataclasses
from typing import Any

from jaxrnn._arguments import check_rate
from jaxrnn._cell import Cell, is_stochastic, step_with_key
from jaxrnn._frozen import frozen
from jaxrnn._numerics import dropout
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper, split_key


@frozen
class RecurrentDropout(Wrapper):
    """Recurrent dropout: drops elements of the candidate, never of the memory.

        LSTM:  c' = f c + i d(g)          GRU:  h' = (1 - z) d(n) + z h
        d(g) = g ⊙ m / (1 - rate),   m ~ Bernoulli(1 - rate), drawn at each step

    It applies to cells with the field ``candidate_activation``: `LSTM`, `PeepholeLSTM`,
    `ProjectedLSTM`, `GRU`, `ResetBeforeGRU`, and any other cell with such a field. A cell that
    overwrites its whole state at each step, such as `Elman`, has no candidate: use
    `VariationalDropout` or `Zoneout`. Without a key nothing is dropped, which is the expectation of
    the candidate.

    Args:
        cell: a cell with the field ``candidate_activation``, or a wrapper around one.
        rate: the probability of dropping an element of the candidate.

    Raises:
        TypeError, ValueError: the cell has no candidate; ``rate`` is not a number in [0, 1).

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.wrappers.RecurrentDropout(rnn.LSTM(4), rate=0.25)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 3)), key=jax.random.key(1))
        >>> ys.shape
        (7, 4)

    References:
        S. Semeniuta, A. Severyn and E. Barth, "Recurrent dropout without memory loss", 2016.

    Note:
        The paper scales by 1 - rate at test time; here kept elements are scaled during training
        (inverted dropout).
    """

    rate: float

    def __post_init__(self):
        super().__post_init__()
        check_rate("rate", self.rate)
        _with_candidate(self.cell, lambda activation: activation)

    @property
    def stochastic(self) -> bool:
        """Whether the wrapper or the wrapped cell uses a key."""
        return self.rate > 0 or is_stochastic(self.cell)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell, with dropout on its candidate."""
        key, inner = split_key(key)

        def dropped(activation):
            return lambda z: dropout(key, self.rate, activation(z))

        cell = self.cell if key is None else _with_candidate(self.cell, dropped)
        return step_with_key(cell, params, state, x, inner)


def _with_candidate(cell: Any, change) -> Cell:
    """The same cell with another activation of the candidate, inside any number of wrappers."""
    fields = {field.name for field in dataclasses.fields(cell)} if _is_value(cell) else set()
    if "candidate_activation" in fields:
        activation = change(cell.candidate_activation)
        return dataclasses.replace(cell, candidate_activation=activation)
    if isinstance(cell, Wrapper):
        return dataclasses.replace(cell, cell=_with_candidate(cell.cell, change))
    raise TypeError(
        "RecurrentDropout needs a cell with the field candidate_activation, such as LSTM and GRU, "
        f"got {type(cell).__name__}; use VariationalDropout or Zoneout, or add the field"
    )


def _is_value(cell: Any) -> bool:
    return dataclasses.is_dataclass(cell) and not isinstance(cell, type)
