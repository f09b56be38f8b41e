"""The named arrays of a framework, each read once, by name and shape."""

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxrnn._typing import Array

P = ParamSpec("P")
R = TypeVar("R")


def errors_name_file(function: Callable[P, R]) -> Callable[P, R]:
    """Makes every error of a function that is given the path of a file have the file's name."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not args or not isinstance(args[0], str | os.PathLike):
            return function(*args, **kwargs)
        path = os.fspath(args[0])
        try:
            return function(*args, **kwargs)
        except (FileNotFoundError, PermissionError, IsADirectoryError, ImportError):
            raise
        except (ValueError, TypeError) as error:
            if str(path) in str(error):
                raise
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{path}: {error}") from error
        except Exception as error:  # of the parsers' own classes, and what damage leads to
            raise ValueError(
                f"{path} must be a complete file of this format, got {type(error).__name__}: "
                f"{error}; it is damaged, or of another format"
            ) from error

    return call


def to_numpy(name: str, value: Any) -> np.ndarray:
    """Converts an array of NumPy, JAX, PyTorch or Keras to NumPy, with the same dtype."""
    if hasattr(value, "detach"):  # PyTorch
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no bfloat16: reinterpret the bits
            value = value.view(_int16(value)).numpy().view(jnp.bfloat16)
        else:
            value = value.numpy()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array, got {type(value).__name__}") from error


def as_array(name: str, value: Any) -> Array:
    """Converts an array of NumPy, JAX, PyTorch or Keras to a JAX array of the same dtype."""
    array = value if isinstance(value, jax.Array) else to_numpy(name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be an array of floating-point numbers, got {array.dtype}")
    if isinstance(array, np.ndarray):
        if array.dtype == np.longdouble and array.dtype.itemsize > 8:
            raise TypeError(f"{name} has dtype {array.dtype}, which JAX lacks; cast it to float64")
        array = array.astype(array.dtype.newbyteorder("="))
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, which JAX would silently narrow to "
            f"{jax.dtypes.canonicalize_dtype(array.dtype)}; call jax.config.update("
            "'jax_enable_x64', True) first, or cast the weights yourself"
        )
    return jnp.asarray(array)


def _int16(tensor: Any) -> Any:
    """``torch.int16``, obtained from a tensor so that PyTorch is not imported here."""
    return tensor.new_empty(0).bool().short().dtype


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings to one mapping with keys ``outer/inner``."""
    flat = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}/"))
        else:
            flat[name] = value
    return flat


def warn_not_finite(framework: str, arrays: Mapping[str, Array]) -> None:
    """Warns of NaN and infinite weights by name; traced arrays are not checked."""
    concrete = {n: a for n, a in arrays.items() if not isinstance(a, jax.core.Tracer)}
    names = [name for name, array in concrete.items() if not np.isfinite(np.asarray(array)).all()]
    if names:
        warnings.warn(
            f"{framework} weights hold NaN or infinity: {', '.join(names)}; they are converted "
            "as they are",
            stacklevel=4,
        )


class Source:
    """The arrays of one framework, read by name; every error names the array."""

    def __init__(self, framework: str, arrays: Mapping[str, Any], prefix: str = ""):
        self.framework = framework
        self.prefix = prefix
        self.left = {name: as_array(f"{prefix}{name}", value) for name, value in arrays.items()}
        warn_not_finite(framework, {f"{prefix}{name}": a for name, a in self.left.items()})
        dtypes: dict[Any, str] = {}
        for name, array in self.left.items():
            dtypes.setdefault(array.dtype, name)
        self.dtype = next(iter(dtypes), None)
        if len(dtypes) > 1:
            (a, first), (b, second), *_ = dtypes.items()
            raise TypeError(
                f"the weights must share one dtype, but {prefix}{first} has {a} and "
                f"{prefix}{second} has {b}; cast them to one dtype"
            )

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def shape(self, name: str, *wanted: str) -> tuple[int, ...]:
        """The shape of a required array, with one axis for each name in ``wanted``."""
        if name not in self.left:
            raise ValueError(
                f"{self.framework} weights must hold {self.prefix}{name} [{', '.join(wanted)}], "
                f"got only {self._names()}"
            )
        shape = self.left[name].shape
        if len(shape) != len(wanted) or 0 in shape:
            raise ValueError(
                f"{self.prefix}{name} must have shape [{', '.join(wanted)}], got {list(shape)}"
            )
        return shape

    def take(self, name: str, *shape: int) -> Array:
        """Removes and returns the array of this name, which must have this shape."""
        if name not in self.left:
            raise ValueError(
                f"{self.framework} weights must hold {self.prefix}{name} {list(shape)}, got only "
                f"{self._names()}"
            )
        if self.left[name].shape != shape:
            raise ValueError(
                f"{self.prefix}{name} must have shape {list(shape)} to match the other weights, "
                f"got {list(self.left[name].shape)}"
            )
        return self.left.pop(name)

    def take_or_zeros(self, name: str, *shape: int) -> Array:
        """The array of this name, or zeros for a layer without this bias."""
        if name in self.left:
            return self.take(name, *shape)
        return jnp.zeros(shape, self.dtype)

    def close(self) -> None:
        """Raises if an array was not read."""
        if self.left:
            raise ValueError(
                f"{self.framework} weights hold {self._names()}, which this layer does not have; "
                "remove it, or convert the layer that it belongs to"
            )

    def _names(self) -> str:
        names = [f"{self.prefix}{name} {list(a.shape)}" for name, a in self.left.items()]
        return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "nothing"


def gates_of(name: str, shape: Sequence[int], hidden: int, axis: int = 0) -> int:
    """The number of gates packed on an axis: 1 for an Elman cell, 3 for a GRU, 4 for an LSTM."""
    gates, rest = divmod(shape[axis], hidden)
    if rest or gates not in (1, 3, 4):
        raise ValueError(
            f"{name} must hold 1 (simple), 3 (GRU) or 4 (LSTM) gates of {hidden} units on axis "
            f"{axis}, got shape {list(shape)}"
        )
    return gates


def reorder(array: Array, source: str, target: str, axis: int = -1) -> Array:
    """Reorders the gates packed on an axis; each letter names one gate."""
    if source == target:
        return array
    blocks = jnp.split(array, len(source), axis=axis)
    return jnp.concatenate([blocks[source.index(letter)] for letter in target], axis=axis)
