"""Arrays of HDF5 files as Keras writes them, read in Python.

The HDF5 library in C, and h5py with it, crashes on some damaged files.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np


class Hdf5:
    """The groups and arrays of a file in memory."""

    def __init__(self, data: bytes):
        try:
            import pyfive
        except ImportError as error:
            raise ImportError(
                "files of Keras are read by pyfive, which is not installed; write "
                "pip install jaxrnn[keras]"
            ) from error
        self._size = len(data)
        if _end_of_file(data) > self._size:
            raise ValueError(
                f"the file must have {_end_of_file(data)} bytes, got {self._size}: it is incomplete"
            )
        self._root: Any = pyfive.File(io.BytesIO(data))

    def member(self, path: Sequence[str]) -> Any:
        """A group or a dataset."""
        node = self._root
        for i, name in enumerate(path):
            if not hasattr(node, "keys") or name not in node:
                raise ValueError(f"it must hold {'/'.join(path[: i + 1])}, got nothing there")
            node = node[name]
        return node

    def attribute(self, path: Sequence[str], name: str) -> Any:
        """An attribute of a group, with text decoded; None if there is none."""
        value = self.member(path).attrs.get(name)
        if isinstance(value, np.ndarray):
            return [_text(item) for item in value]
        return None if value is None else _text(value)

    def array(self, path: Sequence[str]) -> np.ndarray:
        """The numbers of a dataset."""
        dataset, name = self.member(path), "/".join(path)
        if not hasattr(dataset, "shape"):
            raise ValueError(f"{name} must be an array, got a group")
        stored, size = dataset.id, math.prod(dataset.shape) * dataset.dtype.itemsize
        # Keras writes numbers in one piece. Those of other files, and unwritten ones, are nowhere.
        pieces = stored.layout_class != 1 or stored.filter_pipeline
        if pieces or not 0 <= stored.data_offset <= self._size - size:
            raise ValueError(
                f"{name} must be stored in this file, in one piece and without compression, as "
                "Keras does; got another layout, or an incomplete file"
            )
        array = dataset[...]
        if _text(dataset.attrs.get("dtype")) == "bfloat16":
            array = array.view(jnp.bfloat16)
        return array


def _end_of_file(data: bytes) -> int:
    """The size that the file itself gives, at a place that depends on the format's version."""
    places = {0: 40, 1: 44, 2: 28, 3: 28}
    if data[:8] != b"\x89HDF\r\n\x1a\n" or data[8] not in places:
        raise ValueError("the arrays must be an HDF5 file, got another format")
    start = places[data[8]]
    return int.from_bytes(data[start : start + 8], "little")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
