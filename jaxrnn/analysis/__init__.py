"""Analysis: a recurrent network as a dynamical system, and how far gradients reach through it."""

from jaxrnn.analysis.gradient_flow import GradientFlow, gradient_flow
from jaxrnn.analysis.lyapunov import lyapunov_exponents

__all__ = ["GradientFlow", "gradient_flow", "lyapunov_exponents"]
