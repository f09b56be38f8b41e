"""Checkpoints of a run, by Orbax.

Orbax writes a checkpoint to a temporary folder and renames it, so a process killed at any moment
leaves complete checkpoints. It does not detect every damaged file, so the SHA-256 of the files is
written last and compared on reading. A damaged checkpoint is reported and renamed, and the one
before it is used.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np


class Loaded(NamedTuple):
    """The content of a checkpoint: arrays by the path of their leaf, and JSON values."""

    arrays: dict[str, np.ndarray]
    header: dict[str, Any]

    def restore(self, like: Any) -> Any:
        """Returns the pytree, which must have the structure, shapes and dtypes of `like`."""
        kind = lambda array: f"{array.dtype} {array.shape}"  # noqa: E731
        found, expected = (
            {name: kind(array) for name, array in arrays.items()}
            for arrays in (self.arrays, flatten(like))
        )
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"the checkpoint does not fit this run: {name} is {found.get(name)} in the "
                    f"checkpoint, {expected.get(name)} in this run"
                )
        return jax.tree.unflatten(jax.tree.structure(like), [self.arrays[n] for n in expected])


class Checkpoints:
    """The latest checkpoints of one run.

    Args:
        folder: where they are kept.
        keep: how many to keep; at least two, because the latest may be damaged.
        fresh: whether to delete those that are there.
    """

    def __init__(self, folder: Path, keep: int = 2, *, fresh: bool = False):
        import orbax.checkpoint as ocp  # slow to import, and `--help` needs no checkpoint

        self._args, self._folder = ocp.args, folder.resolve()
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            step_prefix="step",
            step_format_fixed_length=8,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, tree: Any, header: Mapping[str, Any]) -> None:
        """Saves a pytree of arrays and JSON values, then removes old checkpoints."""
        arrays = self._args.StandardSave(flatten(tree))
        header = self._args.JsonSave({"step": step, **header})
        self._manager.save(step, args=self._args.Composite(arrays=arrays, header=header))
        path = self.latest()
        assert path is not None
        replace_file(path / "sha256", _sha256(path))

    def load(self, report: Callable[[str], None]) -> Loaded | None:
        """Loads the latest sound checkpoint; reports and renames damaged ones."""
        while path := self.latest():
            digest = path / "sha256"
            if digest.exists() and digest.read_bytes() == _sha256(path):
                arrays, header = self._args.StandardRestore(), self._args.JsonRestore()
                content = self._args.Composite(arrays=arrays, header=header)
                found = self._manager.restore(self._manager.latest_step(), args=content)
                return Loaded(found.arrays, found.header)
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
            report(f"{path} is damaged: its SHA-256 does not match. It is renamed to {aside.name}.")
            self._manager.reload()
        return None

    def latest(self) -> Path | None:
        """The path of the latest checkpoint, None if there is none."""
        step = self._manager.latest_step()
        return None if step is None else self._folder / f"step_{step:08d}"


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a pytree by their path, as in `params/recurrent/0/input_kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    return {name(path): np.asarray(leaf, order="C") for path, leaf in leaves}


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file such that a killed process leaves either the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _sha256(folder: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if "sha256" not in path.name:
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest().encode()
