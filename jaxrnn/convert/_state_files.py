"""Files with the state dict of a module: safetensors, and those of torch.save."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from jaxrnn.convert._arrays import errors_name_file

F = TypeVar("F", bound=Callable)


def accepts_files(function: F) -> F:
    """Lets a converter of state dicts take the path of one, which every error then names."""

    @errors_name_file
    def read(path: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        return function(_read_file(os.fspath(path)), *args, **kwargs)

    @functools.wraps(function)
    def call(source: Any, *args: Any, **kwargs: Any) -> Any:
        run = read if isinstance(source, str | os.PathLike) else function
        return run(source, *args, **kwargs)

    return cast("F", call)


def state_dict(source: Any) -> Mapping[str, Any]:
    """The arrays of a PyTorch module by name, or a mapping as it is."""
    arrays = source.state_dict() if hasattr(source, "state_dict") else source
    if not isinstance(arrays, Mapping):
        raise TypeError(
            "source must be a PyTorch module or its state dict, or the path of one, got "
            f"{type(source).__name__}"
        )
    return arrays


def _read_file(path: str) -> Mapping[str, Any]:
    if path.endswith(".safetensors"):
        import safetensors
        import safetensors.numpy

        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} must be a complete safetensors file, got: {error}") from error
    import pickle

    import torch

    try:
        arrays = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} must contain tensors only, as torch.save(module.state_dict(), path) writes "
            f"them: loading a pickled module would run its code; PyTorch's error: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{path} must hold a state dict, got {type(arrays).__name__}")
    return arrays
