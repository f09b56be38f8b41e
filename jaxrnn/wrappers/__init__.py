"""Wrappers: cell -> cell. What they add is seen by every engine as part of the step."""

from jaxrnn.wrappers.emit_state import EmitState
from jaxrnn.wrappers.masked import Masked, MaskedInput

__all__ = ["EmitState", "Masked", "MaskedInput"]
