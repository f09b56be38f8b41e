"""The types that all signatures share."""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
PyTree = Any
Initializer = Callable[..., Array]
