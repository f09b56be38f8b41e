"""Variables of TensorFlow checkpoints and SavedModels, read without TensorFlow.

A checkpoint is a table of names in LevelDB's format (``*.index``) and files of raw numbers
(``*.data-00000-of-00001``). Nothing in it is run: the graph in ``saved_model.pb`` is not read.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrnn.convert._arrays import errors_name_file

__all__ = ["tensorflow_variables"]

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MAGIC = 0xDB4775248B80FB57
_STRING = 7
_DTYPES = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    9: np.int64,
    10: np.bool_,
    14: jnp.bfloat16,
    17: np.uint16,
    19: np.float16,
    22: np.uint32,
    23: np.uint64,
}


@errors_name_file
def tensorflow_variables(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the variables of a TensorFlow checkpoint or SavedModel, without TensorFlow.

    Args:
        path: the folder of a SavedModel, or the prefix of a checkpoint: ``model.ckpt-100`` for the
            files ``model.ckpt-100.index`` and ``model.ckpt-100.data-...``.

    Returns:
        NumPy arrays by their names in the checkpoint, in the order of the names with their numbers
        read as numbers: ``variables/2`` comes before ``variables/10``, which is the order of
        ``model.variables`` in Keras. Strings are omitted.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: a file is damaged or incomplete, with its name.

    Example:
        >>> import jaxrnn as rnn
        >>> arrays = rnn.convert.tensorflow_variables("exported")  # doctest: +SKIP
        >>> cell, params = rnn.convert.from_keras(  # doctest: +SKIP
        ...     [arrays[f"variables/{i}"] for i in (0, 1, 2)])
    """
    bundle = Bundle(os.fspath(path))
    names = sorted((n for n, entry in bundle.entries.items() if entry.dtype != _STRING), key=_order)
    return {name.removesuffix(_VALUE): bundle.array(name) for name in names}


def _order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split("/")]


class _Entry(NamedTuple):
    """Where a tensor is: its numbers are ``size`` bytes of one of the files."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    sliced: bool


class Bundle:
    """The tensors of a checkpoint by name."""

    def __init__(self, path: str):
        self.prefix = os.path.join(path, "variables", "variables") if os.path.isdir(path) else path
        file = f"{self.prefix}.index"
        with open(file, "rb") as opened:
            data = opened.read()
        try:
            table = dict(_table(data))
            header = _message(table.pop(b""))
            self.shards = header.get(1, [0])[-1]
            if header.get(2, [0])[-1] != 0:
                raise ValueError("its numbers are big-endian")
            self.entries = {name.decode(): _entry(value) for name, value in table.items()}
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"{file} must be the index of a complete TensorFlow checkpoint, got: {error}"
            ) from error
        for shard in {entry.shard for entry in self.entries.values()}:
            ends = [e.offset + e.size for e in self.entries.values() if e.shard == shard]
            if os.path.getsize(self._file(shard)) < max(ends):
                raise ValueError(
                    f"{self._file(shard)} must have at least {max(ends)} bytes, got "
                    f"{os.path.getsize(self._file(shard))}; the file is incomplete"
                )

    def array(self, name: str) -> np.ndarray:
        """The numbers of a tensor."""
        entry = self.entries[name]
        dtype = _DTYPES.get(entry.dtype)
        if dtype is None or entry.sliced:
            raise ValueError(
                f"{name} of {self.prefix} must be a whole tensor of numbers, got TensorFlow's type "
                f"{entry.dtype}{' in slices' if entry.sliced else ''}"
            )
        if entry.size != np.dtype(dtype).itemsize * int(np.prod(entry.shape, dtype=object)):
            raise ValueError(
                f"{name} of {self.prefix}.index must have {list(entry.shape)} numbers of "
                f"{np.dtype(dtype).name}, got {entry.size} bytes; the file is damaged"
            )
        return np.frombuffer(self._bytes(entry), dtype).reshape(entry.shape)

    def graph(self) -> list[tuple[dict[str, int], dict[str, str]]]:
        """The objects that own the variables, the root first: their children and tensors by name.

        It is empty for a checkpoint of TensorFlow 1.
        """
        if _GRAPH not in self.entries:
            return []
        # A string is stored as its length, a checksum of the length, and its bytes.
        data = self._bytes(self.entries[_GRAPH])
        try:
            length, start = _varint(data, 0)
            data = data[start + 4 :]
            if len(data) != length:
                raise ValueError(f"{len(data)} bytes instead of {length}")
            nodes = []
            for node in _message(data).get(1, []):
                fields = _message(node)
                children = [_message(child) for child in fields.get(1, [])]
                tensors = [_message(tensor) for tensor in fields.get(2, [])]
                nodes.append(
                    (
                        {_text(c, 2): c.get(1, [0])[-1] for c in children},
                        {_text(t, 1): _text(t, 3) for t in tensors},
                    )
                )
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.prefix} must hold a complete graph of objects, got: {error}"
            ) from error
        return nodes

    def _file(self, shard: int) -> str:
        return f"{self.prefix}.data-{shard:05d}-of-{self.shards:05d}"

    def _bytes(self, entry: _Entry) -> bytes:
        with open(self._file(entry.shard), "rb") as opened:
            opened.seek(entry.offset)
            return opened.read(entry.size)


def _entry(data: bytes) -> _Entry:
    fields = _message(data)
    dims = [_message(dim) for dim in _message(fields.get(2, [b""])[-1]).get(2, [])]
    one = {n: fields.get(n, [0])[-1] for n in (1, 3, 4, 5)}
    return _Entry(
        one[1], tuple(d.get(1, [0])[-1] for d in dims), one[3], one[4], one[5], 7 in fields
    )


def keras_metadata(data: bytes) -> dict[str, str]:
    """The JSON of each object of Keras in a SavedModel, by its path from ``root``."""
    try:
        nodes = [_message(node) for node in _message(data).get(1, [])]
        return {_text(node, 3): _text(node, 5) for node in nodes}
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"keras_metadata.pb must be complete, got: {error}") from error


# Protocol buffers -------------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _message(data: bytes) -> dict[int, list[Any]]:
    """The values of each field of a message: ints, or bytes for strings and messages."""
    if not isinstance(data, bytes):
        raise ValueError(f"a number instead of a message, {data}")
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            if kind == 2:
                size, at = _varint(data, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise ValueError(f"a field of the unknown wire type {kind}")
            if at + size > len(data):
                raise ValueError("a field that is longer than its message")
            value = data[at : at + size]
            at += size
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _text(fields: dict[int, list[Any]], number: int) -> str:
    return fields.get(number, [b""])[-1].decode()


# LevelDB's table --------------------------------------------------------------------------------


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table."""
    if len(data) < 48 or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise ValueError("no footer of a table")
    footer = data[-48:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    for _, handle in _block(data, *_handle(footer[at:])):
        yield from _block(data, *_handle(handle))


def _handle(data: bytes) -> tuple[int, int]:
    offset, at = _varint(data, 0)
    return offset, _varint(data, at)[0]


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block; a key omits what it shares with the key before."""
    block, trailer = data[offset : offset + size], data[offset + size : offset + size + 5]
    if len(trailer) < 5:
        raise ValueError("a block beyond the end of the file")
    if trailer[0] != 0:
        raise ValueError("a compressed block, which TensorFlow does not write")
    if _masked_crc(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise ValueError("a wrong checksum")
    end = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little"))
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


@functools.cache
def _crc_table() -> list[int]:
    """CRC-32C (Castagnoli) of each byte."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def _masked_crc(data: bytes) -> int:
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
