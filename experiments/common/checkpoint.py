"""Checkpoints of a run, by Orbax.

Orbax writes a checkpoint to a temporary folder and renames it, so a process killed at any moment
leaves complete checkpoints. It does not detect every damaged file, so the SHA-256 of the files is
written last and compared on reading. Several processes write their own parts of the arrays to a
folder that they share; a checkpoint does not depend on their number.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.common import processes


class Checkpoints:
    """The latest checkpoints of a run.

    Args:
        folder: where they are kept.
        keep: how many to keep; at least two, because the latest may be damaged.
        fresh: whether to delete those that are there.
    """

    def __init__(self, folder: Path, keep: int = 2, *, fresh: bool = False):
        import orbax.checkpoint as ocp  # slow to import, and `--help` needs no checkpoint

        self._args, self._folder = ocp.args, folder.resolve()
        if fresh and processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        processes.wait_for_all()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            step_prefix="step",
            step_format_fixed_length=8,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        )
        handlers = {
            "arrays": ocp.StandardCheckpointHandler(),
            "header": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, step: int, tree: Any, header: Mapping[str, Any]) -> None:
        """Saves a pytree of arrays and JSON values, then removes old checkpoints."""
        arrays, header = self._args.StandardSave(flatten(tree)), self._args.JsonSave(dict(header))
        self._manager.save(step, args=self._args.Composite(arrays=arrays, header=header))
        if processes.is_first():
            replace_file(self._path(step) / "sha256", _sha256(self._path(step)))

    def load(self, report: Callable[[str], None]) -> tuple[int, dict, dict[str, Any]] | None:
        """Returns step, named arrays and header of the latest sound checkpoint, if there is one.

        Damaged checkpoints are reported and renamed.
        """
        step = processes.from_first(lambda: self._latest_sound(report))
        if step is None:
            return None
        self._manager.reload()
        names = self._manager.item_metadata(step).arrays
        like = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in names.items()}
        arrays, header = self._args.StandardRestore(like), self._args.JsonRestore()
        content = self._args.Composite(arrays=arrays, header=header)
        found: Any = self._manager.restore(step, args=content)
        return step, found.arrays, found.header

    def _latest_sound(self, report: Callable[[str], None]) -> int | None:
        while (step := self._manager.latest_step()) is not None:
            path = self._path(step)
            digest = path / "sha256"
            if digest.exists() and digest.read_bytes() == _sha256(path):
                return step
            damaged = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(damaged, ignore_errors=True)
            os.replace(path, damaged)
            self._manager.reload()
            report(f"{path} is damaged: its SHA-256 does not match; renamed to {damaged.name}")
        return None

    def latest(self) -> Path | None:
        """The path of the latest checkpoint, None if there is none."""
        step = self._manager.latest_step()
        return None if step is None else self._path(step)

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:08d}"


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by name, as in `params/recurrent/0/input_kernel`.

    They are NumPy arrays, but for those of which this process holds a part.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    is_part = lambda leaf: isinstance(leaf, jax.Array) and not leaf.is_fully_addressable  # noqa: E731
    return {
        name(path): leaf if is_part(leaf) else np.asarray(leaf, order="C") for path, leaf in leaves
    }


def unflatten(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The inverse of `flatten`, for a pytree with the structure, shapes and dtypes of `like`."""
    expected = flatten(like)
    found, wanted = (
        {(name, array.shape, array.dtype) for name, array in each.items()}
        for each in (arrays, expected)
    )
    if found != wanted:
        names = ", ".join(sorted({name for name, *_ in found ^ wanted}))
        raise ValueError(f"the checkpoint does not fit this run, it has another {names}")
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])


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
