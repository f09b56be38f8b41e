"""Layers: whole sequences to whole sequences. A bare cell stands for `Recurrent` of it."""

from jaxrnn._cell import can_step
from jaxrnn.layers._layer import Layer
from jaxrnn.layers.bidirectional import Bidirectional, BidirectionalParams, BidirectionalState
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import NormalisedParams, Stack

__all__ = [
    "Bidirectional",
    "BidirectionalParams",
    "BidirectionalState",
    "Layer",
    "NormalisedParams",
    "Recurrent",
    "Stack",
    "can_step",
]
