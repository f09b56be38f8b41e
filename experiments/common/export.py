"""Trained models as ONNX files, for serving without JAX; see docs/serving.md."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
from rich.console import Console

import jaxrnn as rnn
from experiments.common.cli import UserError

PyTree = Any


def sizes() -> tuple[Any, Any]:
    """The symbolic sizes of time and of rows."""
    names = ("time", "rows")
    return jax.export.symbolic_shape(", ".join(names), constraints=[f"{n} >= 1" for n in names])


def write_onnx(
    path: Path,
    console: Console,
    function: Callable[..., Mapping[str, PyTree]],
    facts: Mapping[str, str],
    **inputs: PyTree,
) -> None:
    """Writes a function of arrays as an ONNX file, and tells its inputs and outputs.

    Args:
        path: the file.
        console: where to print.
        function: `function(**inputs) -> {name: output}`; its arrays become weights.
        facts: what a server must know besides, as the file's metadata.
        **inputs: shapes and dtypes, of which sizes may be those of `sizes`.

    Raises:
        UserError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("export: the package onnx is missing: pip install onnx") from error
    model = rnn.export.function_to_onnx(function, **inputs)
    onnx.helper.set_model_props(model, dict(facts))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    named = [
        ", ".join(each.name for each in part) for part in (model.graph.input, model.graph.output)
    ]
    console.print(f"{path}: {path.stat().st_size:,} bytes; {named[0]} -> {named[1]}")
