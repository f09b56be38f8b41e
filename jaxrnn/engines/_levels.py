"""Networks as cells by level and direction, for engines that run a whole network in one call."""

from typing import Any, NamedTuple

from jaxrnn._cell import Cell


class Level(NamedTuple):
    """The cells that read one sequence: a single one, or one for each direction of time."""

    cells: tuple[Cell, ...]
    engines: tuple[Any, ...]  # of the cells, None for the default
    reverse: bool = False  # whether a single cell runs backward in time


class NotLevels(Exception):
    """The reason why a network is more than its levels, one after another."""


def levels_of(cell: Any) -> tuple[Level, ...]:
    """The levels of a network, from its member ``levels``; a bare cell is one level.

    The leaves of parameters and states are in the order of levels and directions.

    Raises:
        NotLevels: the network does more than to run its levels one after another.
    """
    levels = getattr(cell, "levels", None)
    return (Level((cell,), (None,)),) if levels is None else levels
