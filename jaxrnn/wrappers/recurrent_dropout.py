"""Dropout on what is written to the memory."""

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
    """Drops elements of the candidate alone: what is in the memory already is never lost.

        LSTM:  c' = f c + i d(g)          GRU:  h' = (1 - z) d(n) + z h
        d(g) = g ⊙ m / (1 - rate),   m ~ Bernoulli(1 - rate), drawn anew at each step

    It serves the cells that name the activation of their candidate (the field
    ``candidate_activation``): `LSTM`, `PeepholeLSTM`, `ProjectedLSTM`, `GRU`, `ResetBeforeGRU`, and
    any other cell that has such a field. A cell whose whole state is written anew at each step,
    like `Elman`, has no candidate: `VariationalDropout` or `Zoneout` serve it. Without a key
    nothing is dropped, which is the expectation of what is written.

    Args:
        cell: a cell with the field ``candidate_activation``, or a wrapper around one.
        rate: the probability with which an element of the candidate is dropped.

    Raises:
        TypeError, ValueError: the cell has no candidate; ``rate`` is no number in [0, 1).

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
        The paper scales by 1 - rate when it tests; here what is kept is scaled up in training.
    """

    rate: float

    def __post_init__(self):
        super().__post_init__()
        check_rate("rate", self.rate)
        _with_candidate(self.cell, lambda activation: activation)

    @property
    def stochastic(self) -> bool:
        """Whether there is something to draw, here or in the wrapped cell."""
        return self.rate > 0 or is_stochastic(self.cell)

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell, whose candidate is dropped."""
        key, inner = split_key(key)

        def dropped(activation):
            return lambda z: dropout(key, self.rate, activation(z))

        cell = self.cell if key is None else _with_candidate(self.cell, dropped)
        return step_with_key(cell, params, state, x, inner)


def _with_candidate(cell: Any, change) -> Cell:
    """The same cell with another activation of the candidate, inside however many wrappers."""
    fields = {field.name for field in dataclasses.fields(cell)} if _is_value(cell) else set()
    if "candidate_activation" in fields:
        activation = change(cell.candidate_activation)
        return dataclasses.replace(cell, candidate_activation=activation)
    if isinstance(cell, Wrapper):
        return dataclasses.replace(cell, cell=_with_candidate(cell.cell, change))
    raise TypeError(
        "RecurrentDropout serves cells that name the activation of their candidate (the field "
        f"candidate_activation), such as LSTM and GRU, but {type(cell).__name__} has none; use "
        "VariationalDropout or Zoneout, or give your cell the field"
    )


def _is_value(cell: Any) -> bool:
    return dataclasses.is_dataclass(cell) and not isinstance(cell, type)
