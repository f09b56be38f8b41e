"""Analysis: how far gradients reach through a recurrence."""

from jaxrnn.analysis.gradient_flow import GradientFlow, gradient_flow

__all__ = ["GradientFlow", "gradient_flow"]
