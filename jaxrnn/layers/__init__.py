"""Layers: sequence -> sequence. A bare cell is converted to a `Recurrent` layer."""

from jaxrnn._cell import can_step
from jaxrnn.layers._layer import Layer
from jaxrnn.layers.bidirectional import Bidirectional, BidirectionalParams, BidirectionalState
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import NormalizedParams, Stack

__all__ = [
    "Bidirectional",
    "BidirectionalParams",
    "BidirectionalState",
    "Layer",
    "NormalizedParams",
    "Recurrent",
    "Stack",
    "can_step",
]
