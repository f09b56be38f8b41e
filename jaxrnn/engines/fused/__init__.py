"""One kernel for all time steps, generated from the step of a cell; see `Fused`."""

from jaxrnn.engines.fused.engine import Fused

__all__ = ["Fused"]
