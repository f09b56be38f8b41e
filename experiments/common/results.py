"""What a run found, as a small JSON file, and all that it depends on besides the code.

docs/data/experiments/ keeps such files, and `docs.tools.experiments_table` makes tables of them.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import jax

from experiments.common.cli import shell_command
from experiments.common.processes import cores

PACKAGES = (
    *("jax", "jaxlib", "numpy", "torch", "flax", "dm-haiku", "equinox", "keras"),
    "onnxruntime",
)
"""The packages whose versions are recorded."""


def write_results(
    folder: Path,
    experiment: str,
    config: Any,
    figures: Mapping[str, Any],
    seconds: float,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Writes `results.json`.

    Args:
        folder: the output folder.
        experiment: the name of the experiment, as in `python -m experiments.NAME`.
        config: its configuration, of which the seeds and the options that are not the defaults are
            written.
        figures: what was found, by name: one number a seed, or one number.
        seconds: the time of training.
        baselines: the figures of other methods, by method.
    """
    first = getattr(getattr(config, "training", config), "seed", 0)
    write_json(
        folder / "results.json",
        experiment=experiment,
        options=_changed(config, type(config)()),
        seeds=list(range(first, first + getattr(config, "seeds", 1))),
        figures=figures,
        baselines=baselines or {},
        seconds=round(seconds, 1),
        machine=machine(),
    )


def write_json(path: Path, **content: Any) -> None:
    """Writes what JSON can hold, numbers of NumPy, and the text of all else."""
    plain = lambda each: each.item() if hasattr(each, "item") else str(each)  # noqa: E731
    text = json.dumps(content, indent=1, allow_nan=False, default=plain)
    path.write_text(text + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Device, threads, versions, flags, command and date."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    prefixes = ("XLA_", "JAX_", "OMP_", "MKL_", "KMP_", "ONEDNN_")
    flags = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(prefixes)}
    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "processor": _processor(),
        "threads": cores(),
        "versions": versions,
        "flags": flags,
        "command": shell_command(),
        "date": str(date.today()),
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _changed(config: Any, default: Any) -> dict[str, Any]:
    """The options that are not the defaults, those of nested configurations too."""
    found = {}
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            found |= _changed(value, usual)
        elif value != usual and field.name not in ("seed", "seeds", "out", "fresh"):
            found[field.name] = value
    return found
