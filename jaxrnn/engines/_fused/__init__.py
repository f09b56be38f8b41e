"""The kernels of `Fused`: a scan over tiles in one kernel, and its derivatives."""
