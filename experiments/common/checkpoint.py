"""Checkpoints: written whole or not at all, checked when read, and never executed.

A checkpoint is one safetensors file: eight bytes with the header's length, a JSON header, then the
arrays. A pytree's leaf is stored under its path, as in `params/recurrent/0/input_kernel`. The
header's `__metadata__` holds strings:

    step     the number of training steps done
    header   what else the writer wants to keep, as JSON
    sha256   the SHA-256 of the whole file, taken with this digest's 64 characters as zeros

so every byte of the file is covered. Any safetensors reader opens such a file.

Writing goes to a temporary file, which is flushed to the disk and then renamed, so a process killed
at any moment leaves either the old files or the old files and a whole new one. A folder keeps the
last few; one that is damaged all the same (a bad disk, a careless hand) is named and set aside, and
the one before it is used.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import numpy as safetensors

_UNSIGNED = "0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_READABLE = (
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64"
)


class DamagedError(ValueError):
    """A checkpoint's bytes are not those that were written."""


class Loaded(NamedTuple):
    """What a checkpoint held."""

    path: Path
    step: int
    header: dict[str, Any]
    tensors: dict[str, np.ndarray]

    def restore(self, like: Any) -> Any:
        """Gives the pytree back.

        Args:
            like: a pytree of the structure, shapes and dtypes that are wanted.

        Raises:
            ValueError: the file holds other arrays than `like`.
        """
        leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
        wanted = {_name(where): (tuple(leaf.shape), np.dtype(leaf.dtype)) for where, leaf in leaves}
        found = {name: (array.shape, array.dtype) for name, array in self.tensors.items()}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise ValueError(
                    f"{self.path} does not fit: {name} is {found.get(name, 'not there')} in the "
                    f"file, {wanted.get(name, 'not there')} in this run"
                )
        return jax.tree.unflatten(treedef, [self.tensors[name] for name in wanted])


def write(path: Path, tree: Any, *, step: int, header: Mapping[str, Any]) -> None:
    """Writes a pytree of arrays to one file, atomically and durably.

    Args:
        path: the file, replaced if it is there.
        tree: arrays of NumPy's own types other than complex128.
        step: the number of training steps done.
        header: what else to keep; anything that JSON can hold.

    Raises:
        TypeError: a leaf's type cannot be stored.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    tensors = {_name(where): np.asarray(leaf, order="C") for where, leaf in leaves}
    for name, array in tensors.items():
        if array.dtype.name not in _READABLE.split():
            raise TypeError(
                f"tree leaf {name} has dtype {array.dtype}; a checkpoint holds {_READABLE}"
            )
    metadata = {"step": str(step), "header": json.dumps(header), "sha256": _UNSIGNED}
    content = safetensors.save(tensors, metadata=metadata)
    digest = hashlib.sha256(content).hexdigest()
    signed = content.replace(b'"sha256":"' + _UNSIGNED.encode(), b'"sha256":"' + digest.encode(), 1)
    replace_file(path, signed)


def read(path: Path) -> Loaded:
    """Reads what `write` wrote, after checking every byte of it.

    Raises:
        DamagedError: the file was cut short or altered.
    """
    content = path.read_bytes()
    found = _DIGEST.search(content)
    if found is None:
        raise DamagedError(f"{path} is damaged: it has no SHA-256")
    unsigned = content[: found.start(1)] + _UNSIGNED.encode() + content[found.end(1) :]
    if hashlib.sha256(unsigned).hexdigest().encode() != found[1]:
        raise DamagedError(f"{path} is damaged: its SHA-256 is not the one that it names")
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata["header"])
    return Loaded(path, int(metadata["step"]), header, safetensors.load(content))


def read_or_set_aside(path: Path, *, report: Callable[[str], None]) -> Loaded | None:
    """Reads a checkpoint; one that is damaged is reported and renamed, and gives None."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except DamagedError as error:
        aside = path.with_suffix(".damaged")
        os.replace(path, aside)
        report(f"{error}. It is set aside as {aside.name}.")
        return None


@dataclass(frozen=True)
class Folder:
    """The last few checkpoints of one run.

    Args:
        path: the folder.
        keep: how many to keep, at least two.
    """

    path: Path
    keep: int = 2

    def __post_init__(self):
        if self.keep < 2:
            raise ValueError(f"keep must be at least 2, got {self.keep}: the last may be damaged")

    def save(self, tree: Any, *, step: int, header: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of a step, then removes those that are too old."""
        path = self.path / f"step-{step:08d}.safetensors"
        write(path, tree, step=step, header=header)
        for old in self._files()[: -self.keep]:
            old.unlink()
        return path

    def load(self, *, report: Callable[[str], None]) -> Loaded | None:
        """Reads the newest sound checkpoint, None if there is none.

        Args:
            report: told of each damaged file, which is renamed so that it does not count again.
        """
        for path in reversed(self._files()):
            if loaded := read_or_set_aside(path, report=report):
                return loaded
        return None

    def newest(self) -> Path | None:
        """The file of the last step, None if there is none."""
        return self._files()[-1] if self._files() else None

    def clear(self) -> None:
        """Removes all checkpoints."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("step-*.safetensors"))


def replace_file(path: Path, content: bytes) -> None:
    """Gives a file new content such that a crash leaves the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself is on the disk only when the folder is.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
