"""Engines: implementations of the loop over time. They differ in speed, never in the result."""

from jaxrnn.engines._engine import Engine
from jaxrnn.engines._trajectory import NewtonInfo
from jaxrnn.engines.associative import Associative
from jaxrnn.engines.auto import Auto
from jaxrnn.engines.cudnn import CuDNN
from jaxrnn.engines.fused import Fused
from jaxrnn.engines.hoisted import Hoisted
from jaxrnn.engines.newton import Newton
from jaxrnn.engines.sequential import Sequential

__all__ = [
    "Associative",
    "Auto",
    "CuDNN",
    "Engine",
    "Fused",
    "Hoisted",
    "Newton",
    "NewtonInfo",
    "Sequential",
]
