"""Analysis of recurrent networks as dynamical systems.

Fixed points and their linearization, Lyapunov exponents, gradient norms, and dimensionality.
"""

from jaxrnn.analysis.fixed_points import FixedPoints, fixed_points
from jaxrnn.analysis.gradient_flow import GradientFlow, gradient_flow
from jaxrnn.analysis.linearise import Linearisation, linearise
from jaxrnn.analysis.lyapunov import lyapunov_exponents
from jaxrnn.analysis.participation_ratio import participation_ratio
from jaxrnn.analysis.plot import plot_fixed_points

__all__ = [
    "FixedPoints",
    "GradientFlow",
    "Linearisation",
    "fixed_points",
    "gradient_flow",
    "linearise",
    "lyapunov_exponents",
    "participation_ratio",
    "plot_fixed_points",
]
