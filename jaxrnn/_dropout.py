"""The arithmetic of dropout, for layers and wrappers.

Dropout here is inverted: what is kept is scaled by 1 / (1 - rate) while training, so that the
expectation is the undisturbed network and nothing is scaled afterwards.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def check_rate(name: str, rate: Any) -> None:
    """Raises unless ``rate`` is a Python number with 0 <= rate < 1."""
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TypeError(
            f"{name} must be a Python number, for it is a static hyper-parameter, got {rate!r}; "
            "write e.g. 0.5"
        )
    if math.isnan(rate) or not 0 <= rate < 1:
        raise ValueError(
            f"{name} is the probability of being dropped and must lie in [0, 1), got {rate!r}"
        )


def dropout(key: Array | None, rate: float, x: Array) -> Array:
    """Sets elements to zero with probability ``rate``; ``key=None`` leaves all as they are."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DroppedKernel:
    """A kernel that multiplies features of which some are dropped; it stands where the kernel did.

    One kernel serves the whole batch, and yet each row of the batch has a mask of its own, which a
    kernel with rows of zeros could not give it.
    """

    kernel: Any  # Array [features, columns], or a DroppedKernel again
    mask: Array  # [*batch, features]: 0, or 1 / (1 - rate)

    __array_ufunc__ = None  # NumPy leaves x @ kernel to __rmatmul__

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape

    @property
    def ndim(self) -> int:
        return self.kernel.ndim

    @property
    def dtype(self) -> Any:
        return self.kernel.dtype

    def drop(self, x: Array) -> Array:
        """The features that are kept, scaled."""
        return (x.astype(self.mask.dtype) * self.mask).astype(x.dtype)

    def __rmatmul__(self, x: Array) -> Array:
        return self.drop(x) @ self.kernel
