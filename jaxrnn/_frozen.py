"""Frozen dataclasses whose repr is their constructor call."""

import dataclasses
import re
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass whose repr is its constructor call without defaults."""
    made = dataclasses.dataclass(frozen=True, repr=False)(cls)
    if "__repr__" not in vars(cls):
        made.__repr__ = constructor_call
    return made


def constructor_call(self: Any) -> str:
    """The constructor call of an instance without defaults, e.g. ``LSTM(hidden_size=64)``."""
    given = [
        f"{field.name}={_show(value)}"
        for field in dataclasses.fields(self)
        if (value := getattr(self, field.name)) != field.default
    ]
    return f"{type(self).__name__}({', '.join(given)})"


def _show(value: Any) -> str:
    """The name of a function, the repr without addresses of any other value."""
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return name.rpartition("<locals>.")[2]
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))
