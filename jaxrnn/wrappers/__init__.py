"""Wrappers: cell -> cell. Engines see what a wrapper adds as part of the step."""

from jaxrnn._masking import MaskedInput
from jaxrnn.wrappers.emit_state import EmitState
from jaxrnn.wrappers.learned_initial_state import LearnedInitialState, LearnedInitialStateParams
from jaxrnn.wrappers.masked import Masked
from jaxrnn.wrappers.recurrent_dropout import RecurrentDropout
from jaxrnn.wrappers.residual import Residual
from jaxrnn.wrappers.variational_dropout import VariationalDropout
from jaxrnn.wrappers.weight_drop import WeightDrop
from jaxrnn.wrappers.zoneout import Zoneout

__all__ = [
    "EmitState",
    "LearnedInitialState",
    "LearnedInitialStateParams",
    "Masked",
    "MaskedInput",
    "RecurrentDropout",
    "Residual",
    "VariationalDropout",
    "WeightDrop",
    "Zoneout",
]
