"""Text for models of characters: numbers, the chunks of training, and the rows of validation."""

from typing import NamedTuple

import numpy as np


class Corpus(NamedTuple):
    """A text, the characters that it uses, and their numbers: 90 % for training, 10 % held out."""

    text: str
    vocabulary: str
    train: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(cls, text: str) -> "Corpus":
        """Numbers the characters of a text in the order of their code points."""
        codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
        vocabulary, tokens = np.unique(codes, return_inverse=True)
        tokens = tokens.astype(np.int32)
        cut = len(tokens) * 9 // 10
        return cls(text, "".join(map(chr, vocabulary)), tokens[:cut], tokens[cut:])

    def decode(self, tokens: np.ndarray) -> str:
        """The text that numbers stand for."""
        return "".join(self.vocabulary[token] for token in tokens)


def chunk(tokens: np.ndarray, step: int, rows: int, time: int) -> np.ndarray:
    """The tokens of one training step, `[time + 1, rows]`: all but the last have a successor.

    Row r begins r / rows into the text and reads on without a gap, over the end to the beginning,
    so the state that one step leaves is the one that the next step wants.
    """
    begin = np.arange(rows) * (len(tokens) // rows) + step * time
    return tokens[(begin + np.arange(time + 1)[:, None]) % len(tokens)]


class Streams(NamedTuple):
    """A text cut into rows that are read side by side, all arrays `[chunks, time, rows]`.

    Every token but the text's first is a target that counts, in one place; its predecessor is the
    input there.
    """

    inputs: np.ndarray
    targets: np.ndarray
    counts: np.ndarray


def side_by_side(tokens: np.ndarray, rows: int, time: int) -> Streams:
    """Cuts a text into rows, and the rows into chunks."""
    targets = len(tokens) - 1
    stretch = -(-targets // rows)  # of one row, rounded up
    chunks = -(-stretch // time)
    t = np.arange(chunks * time)[:, None]
    where = np.arange(rows) * stretch + t
    counts = (t < stretch) & (where < targets)
    where = np.minimum(where, targets - 1)
    parts = (tokens[where], tokens[where + 1], counts.astype(np.float32))
    return Streams(*(part.reshape(chunks, time, rows) for part in parts))


def longest_copy(text: str, source: str) -> str:
    """The longest run of characters in a text that stands in the source, too.

    Example:
        >>> longest_copy("to be or not", "not to bet, or not to")
        ' or not'
    """
    longest = ""
    for begin in range(len(text)):
        while begin + len(longest) < len(text) and text[begin : begin + len(longest) + 1] in source:
            longest = text[begin : begin + len(longest) + 1]
    return longest
