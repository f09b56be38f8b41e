"""Golden files: records of peers, one small file a comparison, read without any peer."""

import pathlib

import numpy as np
import safetensors.numpy

FOLDER = pathlib.Path(__file__).parent / "golden"


def path(name: str) -> pathlib.Path:
    return FOLDER / f"{name}.safetensors"


def encode(record: dict[str, np.ndarray]) -> bytes:
    """The bytes of the file: they depend on the numbers alone."""
    return safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in record.items()})


def read(name: str) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(path(name))
