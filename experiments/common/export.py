"""Trained models as ONNX files, for serving without JAX; see docs/serving.md."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
from rich.console import Console

import jaxrnn as rnn
from experiments.common.cli import UserError
from experiments.common.results import machine, write_json

PyTree = Any


def sizes() -> Any:
    """The symbolic sizes of time and of rows."""
    names = ("time", "rows")
    return jax.export.symbolic_shape(", ".join(names), constraints=[f"{n} >= 1" for n in names])


def write_onnx(
    path: Path,
    console: Console,
    function: Callable[..., Mapping[Any, PyTree]],
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


def compare_quantized(path: Path, console: Console, unit: str, loss: Callable[[Any], float]) -> str:
    """Writes a model with 8-bit weights too, and compares size, time and loss of both.

    The results also go to a file with the ending `.json`.

    Args:
        path: a model of `write_onnx`; the other has the ending `.int8.onnx`.
        console: where to print the table.
        unit: what the loss is.
        loss: evaluates an `onnxruntime.InferenceSession`; its time is the time in the table.

    Returns:
        The table.

    Raises:
        UserError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
        from onnxruntime.quantization import quantize_dynamic
    except ImportError as error:
        raise UserError("quantize: onnxruntime is missing: pip install onnxruntime") from error
    small = path.with_suffix(".int8.onnx")
    quantize_dynamic(path, small, extra_options={"EnableSubgraph": True})  # and bodies of loops
    lines, rows = [f"{'file':<24}{'bytes':>12}{'seconds':>10}  {unit}"], []
    for file in (path, small):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        loss(session)  # the first run allocates
        times = []
        for _ in range(3):
            began = time.perf_counter()
            value = loss(session)
            times.append(time.perf_counter() - began)
        size, seconds = file.stat().st_size, statistics.median(times)
        lines.append(f"{file.name:<24}{size:>12,}{seconds:>10.2f}  {value:.4f}")
        rows.append({"file": file.name, "bytes": size, "seconds": seconds, "loss": value})
    write_json(path.with_suffix(".json"), unit=unit, rows=rows, machine=machine())
    table = "\n".join(lines)
    console.print(table)
    return table
