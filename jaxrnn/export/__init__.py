"""Export of trained networks: ONNX models and StableHLO programs, whole sequences or steps."""

from jaxrnn.export._onnx import function_to_onnx, to_onnx
from jaxrnn.export._stablehlo import to_stablehlo

__all__ = ["function_to_onnx", "to_onnx", "to_stablehlo"]
