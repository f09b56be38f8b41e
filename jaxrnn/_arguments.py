"""Checks of the arguments of constructors and of ``init``."""

import math
import numbers
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp


def check_size(name: str, value: Any) -> None:
    """Raises unless ``value`` is a positive integer."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a positive int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be a positive int, got {value!r}")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a real number and not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_positive(name: str, value: Any) -> None:
    """Raises unless ``value`` is a positive real number."""
    if not is_number(value):
        raise TypeError(f"{name} must be a positive number, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def check_key(key: Any, name: str = "key") -> None:
    """Raises unless ``key`` is one JAX random key (new style, or uint32 of shape [2])."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        is_key = key.ndim == 0
    else:
        is_key = dtype == jnp.uint32 and key.shape == (2,)
    if not is_key:
        what = f"{dtype}{list(key.shape)}" if dtype is not None else repr(key)
        raise TypeError(f"{name} must be one JAX random key, e.g. jax.random.key(0), got {what}")


def float_dtype(dtype: Any) -> Any:
    """The dtype of new parameters; None is JAX's default floating-point dtype."""
    if dtype is None:
        return jnp.result_type(float)
    try:
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError as error:
        raise TypeError(
            f"dtype must be a floating-point dtype, e.g. jnp.float32, got {dtype!r}"
        ) from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"dtype must be a floating-point dtype, e.g. jnp.float32 (complex parameters are "
            f"stored as real pairs), got {dtype}"
        )
    return dtype


def check_init(key: Any, input_size: Any, dtype: Any) -> Any:
    """Checks the arguments of a cell's ``init`` and returns the dtype of its parameters."""
    check_key(key)
    check_size("input_size", input_size)
    return float_dtype(dtype)


def check_rate(name: str, rate: Any) -> None:
    """Raises unless ``rate`` is a Python number with 0 <= rate < 1."""
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TypeError(
            f"{name} must be a Python number, got {rate!r}; it is a static hyper-parameter: pass "
            "e.g. 0.5"
        )
    if math.isnan(rate) or not 0 <= rate < 1:
        raise ValueError(
            f"{name} is the probability of dropping an element and must lie in [0, 1), got {rate!r}"
        )


def brief(value: Any) -> str:
    """A short description of a value for error messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
