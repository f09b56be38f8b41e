"""Analysis of recurrent networks as dynamical systems: Lyapunov exponents and gradient norms."""

from jaxrnn.analysis.gradient_flow import GradientFlow, gradient_flow
from jaxrnn.analysis.lyapunov import lyapunov_exponents

__all__ = ["GradientFlow", "gradient_flow", "lyapunov_exponents"]
