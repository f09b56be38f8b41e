"""Cells and engines by name, for the command line.

The names are found in the library, so a cell that is added there can be chosen here at once: every
public cell that needs nothing but `hidden_size`, and every engine that needs no option at all.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tyro

import jaxrnn as rnn


def _name(kind: type) -> str:
    """The command line's form of a class name: `ResetBeforeGRU` is `reset-before-gru`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def _required(kind: Callable) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name for p in parameters if p.default is p.empty}


def _public(module: Any, required: set[str]) -> dict[str, Any]:
    kinds = [getattr(module, name) for name in module.__all__]
    kinds = [kind for kind in kinds if inspect.isclass(kind) and dataclasses.is_dataclass(kind)]
    return {_name(kind): kind for kind in kinds if _required(kind) == required}


_CELLS = _public(rnn.cells, {"hidden_size"})
_ENGINES = _public(rnn.engines, set())

if TYPE_CHECKING:
    CellName = str
    EngineName = str
else:
    CellName = tyro.extras.literal_type_from_choices(sorted(_CELLS))
    EngineName = tyro.extras.literal_type_from_choices(sorted(_ENGINES))


def make_cell(name: CellName, hidden_size: int) -> Any:
    """The cell of a name; see `CellName` for the names."""
    return _CELLS[name](hidden_size=hidden_size)


def make_engine(name: EngineName) -> Any:
    """The engine of a name, with its default options; see `EngineName` for the names."""
    return _ENGINES[name]()
