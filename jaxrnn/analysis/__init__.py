"""What a recurrent network does as a dynamical system."""

from jaxrnn.analysis.lyapunov import lyapunov_exponents

__all__ = ["lyapunov_exponents"]
